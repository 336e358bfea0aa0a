"""Backups: a consistent copy of the file, made while an engine of this or another process writes.

SQLite's own backup copies pages; here it does so inside one reading transaction, so that it sees the file at
one moment, and no commit makes it restart. Readers do not block the writer; only the log cannot be emptied in
the meantime, and grows by the commits. The copy is made beside the target, synced, checked, and only then
renamed, so a file with that name is always a checked backup. Only its owner may read it, from its first byte,
whatever the mode of the original. Everything goes through apsw, because in an engine's process nothing else may
open the hub's file (see `open_guard.py`).
"""

from __future__ import annotations

import errno
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import apsw

from perdure.errors import StoreUnusable
from perdure.store.sqlite.connection import check_place, open_reader
from perdure.store.sqlite.errors import translating
from perdure.store.sqlite.files import create

if TYPE_CHECKING:
    from collections.abc import Callable

PAGES: Final = 1_024  # pages between two reports: four megabytes
_SIDES: Final = ("-wal", "-shm", "-journal")


def back_up(
    source: str,
    target: str,
    check: Callable[[str], None] = lambda file: None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> int:
    """Copy the database at `source` to a new file; returns its size in bytes.

    Parameters:
        source, target: paths. The target must not exist.
        check: called with the copy before the rename; an exception ends the backup.
        progress: called with the number of copied pages and of all pages.

    Raises StoreUnusable, StoreFull, StoreError; then no file is left behind.
    """
    check_place(target)
    if os.path.lexists(target):
        raise StoreUnusable(
            f"{target} already exists: a backup does not overwrite files; choose another name"
        )
    unfinished = f"{target}.unfinished-{os.getpid()}"
    try:
        with translating(target):
            create(unfinished)
            _copy(source, unfinished, progress)
        check(unfinished)
        _sync(unfinished)
        size = os.path.getsize(unfinished)
        _give_name(unfinished, target)
    except OSError as error:
        raise StoreUnusable(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        for side in ("", *_SIDES):
            with suppress(FileNotFoundError):
                os.unlink(unfinished + side)
    return size


def _copy(source: str, target: str, progress: Callable[[int, int], object]) -> None:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    with closing(open_reader(source)) as reader, closing(apsw.Connection(target, flags=flags)) as writer:
        writer.pragma("synchronous", "off")  # it is synced as a whole, at the end
        reader.execute("begin")
        reader.execute("select count(*) from sqlite_schema").fetchall()  # the moment that is copied
        with writer.backup("main", reader, "main") as backup:
            while not backup.done:
                backup.step(PAGES)
                progress(backup.page_count - backup.remaining, backup.page_count)
        reader.execute("commit")
        writer.pragma("journal_mode", "delete")  # one file, readable also where nothing can be written
        found = writer.pragma("quick_check")
        if found != "ok":
            raise StoreUnusable(f"the copy of {source} is damaged, so the file itself may be: {found}")


def _give_name(unfinished: str, target: str) -> None:
    """Rename the copy without replacing a file that appeared in the meantime."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        if os.path.lexists(target):  # a file system without links: as good as it can be done there
            raise FileExistsError(errno.EEXIST, "it already exists", target) from error
        os.rename(unfinished, target)
    _sync(os.path.dirname(os.path.abspath(target)))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
