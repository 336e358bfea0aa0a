"""What SQLite says, in the words of the port. The only place that knows apsw's exceptions."""

from __future__ import annotations

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
    TypeError,  # a value that is no SQLite type
)
"""Errors for which a value of the batch is to blame, and that leave the transaction to be rolled back."""

_UNUSABLE: Final = (
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.AuthError,
)


def translated(error: Exception, location: str, stage: str = "") -> StoreError:
    """The error of the port for an error of apsw's. `stage` names the statement, and with it the table."""
    if isinstance(error, FOR_ITS_DATA):
        return CommitRefused(
            f"{location} refused a row ({stage}) and rolled its batch back: {_reason(error)}"
        )
    if isinstance(error, apsw.FullError):
        return StoreFull(
            f"no space is left for {location}; nothing was changed. Free space on its disk, then try again"
        )
    if isinstance(error, _UNUSABLE):
        return StoreUnusable(f"{location} cannot be used: {_reason(error)}")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreError(f"{location} is locked by another program: {_reason(error)}")
    return StoreError(f"{location} failed: {_reason(error)}")


@contextmanager
def translating(location: str) -> Iterator[None]:
    """Raise errors of apsw's as errors of the port."""
    try:
        yield
    except apsw.Error as error:
        raise translated(error, location) from error


def _reason(error: Exception) -> str:
    """Such as `ConstraintError: UNIQUE constraint failed: history.instance_no, ...`: it names the table."""
    return f"{type(error).__name__}: {error}"
