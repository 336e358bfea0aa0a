"""Pagination: continuation tokens, and all pages as one stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from perdure.errors import PayloadError
from perdure.model.entities import EntityPage, EntityState
from perdure.model.instances import OrchestrationStatus, Page

PAGE = 500  # instances of one request


_DIGITS, _LARGEST = 19, 2**63 - 1  # the limits of row numbers


def number_in(continuation: str | None, of: str = "a query") -> int | None:
    """The row number at which a page ended. Raises PayloadError for an invalid token."""
    if continuation is None:
        return None
    is_number = continuation.isascii() and continuation.isdigit() and len(continuation) <= _DIGITS
    if not is_number or int(continuation) > _LARGEST:
        raise PayloadError(f"this is not a continuation token of {of}")
    return int(continuation)


async def all_pages(
    query: Callable[..., Awaitable[Page]], **which: Any
) -> AsyncIterator[OrchestrationStatus]:
    """Every instance that matches, newest first. `query` is a client's, and `which` are its filters."""
    continuation: str | None = None
    while True:
        page = await query(top=PAGE, continuation=continuation, **which)
        for found in page.instances:
            yield found
        continuation = page.continuation
        if continuation is None:
            return


async def all_entities(
    query: Callable[..., Awaitable[EntityPage]], **which: Any
) -> AsyncIterator[EntityState]:
    """Every entity that matches, newest first. `query` is a client's, and `which` are its filters."""
    continuation: str | None = None
    while True:
        page = await query(top=PAGE, continuation=continuation, **which)
        for found in page.entities:
            yield found
        continuation = page.continuation
        if continuation is None:
            return
