"""Failures of a disk, as SQLite's file layer reports them: once, or from some operation on until it is mended.

A directory whose sync fails is not among them: SQLite's unix layer says nothing of it to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import apsw

from powercuts.disk import Disk
from powercuts.operations import (
    FailedSync,
    LinkFile,
    Open,
    Operation,
    Read,
    Sync,
    Truncate,
    UnlinkFile,
    Write,
)


@dataclass(frozen=True)
class DiskFault:
    """What fails and with what. `lasts` is the number of operations of its kind that fail in a row."""

    name: str
    kinds: tuple[type[Operation], ...]
    code: int
    lasts: int = 1


FOR_LONG: Final = 1_000_000
FAULTS: Final = (
    DiskFault("EIO on one write", (Write,), apsw.SQLITE_IOERR_WRITE),
    DiskFault("EIO on writes", (Write,), apsw.SQLITE_IOERR_WRITE, FOR_LONG),
    DiskFault("ENOSPC on one write", (Write,), apsw.SQLITE_FULL),
    DiskFault("ENOSPC on writes", (Write,), apsw.SQLITE_FULL, FOR_LONG),
    DiskFault("EIO on one sync", (Sync,), apsw.SQLITE_IOERR_FSYNC),
    DiskFault("EIO on syncs", (Sync,), apsw.SQLITE_IOERR_FSYNC, FOR_LONG),
    DiskFault("ENOSPC on one sync", (Sync,), apsw.SQLITE_FULL),
    DiskFault("EIO on one truncate", (Truncate,), apsw.SQLITE_IOERR_TRUNCATE),
    DiskFault("EIO on one open", (Open,), apsw.SQLITE_CANTOPEN),
    DiskFault("EMFILE on opens", (Open,), apsw.SQLITE_CANTOPEN, 5),
    DiskFault("EIO on one read", (Read,), apsw.SQLITE_IOERR_READ),
    DiskFault("EIO on one deletion", (UnlinkFile,), apsw.SQLITE_IOERR_DELETE),
    DiskFault(
        "EIO on everything",
        (Write, Sync, Truncate, Open, Read, UnlinkFile, LinkFile),
        apsw.SQLITE_IOERR,
        FOR_LONG,
    ),
)


class Trouble:
    """Fails the k-th operation of a fault's kinds on a disk, and as many after it as the fault lasts."""

    def __init__(self, disk: Disk, fault: DiskFault, k: int) -> None:
        self.fault = fault
        self.struck = False
        self.mended = False
        self.count = 0
        self._k = k
        self._disk = disk
        disk.before = self._before

    def mend(self) -> None:
        """The disk is well again."""
        self.mended = True

    @property
    def is_on(self) -> bool:
        """It fails now."""
        return self.struck and not self.mended and self.count < self._k + self.fault.lasts - 1

    def _before(self, operation: Operation) -> None:
        if self.mended or not isinstance(operation, self.fault.kinds):
            return
        self.count += 1
        if not self._k <= self.count < self._k + self.fault.lasts:
            return
        self.struck = True
        if isinstance(operation, Sync):
            self._disk.log.append(FailedSync(operation.file))
        raise apsw.exception_for(self.fault.code)
