"""Page after page of a list, as one stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from perdure.model.instances import OrchestrationStatus, Page

PAGE = 500  # instances asked for at once


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
