"""Backends: the world's port to the tested store, and its three implementations."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from perdure.store.memory import MemoryStore
from perdure.store.memory_cluster import Place
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore

PARTITIONS = 32  # few, so that each is taken and lost often
HUB = "simulated"


class StoreBackend(Protocol):
    """A store, and the effect of a process crash on it."""

    @property
    def store(self) -> Store: ...

    def crash(self) -> None:
        """The process is gone; committed state stays."""

    def dispose(self) -> None: ...


class MemoryBackend:
    """The readable specification of the port."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore(HUB)

    def crash(self) -> None:
        self.store.close()

    def dispose(self) -> None:
        self.store.close()


class SharedBackend:
    """One hub in memory for several workers, with the world's time for the database's."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.store = MemoryStore(HUB, place=Place(clock, partitions=PARTITIONS))
        self.store.beside()  # from here on its workers register

    def crash(self) -> None:
        """The database outlives its workers."""

    def dispose(self) -> None:
        self.store.close()


class SqliteBackend:
    """The real SQLite store on a file in memory. Each starts as a copy of one that is created once."""

    def __init__(self) -> None:
        folder = _folder()
        blank = folder / "blank.db"
        if not blank.exists():
            made = SqliteStore(str(blank), HUB)
            made.open()
            made.close()
        self._path = folder / f"hub-{os.getpid()}.db"
        self._remove()
        shutil.copyfile(blank, self._path)
        self._path.chmod(0o600)  # or each life would narrow it, with a line in the log
        self.store: Store = SqliteStore(str(self._path), HUB)

    def crash(self) -> None:
        self.store.close()

    def dispose(self) -> None:
        self.store.close()
        self._remove()

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm", ".server"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


_made: list[tuple[int, tempfile.TemporaryDirectory[str]]] = []


def _folder() -> Path:
    """A folder of this process, in memory where the system has that, gone when the process is."""
    if not _made or _made[-1][0] != os.getpid():
        shm = "/dev/shm"
        where = shm if os.path.isdir(shm) and os.access(shm, os.W_OK) else None
        _made.append((os.getpid(), tempfile.TemporaryDirectory(prefix="perdure-sim-", dir=where)))
    return Path(_made[-1][1].name)


def backend_of(name: str) -> StoreBackend:
    return SqliteBackend() if name == "sqlite" else MemoryBackend()
