"""Translation of PostgreSQL's errors to the port's. Only this module knows SQLSTATEs.

A server that answers with an error has rolled back. An error without a SQLSTATE comes from the connection: then
the outcome of the commit is unknown.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from struct import error as StructError
from typing import TYPE_CHECKING, Final

import psycopg

from perdure.errors import CommitConflict, CommitRefused, FenceLost, StoreError, StoreFull, StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

FOR_ITS_DATA: Final = (
    OverflowError,
    StructError,  # an integer beyond 64 bits, or not an integer
    UnicodeError,  # a lone surrogate
    TypeError,
    AttributeError,  # a value of another type than its column's
)
"""Errors of encoding a batch, before anything was sent."""

FENCE_LOST: Final = "PD001"
OPERATION_TAKEN: Final = "PD002"
_REFUSED_CLASSES: Final = ("22", "23", "54", "PD003")
_CONFLICTS: Final = ("40001", "40P01")
_FULL: Final = "53100"
_RACED: Final = ("instances_id", "seen_pkey")
"""Unique constraints that fail if another worker was first."""
_MISSING: Final = ("42P01", "3F000", "42883", "42703")  # table, schema, function, column
_FORBIDDEN: Final = ("42501", "28000", "28P01", "25006")
_NO_DATABASE: Final = "3D000"
_PREFACE: Final = re.compile(r"^(- host: .*?: )?connection (failed|is bad): ")
_NOT_YET: Final = re.compile(r"starting up|shutting down|recovery mode")
_NO_SUCH_DATABASE: Final = re.compile(r'FATAL: +database "[^"]*" does not exist')
_NOT_LET_IN: Final = re.compile(
    r"authentication failed for user|no password supplied|no pg_hba\.conf entry|"
    r'FATAL: +role "[^"]*" (does not exist|is not permitted to log in)'
)


def translated(error: Exception, where: str, *, shared: bool = False) -> StoreError:
    """The port's error for an error of the driver."""
    if isinstance(error, FOR_ITS_DATA):
        return CommitRefused(
            f"{where} would reject a value, so nothing of the batch was sent: {_reason(error)}"
        )
    state = getattr(error, "sqlstate", None) or ""
    diag = getattr(error, "diag", None)
    constraint = (getattr(diag, "constraint_name", None) or "") if state == "23505" else ""
    if state == OPERATION_TAKEN or constraint in _RACED:
        if shared:
            return CommitConflict(
                f"{where}: another worker committed first; the batch was rolled back: {error}"
            )
        return CommitRefused(f"{where} already has that row and rolled the batch back: {_reason(error)}")
    if state == FENCE_LOST:
        return FenceLost(f"{where}: {error}: another worker has taken the partitions. Nothing was changed")
    if state.startswith(_REFUSED_CLASSES):
        return CommitRefused(f"{where} rejected a row and rolled its batch back: {_reason(error)}")
    if state in _CONFLICTS:
        return CommitConflict(
            f"{where}: a concurrent transaction conflicted; this one was rolled back: {error}"
        )
    if state == _FULL:
        return StoreFull(
            f"no space is left for {where}; nothing was changed. Free space there, then try again"
        )
    if state in _MISSING:
        return StoreUnusable(
            f"{where} lacks perdure's tables, or some of them: no engine has opened it yet. Start one with a "
            f"role that may create tables, or run `perdure migrate`. PostgreSQL says: {error}"
        )
    if state in _FORBIDDEN or state == _NO_DATABASE:
        return StoreUnusable(f"{where} cannot be used: {_reason(error)}")
    return StoreError(f"{where} failed: {_reason(error)}")


def for_good(error: BaseException | None, where: str, database: str) -> StoreUnusable | None:
    """The error of a failed connection for which a retry is useless. libpq reports it as text only.

    Messages in another language are not recognized, and are retried.
    """
    said = " ".join(str(error).split())
    if _NOT_YET.search(said):
        return None
    if _NO_SUCH_DATABASE.search(said):
        return StoreUnusable(
            f"{where}: the database {database!r} does not exist. Create it with `createdb {database}`, or "
            f"correct the address. PostgreSQL says: {said}"
        )
    if _NOT_LET_IN.search(said):
        return StoreUnusable(
            f"{where} rejects this user. Check user and password in the address, where @ is written as %40, : "
            f"as %3A and / as %2F. PostgreSQL says: {said}"
        )
    return None


@contextmanager
def translating(where: str) -> Iterator[None]:
    """Raise errors of the driver as errors of the port."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error, where) from error


def _reason(error: Exception) -> str:
    """The message of the server or its library, on one line. An error in a value is preceded by its class."""
    said = " ".join(str(error).split())
    if not isinstance(error, psycopg.Error):
        return f"{type(error).__name__}: {said}"
    return said if error.sqlstate else _of_connection(str(error))


def _of_connection(said: str) -> str:
    """The first line, without the driver's preface and hints; with several hosts, one line for each."""
    lines = said.splitlines() or [""]
    hosts = [line for line in lines if line.startswith("- host: ")] or lines[:1]
    return "; ".join(" ".join(_PREFACE.sub("", host).split()) for host in hosts)


__all__ = ["FENCE_LOST", "FOR_ITS_DATA", "OPERATION_TAKEN", "for_good", "translated", "translating"]
