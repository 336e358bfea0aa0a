"""The side file `<database>.server`: who serves the database, and a lock that keeps a second engine out.

SQLite's own locks cannot do this: an engine holds them only while it commits. The lock is `flock` on a file
descriptor that is opened once and never again, so the kernel drops it when the engine is gone, however it
went. The content is advice for people and for the CLI (whom to talk to) and is believed only while the
lock is held. Readers test the lock by trying to share it, for an instant; an engine that starts in that
instant finds a lock whose file names nobody alive, and tries again.
The file stays when the engine goes: deleting it would let two engines lock two files of the same name.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from contextlib import suppress
from typing import Final

import msgspec

from perdure.errors import StoreInUse, StoreUnusable

_SUFFIX: Final = ".server"
_TRIES: Final = 20
_PAUSE: Final = 0.01
_LIMIT: Final = 65_536


class ServerInfo(msgspec.Struct, frozen=True):
    """The engine that has the database open. `address` and `token` are empty while it serves no HTTP."""

    pid: int
    hub: str
    started_at: int
    address: str = ""
    token: str = ""


_held: Final[weakref.WeakSet[ServerFile]] = weakref.WeakSet()


def _forget_all() -> None:
    for held in list(_held):
        held.forget()


os.register_at_fork(after_in_child=_forget_all)


class ServerFile:
    """The side file while this process holds its lock."""

    def __init__(self, path: str, descriptor: int, info: ServerInfo) -> None:
        self.path = path
        self.info = info
        self._descriptor = descriptor
        _held.add(self)

    @classmethod
    def acquire(cls, db_path: str, hub: str = "") -> ServerFile:
        """Take the lock or raise StoreInUse, which names the holder."""
        path = server_path(db_path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnusable(
                f"cannot create {path}, which keeps a second engine out: {error.strerror}. "
                "The database's directory must exist and be writable"
            ) from error
        try:
            _lock(descriptor, path, db_path)
            os.fchmod(descriptor, 0o600)
            started_at = time.time_ns() // 1000  # for people to read; nothing depends on it
            held = cls(path, descriptor, ServerInfo(os.getpid(), hub, started_at))
            held._write()
        except BaseException:
            os.close(descriptor)
            raise
        return held

    def publish(self, address: str, token: str) -> None:
        """Say where the CLI reaches this engine."""
        self.info = msgspec.structs.replace(self.info, address=address, token=token)
        self._write()

    def release(self) -> None:
        """Give the lock up."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self.forget()

    def forget(self) -> None:
        """Close the descriptor. A forked child must: its copy would keep the lock when the engine is gone."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self) -> None:
        content = msgspec.json.encode(self.info)
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))


def server_path(db_path: str) -> str:
    return os.path.realpath(db_path) + _SUFFIX


def read_server_file(db_path: str) -> ServerInfo | None:
    """Who serves this database now; None when nobody does."""
    try:
        descriptor = os.open(server_path(db_path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str, db_path: str) -> None:
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if holder := _holder(descriptor):
                raise StoreInUse(_in_use(db_path, holder)) from None
            time.sleep(_PAUSE)
        else:
            return
    raise StoreInUse(f"another process holds {path} locked without saying who it is: see `fuser {path}`")


def _in_use(db_path: str, holder: ServerInfo) -> str:
    if holder.pid == os.getpid():
        return (
            f"this very process has {db_path} open already. One engine at a time serves a file: use that one"
        )
    where = f" and serves it at {holder.address}" if holder.address else ""
    return (
        f"process {holder.pid} has {db_path} open{where}. One engine at a time serves a file: "
        f"talk to that one, stop it (kill {holder.pid}), or give this one another file"
    )


def _holder(descriptor: int) -> ServerInfo | None:
    """What a file says whose lock another holds, if that other one lives."""
    with suppress(msgspec.MsgspecError, OSError):
        info = msgspec.json.decode(os.pread(descriptor, _LIMIT, 0), type=ServerInfo)
        return info if _lives(info.pid) else None
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
