"""Failures of a disk, as SQLite's file layer reports them: once, or from some operation on until it is mended.

A directory whose sync fails is not among them: SQLite's unix layer says nothing of it to anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import apsw

from powercuts.disk import Disk
from powercuts.operations import FailedSync, Link, Open, Operation, Read, Sync, Truncate, Unlink, Write


@dataclass(frozen=True)
class Fault:
    """What fails and with what. `lasts` is the number of operations of its kind that fail in a row."""

    name: str
    kinds: tuple[type[Operation], ...]
    code: int
    lasts: int = 1


FOR_LONG: Final = 1_000_000
FAULTS: Final = (
    Fault("EIO on one write", (Write,), apsw.SQLITE_IOERR_WRITE),
    Fault("EIO on writes", (Write,), apsw.SQLITE_IOERR_WRITE, FOR_LONG),
    Fault("ENOSPC on one write", (Write,), apsw.SQLITE_FULL),
    Fault("ENOSPC on writes", (Write,), apsw.SQLITE_FULL, FOR_LONG),
    Fault("EIO on one sync", (Sync,), apsw.SQLITE_IOERR_FSYNC),
    Fault("EIO on syncs", (Sync,), apsw.SQLITE_IOERR_FSYNC, FOR_LONG),
    Fault("ENOSPC on one sync", (Sync,), apsw.SQLITE_FULL),
    Fault("EIO on one truncate", (Truncate,), apsw.SQLITE_IOERR_TRUNCATE),
    Fault("EIO on one open", (Open,), apsw.SQLITE_CANTOPEN),
    Fault("EMFILE on opens", (Open,), apsw.SQLITE_CANTOPEN, 5),
    Fault("EIO on one read", (Read,), apsw.SQLITE_IOERR_READ),
    Fault("EIO on one deletion", (Unlink,), apsw.SQLITE_IOERR_DELETE),
    Fault(
        "EIO on everything", (Write, Sync, Truncate, Open, Read, Unlink, Link), apsw.SQLITE_IOERR, FOR_LONG
    ),
)


class Trouble:
    """Fails the k-th operation of a fault's kinds on a disk, and as many after it as the fault lasts."""

    def __init__(self, disk: Disk, fault: Fault, k: int) -> None:
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
