"""SQLite's file layer on a `Disk`: everything goes to real files, and the disk is told first.

While a disk is mounted, SQLite's default file layer is this one, so the store runs as it is. The real files lie in
a folder in memory; they always hold what a process would read back, never what a cut leaves.
apsw raises an exception of this layer to the caller of SQLite even where SQLite would have gone on in spite
of the error. So a busy lock is said to be busy where the unix layer says EBADF, and errors injected here reach
the store at least as often as a real disk's would.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import apsw

from powercuts.content import is_zeros
from powercuts.disk import Disk
from powercuts.operations import Open, Read, Sync, SyncNames, Truncate, Write

NAME: Final = "forgetful"
_PLAIN: Final = apsw.vfs_names()[0]
_SYNCS_NAMES: Final = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL
_LONG: Final = 32_768


class DiskFile(apsw.VFSFile):
    """An open file."""

    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._disk = disk
        disk.do(Open(os.path.basename(path)))
        if flags[0] & apsw.SQLITE_OPEN_CREATE or os.path.exists(path):
            self._file = disk.file(os.path.basename(path))
        creates = flags[0] & apsw.SQLITE_OPEN_CREATE
        self._syncs_names = bool(creates and flags[0] & _SYNCS_NAMES)
        super().__init__(_PLAIN, name, flags)

    def excepthook(self, *_: Any) -> bool:
        """Ignore errors that have no caller."""
        return True

    def xWrite(self, data: Any, offset: int) -> None:
        data = bytes(data)
        self._disk.do(Write(self._file, offset, data))
        if len(data) > _LONG and is_zeros(data) and offset >= self.xFileSize():
            super().xTruncate(offset + len(data))  # a hole: the same to read, and quicker
        else:
            super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._disk.do(Truncate(self._file, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        self._disk.do(Sync(self._file))
        if self._syncs_names:
            self._disk.do(SyncNames())
            self._syncs_names = False

    def xLock(self, level: int) -> None:
        try:
            super().xLock(level)
        except apsw.IOError as error:
            raise apsw.BusyError(str(error)) from None


class FailingFile(DiskFile):
    """An open file whose reads are told to the disk too. Nothing else needs to know of them."""

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.do(Read(self._file))
        return super().xRead(amount, offset)


class DiskLayer(apsw.VFS):
    """The file layer: opens files of the mounted disk."""

    def __init__(self) -> None:
        self.disk: Disk | None = None
        super().__init__(NAME, _PLAIN, makedefault=False)

    def excepthook(self, *_: Any) -> bool:
        """Ignore errors that have no caller."""
        return True

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        if name is None or self.disk is None:
            return apsw.VFSFile(_PLAIN, name, flags)
        kind = DiskFile if self.disk.before is None else FailingFile
        return kind(self.disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        disk, name = self.disk, os.path.basename(filename)
        if disk is not None and disk.has(name):
            disk.unlink(name)
        super().xDelete(filename, False)
        if syncdir and disk is not None:
            disk.do(SyncNames())


_layers: Final[list[DiskLayer]] = []


@contextmanager
def mounted(disk: Disk) -> Iterator[Disk]:
    """Have everything that SQLite opens by default lie on this disk. Not for two threads at once."""
    if not _layers:
        _layers.append(DiskLayer())
    layer = _layers[0]
    before, layer.disk = layer.disk, disk
    apsw.set_default_vfs(NAME)
    try:
        yield disk
    finally:
        layer.disk = before
        if before is None:
            apsw.set_default_vfs(_PLAIN)
