"""Translation of SQLite's errors to the port's. Only this module knows apsw's exceptions."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import apsw

from perdure.errors import CommitRefused, StoreError, StoreFull, StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Iterator

FOR_ITS_DATA: Final = (
    apsw.ConstraintError,
    apsw.TooBigError,
    apsw.MismatchError,
    OverflowError,  # an integer beyond 64 bits
    UnicodeError,  # a lone surrogate
    TypeError,  # a value of an unsupported type
)
"""Errors caused by a value of the batch, which leave the transaction to be rolled back."""

_NOTHING_TO_ROLL_BACK: Final = "no transaction is active"
_UNUSABLE: Final = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.AuthError,
)


def translated(error: Exception, location: str, stage: str = "") -> StoreError:
    """The port's error for an error of apsw. `stage` names the statement, and so the table."""
    error = _first(error)
    if isinstance(error, FOR_ITS_DATA):
        return CommitRefused(
            f"{location} rejected a row ({stage}) and rolled its batch back: {_reason(error)}"
        )
    if isinstance(error, apsw.FullError) or _left_no_space(error, location):
        return StoreFull(
            f"no space is left for {location}; nothing was changed. Free space on its disk, then try again"
        )
    if isinstance(error, _UNUSABLE):
        return StoreUnusable(f"{location} cannot be used: {_reason(error)}")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreError(f"{location} is locked by another program: {_reason(error)}")
    return StoreError(f"{location} failed: {_reason(error)}")


def _first(error: Exception) -> Exception:
    """The error that ended a transaction, where SQLite had rolled it back and then had nothing to roll back."""
    before = error.__context__
    if (
        isinstance(error, apsw.SQLError)
        and _NOTHING_TO_ROLL_BACK in str(error)
        and isinstance(before, apsw.Error)
    ):
        return _first(before)
    return error


def _left_no_space(error: Exception, location: str) -> bool:
    """Whether a full disk is behind an error of another name: no room for the shared memory, or for a new file."""
    if isinstance(error, apsw.IOError):
        return getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE
    if not isinstance(error, apsw.CantOpenError):
        return False
    try:
        disk = os.statvfs(os.path.dirname(os.path.abspath(location)))
    except OSError:
        return False
    return disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_favail == 0)


@contextmanager
def translating(location: str) -> Iterator[None]:
    """Raise errors of apsw as errors of the port."""
    try:
        yield
    except apsw.Error as error:
        raise translated(error, location) from error


def _reason(error: Exception) -> str:
    """Such as `ConstraintError: UNIQUE constraint failed: history.instance_no, ...`: it names the table."""
    return f"{type(error).__name__}: {error}"
