"""The write-ahead log (`<database>-wal`): kept long enough to be overwritten, and short enough to be read.

A commit that appends to the log makes the file longer, and the file system must write that down too before the
commit is durable. A commit that overwrites existing bytes need not: 0.22 against 0.38 ms for a small commit on
ext4. So the log begins with eight megabytes of zeros, which SQLite takes for the end of the log, and is
restarted, never truncated; only the part beyond 64 MiB is freed (`journal_size_limit`). On an almost full disk
the zeros are omitted: they would take the space that the start itself needs. Checkpoints run on a thread and a
connection of their own. Passive ones block no other connection, but under load the loop is always a few frames
ahead, and the log would grow for ever. So passive ones do the bulk until little is left, and a restarting one,
which makes the loop wait, does the rest: a few milliseconds.

How long the log gets does not depend on how long engines live. Each start checkpoints the log before anything
is added, so a process that is killed again and again leaves the log of one life: at most the commits of the two
seconds between two checkpoints, plus the 6 MB that are not worth one. Only a reader in a long transaction (a
backup) lets it grow further, by the commits in that time.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

import apsw

LOG_KEPT: Final = 64 * 1024 * 1024
_ZEROS: Final = 8 * 1024 * 1024
_SPARE: Final = (
    4 * _ZEROS
)  # a disk with less has better uses for its last megabytes than zeros that save time
_PIECE: Final = 64 * 1024  # SQLite writes less than 128 KiB at a time
_BACKLOG: Final = 1_000  # frames not in the database yet
_RESTART_ABOVE: Final = 1_500  # frames in the log; eight megabytes are 2,000
_PASSES: Final = 4
_HEADER: Final = 32
_FRAME_HEADER: Final = 24


def length(connection: apsw.Connection) -> int:
    """The number of bytes of the log with commits; the rest is left over from earlier rounds."""
    frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    return _HEADER + frames * (_FRAME_HEADER + int(connection.pragma("page_size"))) if frames > 0 else 0


def prolong(path: str, used: int) -> None:
    """Write the `used` bytes of the log again, and fill it up with zeros. The caller must hold the write lock.

    The rewrite is necessary because a process may have died, or continued, after a failed sync: Linux then
    considers the bytes written, returns them to readers, and never syncs them again. New commits after a gap
    that exists only on the disk would all be lost in a power failure. Rewritten and synced, the bytes are on
    disk or the call fails. It uses SQLite's own file layer, which gives the file SQLite's owner and
    permissions.
    """
    flags = [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE, 0]
    log = apsw.VFSFile("", path + "-wal", flags)
    try:
        size = log.xFileSize()
        used = min(used, size)
        for offset in range(0, used, _PIECE):
            log.xWrite(log.xRead(min(_PIECE, used - offset), offset), offset)
        if used:
            log.xSync(apsw.SQLITE_SYNC_NORMAL)
        if room(path) >= _SPARE:
            with suppress(apsw.FullError):
                for offset in range(size, _ZEROS, _PIECE):
                    log.xWrite(bytes(min(_PIECE, _ZEROS - offset)), offset)
    finally:
        log.xClose()


def room(path: str) -> int:
    """How many bytes are left on the disk of a file."""
    if not hasattr(os, "statvfs"):
        return sys.maxsize
    disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
    return disk.f_bavail * disk.f_frsize


def tidy(connection: apsw.Connection) -> None:
    """Checkpoint the log if it is worth it; leave it for the next time if the database is busy."""
    with suppress(apsw.BusyError, apsw.LockedError):
        frames, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        for _ in range(_PASSES):
            if frames - moved <= _BACKLOG:
                break
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            frames, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if frames > _RESTART_ABOVE:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
