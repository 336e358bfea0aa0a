"""The locks against a second engine: one on the side file `<database>.server`, and one on the database itself.

SQLite's own locks cannot do this: an engine holds them only while it commits. The lock on the side file is
`flock` on a file descriptor that is opened only once, so the kernel drops it when the engine ends in any way.
The content is information for people and for the CLI (the engine's address) and counts only while the lock is
held. Readers test the lock by trying to share it, for an instant; an engine that starts in that instant finds a
lock whose file names no live process, and retries. The file stays after the engine ends: deleting it would let
two engines lock two files of the same name.

The side file depends on the database's name. The second lock is on the file itself, whatever its name: on a
byte that SQLite does not use, far beyond the 510 bytes at 1 GiB that it locks itself. It belongs to the open
descriptor (Linux's `F_OFD_SETLK`), not to the process, so it neither conflicts with SQLite's locks nor is
dropped with them. The reverse has to be avoided: closing *any* descriptor of the database drops the locks that
SQLite holds on it for this process. So the descriptor stays open for as long as the process has a connection to
that file, and the next engine uses it again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
import weakref
from contextlib import suppress
from typing import Any, Final

import apsw
import msgspec

from perdure.errors import StoreInUse, StoreUnusable
from perdure.store.sqlite import files

_SUFFIX: Final = ".server"
_TRIES: Final = 20
_PAUSE: Final = 0.01
_LIMIT: Final = 65_536
_BYTE: Final = 1 << 62  # of the database; the file need not be so long
_FLOCK: Final = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, pid
_UNSUPPORTED: Final = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class ServerInfo(msgspec.Struct, frozen=True):
    """The engine that has the database open. `address` and `token` are empty while it serves no HTTP."""

    pid: int
    hub: str
    started_at: int
    address: str = ""
    token: str = ""


_held: Final[weakref.WeakSet[ServerFile | FileLock]] = weakref.WeakSet()


def _forget_all() -> None:
    """Forget all locks in a forked child."""
    global _closing
    _closing = threading.RLock()  # another thread of the parent may have had it
    for held in list(_held):
        held.forget()
    while _lingering:
        os.close(_lingering.popitem()[1])


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
                f"cannot create {path}, which locks out a second engine: {error.strerror}. The database's "
                "directory must exist and be writable"
            ) from error
        try:
            _lock(descriptor, path, db_path)
            os.fchmod(descriptor, 0o600)
            started_at = time.time_ns() // 1000  # for people; nothing depends on it
            held = cls(path, descriptor, ServerInfo(os.getpid(), hub, started_at))
            with files.writing(path):
                held._write()
        except BaseException:
            os.close(descriptor)
            raise
        return held

    def publish(self, address: str, token: str) -> None:
        """Publish the address of this engine for the CLI."""
        self.info = msgspec.structs.replace(self.info, address=address, token=token)
        self._write()

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self.forget()

    def forget(self) -> None:
        """Close the descriptor. A forked child must do this: its copy would keep the lock after the engine has
        ended.
        """
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _write(self) -> None:
        content = msgspec.json.encode(self.info)
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))


class FileLock:
    """The lock on the database itself, for all its names."""

    def __init__(self, identity: _Identity, descriptor: int) -> None:
        self._identity = identity
        self._descriptor = descriptor
        _held.add(self)

    @classmethod
    def acquire(cls, db_path: str) -> FileLock | None:
        """Take the lock on an existing file, or raise StoreInUse; None if the system has no such locks."""
        if not hasattr(fcntl, "F_OFD_SETLK"):
            return None
        with _closing:
            descriptor, identity = _descriptor_of(db_path)
            try:
                _set_byte(descriptor, fcntl.F_WRLCK)
            except OSError as error:
                _close_when_safe(identity, descriptor)
                if error.errno in _UNSUPPORTED:
                    return None
                raise StoreInUse(
                    f"another engine serves the file {db_path} under another name (a hard link, or a mount of "
                    "it): only one engine can serve a file. `perdure workers` with that name shows which "
                    "one; give this engine another file"
                ) from error
        return cls(identity, descriptor)

    def release(self) -> None:
        """Release the lock. The engine's own connections are already closed."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with _closing:
                _set_byte(descriptor, fcntl.F_UNLCK)
                _close_when_safe(self._identity, descriptor)

    def forget(self) -> None:
        """Close the descriptor in a forked child, which has none of its parent's locks."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_Identity = tuple[int, int]
_closing = threading.RLock()
_lingering: Final[dict[_Identity, int]] = {}
"""Descriptors that hold no lock and cannot be closed yet, because this process reads the file through SQLite."""


def _descriptor_of(db_path: str) -> tuple[int, _Identity]:
    found = os.stat(db_path)
    identity = found.st_dev, found.st_ino
    if identity in _lingering:
        return _lingering.pop(identity), identity
    descriptor = os.open(db_path, os.O_RDWR | os.O_CLOEXEC)
    opened = os.fstat(descriptor)
    return descriptor, (opened.st_dev, opened.st_ino)


def _set_byte(descriptor: int, kind: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, _BYTE, 1, 0))


def _close_when_safe(identity: _Identity, descriptor: int) -> None:
    """Close it, and earlier ones, unless a connection of this process would lose its locks."""
    _lingering[identity] = descriptor
    try:
        connected = {_identity_of(connection) for connection in apsw.connections()}
    except apsw.ThreadingViolationError:  # one is busy in another thread, and its file is unknown
        return
    for known in [known for known in _lingering if known not in connected]:
        os.close(_lingering.pop(known))


def _identity_of(connection: apsw.Connection) -> _Identity | None:
    try:
        found = os.stat(connection.db_filename("main"))
    except (apsw.ConnectionClosedError, OSError, ValueError):
        return None  # closed, in memory, or of a deleted file: no lock can be lost
    return found.st_dev, found.st_ino


def connect(path: str, **options: Any) -> apsw.Connection:
    """A SQLite connection; no descriptor of this module is closed during the call."""
    with _closing:
        return apsw.Connection(path, **options)


def server_path(db_path: str) -> str:
    return os.path.realpath(db_path) + _SUFFIX


def read_server_file(db_path: str) -> ServerInfo | None:
    """The engine that serves this database now, or None."""
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
    raise StoreInUse(f"another process has locked {path} without naming itself: find it with `fuser {path}`")


def _in_use(db_path: str, holder: ServerInfo) -> str:
    if holder.pid == os.getpid():
        return f"this process already has {db_path} open. Only one engine can serve a file: use that one"
    where = f" and serves it at {holder.address}" if holder.address else ""
    where_else = "" if holder.address else "  (if a web application serves it, pass --url ADDRESS)"
    return (
        f"process {holder.pid} has {db_path} open{where}. Only one engine can serve a file: use that "
        f"one{where_else}, stop it (kill {holder.pid}), or give this engine another file"
    )


def _holder(descriptor: int) -> ServerInfo | None:
    """The holder of a lock, from the content of its file, if that process is alive."""
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
