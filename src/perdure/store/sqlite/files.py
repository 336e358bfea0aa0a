"""The database's files: their permissions and names.

A database holds payloads and the secrets that links are signed with, so only its user may access them: they are
created with mode 0600 from their first byte, whatever the umask, and narrowed on opening if they are wider.
SQLite gives the log and the shared memory the mode of the database.

The log lies beside the *name* by which the database was opened. A file with a second name, because of a hard
link or because it was mounted alone, therefore has two places for a log, and each name hides the log of the
other: acknowledged commits are invisible under one name, and later overwrite those under the other. So such a
file is opened only if certainly no log lies beside another of its names. Symbolic links are not second names:
SQLite follows them.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from perdure.errors import StoreFull, StoreUnusable

OWNERS_ONLY: Final = 0o600
LOGS: Final = ("-wal", "-journal")
SIDES: Final = ("", *LOGS, "-shm", ".server", ".running")
_MOUNTS: Final = "/proc/self/mountinfo"

log = logging.getLogger("perdure.store")


# ------------------------------------------------------------------------------------------- permissions


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Raise StoreFull or StoreUnusable for system errors of a file beside the database."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"no space is left for {path}; nothing was changed. Free space on its disk, then try again"
            ) from error
        raise StoreUnusable(f"cannot write {path}: {error.strerror}") from error


def size_of(path: str) -> int:
    """The size of the database and its logs, in bytes."""
    found = 0
    for side in ("", *LOGS):
        with suppress(OSError):
            found += os.stat(path + side).st_size
    return found


def create(path: str) -> None:
    """Create the file, empty, if it does not exist. Raises StoreUnusable, StoreFull."""
    try:
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, OWNERS_ONLY)
    except FileExistsError:
        return
    try:
        os.fchmod(descriptor, OWNERS_ONLY)  # a umask may have removed more than others' permissions
    finally:
        os.close(descriptor)


def readable_by_others(path: str) -> dict[str, int]:
    """The files of a database that other users may read or write, with their modes."""
    found: dict[str, int] = {}
    for side in SIDES:
        with suppress(OSError):
            mode = stat.S_IMODE(os.stat(path + side).st_mode)
            if mode & 0o077:
                found[path + side] = mode
    return found


def keep_from_others(path: str, *, refuse: bool = False) -> None:
    """Remove all permissions but the owner's from the files of a database; `refuse` raises instead.

    Raises StoreUnusable, also if the files belong to another user.
    """
    wide = readable_by_others(path)
    if not wide:
        return
    if refuse:
        raise StoreUnusable(
            f"{told(wide)}. It is not opened because of file_access=refuse: chmod 600 {' '.join(wide)}"
        )
    for file in wide:
        try:
            os.chmod(file, OWNERS_ONLY)
        except FileNotFoundError:
            pass  # another process has closed the database in the meantime
        except OSError as error:
            raise StoreUnusable(
                f"{told(wide)}, and this user cannot change that ({error.strerror}): have the owner of the file "
                f"run chmod 600 {' '.join(wide)}, and serve the database as that user"
            ) from error
    log.warning("%s: changed to 0600, readable by its owner only", told(wide))


def told(wide: dict[str, int]) -> str:
    """The files found by `readable_by_others`, as the beginning of a sentence."""
    files = ", ".join(f"{file} (mode {mode:04o})" for file, mode in wide.items())
    return f"other users of this machine may read or write {files}"


# ------------------------------------------------------------------------------------------------- names


def demand_one_place(path: str) -> None:
    """Raise StoreUnusable if the log of a database is not beside the file, or may be beside another name."""
    demand_own_folder(path)
    path = os.path.realpath(path)
    with suppress(FileNotFoundError):
        found = os.stat(path)
        if found.st_nlink > 1:
            _demand_no_log_elsewhere(path, found)


def demand_own_folder(path: str) -> None:
    """Raise StoreUnusable if the file is mounted without the folder of its log."""
    path = os.path.realpath(path)
    if path in _mounted():
        raise StoreUnusable(
            f"{path} is mounted without its folder. Its log, {path}-wal, would be outside the mount: lost "
            "with this container, and invisible to other processes that serve the file. Mount the folder of "
            "the database instead"
        )


def _demand_no_log_elsewhere(path: str, found: os.stat_result) -> None:
    others = [other for other in _names_beside(path, found) if other != path]
    if len(others) + 1 < found.st_nlink:
        raise StoreUnusable(
            f"{path} has {found.st_nlink} names (hard links), and not all of them are in its folder. A "
            "database must have one name, because its log is stored beside it: remove the other names (find "
            f"/ -xdev -samefile {path}), or copy it with `perdure backup`"
        )
    for other in others:
        for side in LOGS:
            with suppress(FileNotFoundError):
                if os.path.getsize(other + side):
                    raise StoreUnusable(
                        f"{path} is the same file as {other} (a hard link), and {other}{side} contains "
                        f"commits that are not visible under this name: serve {other}, and remove the name "
                        f"{path}"
                    )


def _names_beside(path: str, found: os.stat_result) -> list[str]:
    """The names of this file that are in its folder."""
    with os.scandir(os.path.dirname(path)) as entries:
        near = [entry.path for entry in entries if entry.inode() == found.st_ino]
    return [name for name in near if os.path.samestat(os.lstat(name), found)]


def _mounted() -> frozenset[str]:
    """The mount points; none if the system does not report them."""
    try:
        lines = Path(_MOUNTS).read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return frozenset()
    return frozenset(_unescaped(line.split(" ", 5)[4]) for line in lines)


def _unescaped(name: str) -> str:
    for sign in (" ", "\t", "\n", "\\"):
        name = name.replace(f"\\{ord(sign):03o}", sign)
    return name
