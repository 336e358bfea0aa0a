"""The crash file: records which instance's code is running, and outlives the process.

The loop writes the running instance into mapped memory when it enters its code and clears it when it leaves.
The kernel keeps the memory when the process dies. An instance recorded at an unclean end gets a strike, and
three strikes park it. An engine with its own database file keeps the crash file beside it. Workers that share a
database keep theirs in a folder of the machine, each in a file that it locks. A worker that starts later, or
takes over, inherits the files of dead workers. An unlocked file also proves that its worker is dead, so that
its lease can expire at once.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import mmap
import os
import stat
import tempfile
import time
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from perdure.errors import StoreFull, StoreUnusable

STRIKES: Final = 3
SUFFIX: Final = ".running"
_RECORD: Final = 1_024  # bytes for the id of the running instance
_FILE: Final = 64 * 1_024

log = logging.getLogger("perdure.watchdog")


def folder_of(place: str) -> Path:
    """The folder of the crash files of this machine and user for one hub; `place` names database and hub."""
    ours = Path(tempfile.gettempdir()) / f"perdure-{os.getuid()}"
    folder = ours / sha256(place.encode()).hexdigest()[:16]
    for each in (ours, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        _demand_own(each)
    return folder


def _demand_own(folder: Path) -> None:
    """Check the owner: in a shared temporary folder, another user may have created this one and could forge its
    files.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StoreUnusable(
            f"{folder} belongs to another user, who could use it to park instances here: remove it, or set "
            "TMPDIR to a folder of your own"
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def name_of(incarnation: int, worker: str) -> str:
    """The name of a worker's file."""
    return f"{incarnation}-{sha256(worker.encode()).hexdigest()[:16]}{SUFFIX}"


def shared_file(place: str, name: str) -> StrikeFile:
    """The file of one of several workers. Another worker that ends at the same time may remove the folder."""
    for _ in range(9):
        with suppress(FileNotFoundError):
            return StrikeFile(folder_of(place) / name)
    return StrikeFile(folder_of(place) / name)


class StrikeFile:
    """Records which instance's code is running, and how often the process died in it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._file, 0o600)
        _lock(self._file)
        _reserve(self._file, self.path)
        self._map = mmap.mmap(self._file, _FILE)
        self._noted = ""
        self.strikes: dict[str, int] = self._read()
        self._blame_last()

    def enter(self, instance_id: str) -> None:
        if instance_id != self._noted:  # the same instance again costs one byte
            self._noted = instance_id
            encoded = instance_id.encode()[: _RECORD - 3]
            self._map.seek(1)  # `write` costs half as much as a slice
            self._map.write(len(encoded).to_bytes(2, "big") + encoded)
        self._map[0] = 1

    def leave(self) -> None:
        self._map[0] = 0

    def forgive(self, instance_id: str) -> None:
        """Clear the strikes of an instance whose code has returned."""
        if self.strikes.pop(instance_id, None) is not None:
            self._write()

    def suspects(self) -> list[str]:
        """The instances in whose code the process died three times."""
        return [instance_id for instance_id, count in self.strikes.items() if count >= STRIKES]

    def rename(self, path: str | Path) -> None:
        """Rename the file. If it was deleted, the crash record is lost, which is harmless."""
        with suppress(OSError):
            self.path = self.path.rename(path)

    def inherit(self) -> list[str]:
        """Take over the files of dead processes beside this file. A process that still holds the lock of its
        file is alive.

        Returns the names of their files.
        """
        dead: list[str] = []
        for path in sorted(self.path.parent.glob(f"*{SUFFIX}")):
            if path == self.path or not _is_orphaned(path):
                continue
            left = StrikeFile(path)
            for instance_id, count in left.strikes.items():
                self.strikes[instance_id] = self.strikes.get(instance_id, 0) + count
            self._write()
            path.unlink(missing_ok=True)
            left.close()
            dead.append(path.name)
        return dead

    def close(self, *, for_good: bool = False) -> None:
        """Close the file at a clean end. `for_good` also deletes it, unless it has strikes, because no process
        will use this name again. The folder goes with its last file.
        """
        if for_good and not self.strikes:
            self.path.unlink(missing_ok=True)
            with suppress(OSError):  # other workers have files there
                self.path.parent.rmdir()
        self.leave()
        self._map.close()
        os.close(self._file)

    def _blame_last(self) -> None:
        if self._map[0]:
            length = int.from_bytes(self._map[1:3], "big")
            instance_id = self._map[3 : 3 + length].decode("utf-8", "replace")
            self.strikes[instance_id] = self.strikes.get(instance_id, 0) + 1
            log.warning(
                "the process ended while the code of instance %s was running (%d of %d times before it is parked)",
                instance_id,
                self.strikes[instance_id],
                STRIKES,
            )
            self.leave()
            self._write()

    def _read(self) -> dict[str, int]:
        text = self._map[_RECORD:].split(b"\0", 1)[0]
        try:
            found = json.loads(text or b"{}")
        except ValueError:
            return {}
        return {str(k): int(v) for k, v in found.items()} if isinstance(found, dict) else {}

    def _write(self) -> None:
        kept = dict(list(self.strikes.items())[-100:])
        text = json.dumps(kept).encode()[: _FILE - _RECORD - 1]
        self._map[_RECORD : _RECORD + len(text) + 1] = text + b"\0"


def _reserve(file: int, path: Path) -> None:
    """Reserve the file's space: on a full disk, a write into the map would kill the process."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, _FILE)
        os.ftruncate(file, _FILE)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"no space is left for {path}, where the worker records whose code is running. Free space on "
                "its disk, then try again"
            ) from error
        raise StoreUnusable(f"cannot write {path}: {error.strerror}") from error


def _lock(file: int) -> None:
    """Lock the file, which shows that this process is alive. A process that checks it holds the lock only
    briefly.
    """
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.001)
        else:
            return


def _is_orphaned(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


__all__ = ["STRIKES", "StrikeFile", "folder_of", "name_of", "shared_file"]
