"""The log (`<database>-wal`): kept long enough to be overwritten, and short enough to be read.

A commit that appends to the log makes the file longer, and the file system must write that down too before the
commit is durable. One that overwrites what is there already need not: 0.22 against 0.38 ms for a small commit
on ext4. So the log begins with eight megabytes of zeros, which SQLite takes for the end of the log, and is
restarted, never cut off; only what is beyond 64 MiB is given back (`journal_size_limit`). On a disk that has little
room left the zeros are left out: they would take the room that the start itself needs.
Checkpoints run on a thread and a connection of their own. The passive kind disturbs nobody, but under load the
loop is always a few frames ahead, and the log would grow for ever. So passive ones do the bulk until little is
left, and a restarting one, which makes the loop wait, does the rest: a few milliseconds.

How long the log gets does not depend on how long engines live. Each start moves what it finds into the database
before anything is added, so a process that is killed again and again leaves what one life wrote and no more: at most
what is written in the two seconds between two checkpoints, beside the 6 MB that are not worth one. Only a reader that
stays in one transaction for long (a backup) lets it grow further, by what is written meanwhile.
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
_RESTART_ABOVE: Final = 1_500  # frames in the log; eight megabytes hold 2,000
_PASSES: Final = 4
_HEADER: Final = 32
_FRAME_HEADER: Final = 24


def length(connection: apsw.Connection) -> int:
    """How many bytes of the log hold commits; what is behind them is left of earlier rounds."""
    frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    return _HEADER + frames * (_FRAME_HEADER + int(connection.pragma("page_size"))) if frames > 0 else 0


def prolong(path: str, used: int) -> None:
    """Write the `used` bytes of the log again, and fill it up with zeros. Only for one who holds the write lock.

    Again, because a process may have died, or lived on, after a sync that failed: Linux then takes the bytes
    for written, shows them to whoever reads, and syncs them never more. New commits behind a gap that only
    the disk knows of would all be gone after a power cut. Written again and synced, they are there or it fails.
    Through SQLite's own file layer, which gives the file the owner and the permissions that SQLite would.
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
    """Move the log into the database if it is worth it; leave it for the next time if others are busy."""
    with suppress(apsw.BusyError, apsw.LockedError):
        frames, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        for _ in range(_PASSES):
            if frames - moved <= _BACKLOG:
                break
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            frames, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        if frames > _RESTART_ABOVE:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
