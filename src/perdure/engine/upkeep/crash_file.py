"""Strikes: which instance's code was running when a process died, found in a small file that outlives it.

The loop notes in mapped memory whose code it enters and leaves; the kernel keeps that whatever becomes of the
process. Found noted after an unclean end, the instance gets a strike, and three park it. An engine on a file of its
own keeps the record beside it. Workers that share a database keep theirs in a folder of the machine's, each in a
file that it holds a lock on; whoever comes later, or takes over, inherits the files of the dead.
Such a file also proves that its worker is dead, so nobody has to wait for the end of that one's lease.
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
    """Where the workers of this machine and user keep theirs for one hub; `place` names database and hub."""
    ours = Path(tempfile.gettempdir()) / f"perdure-{os.getuid()}"
    folder = ours / sha256(place.encode()).hexdigest()[:16]
    for each in (ours, folder):
        each.mkdir(mode=0o700, exist_ok=True)
        _demand_own(each)
    return folder


def _demand_own(folder: Path) -> None:
    """Where everyone may make folders, another user may have made this one first, and could forge what is in it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StoreUnusable(
            f"{folder} belongs to another user, and whoever made it could have instances parked here: remove it, or "
            "set TMPDIR to a folder of your own"
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)


def name_of(incarnation: int, worker: str) -> str:
    """What a worker's file is called among those of the others on its machine."""
    return f"{incarnation}-{sha256(worker.encode()).hexdigest()[:16]}{SUFFIX}"


class StrikeFile:
    """Which instance's code is running, and how often the process died in it: memory that outlives us."""

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
        if instance_id != self._noted:  # feeding the same instance again costs one byte
            self._noted = instance_id
            encoded = instance_id.encode()[: _RECORD - 3]
            self._map[1 : 3 + len(encoded)] = len(encoded).to_bytes(2, "big") + encoded
        self._map[0] = 1

    def leave(self) -> None:
        self._map[0] = 0

    def forgive(self, instance_id: str) -> None:
        """The instance has run to its end of turn since."""
        if self.strikes.pop(instance_id, None) is not None:
            self._write()

    def suspects(self) -> list[str]:
        """Instances in whose code the process died three times."""
        return [instance_id for instance_id, count in self.strikes.items() if count >= STRIKES]

    def rename(self, path: str | Path) -> None:
        """Go by another name. Where the file has been tidied away, it only says no more that we live or died."""
        with suppress(OSError):
            self.path = self.path.rename(path)

    def inherit(self) -> list[str]:
        """Take over what dead processes have left beside this file: whoever holds a lock on its own still lives.

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
        """An end in order. `for_good`: nobody will look for a file of this name; with strikes in it it stays."""
        if for_good and not self.strikes:
            self.path.unlink(missing_ok=True)
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
    """Give the file its length, with space for it: a full disk would end the process at a write into the map."""
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, _FILE)
        os.ftruncate(file, _FILE)
    except OSError as error:
        os.close(file)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"no space is left for {path}, where a worker notes whose code it runs. Free space on its disk, then "
                "try again"
            ) from error
        raise StoreUnusable(f"cannot write {path}: {error.strerror}") from error


def _lock(file: int) -> None:
    """Tell those who look that we live. One who is looking just now is gone in a moment."""
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


__all__ = ["STRIKES", "StrikeFile", "folder_of", "name_of"]
