"""The supervisor's thread that renews and ends the leases of its workers.

A worker renews its own lease from a thread. Code that holds the interpreter's lock blocks that thread, although the
worker is busy with its work. So the supervisor, which is another process, renews the lease too. It does not renew the
lease of a stopped or dead worker, so that other workers take over. It ends the lease of a dead worker immediately.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from perdure.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.store.port import Overseer

_NOT_AT_WORK: Final = frozenset("TtZX")
log = logging.getLogger("perdure.cli")


def is_at_work(pid: int) -> bool:
    """Whether a process exists and is neither stopped nor dead. Without /proc, every process counts as running."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()
    except OSError:
        return False
    return told.rpartition(")")[2].split()[0] not in _NOT_AT_WORK


class LeaseKeeper:
    """A thread that renews the leases of running workers and ends the leases of dead ones."""

    def __init__(self, overseer: Overseer, at_work: Callable[[], list[str]], lease: float) -> None:
        self.lease = lease  # seconds; replaced by the value in the workers' reports
        self._overseer = overseer
        self._at_work = at_work
        self._dead: set[str] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="perdure-oversight", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ended(self, name: str) -> None:
        """Record that this worker is dead, so that others take over its partitions now."""
        with self._lock:
            self._dead.add(name)
        self._wake.set()

    def stop(self) -> None:
        """End the leases of the last dead workers, and stop."""
        self._stopping = True
        self._wake.set()
        self._thread.join(10)

    def _run(self) -> None:
        try:
            is_last = False
            while not is_last:
                self._wake.wait(self.lease / 4)
                self._wake.clear()
                is_last = self._stopping
                self.turn()
        finally:
            self._overseer.close()

    def turn(self) -> None:
        """End and renew leases once. After an error, the next turn tries again."""
        with self._lock:
            dead, self._dead = self._dead, set()
        lease = round(self.lease * 1e6)
        try:
            self._overseer.expire(sorted(dead), lease)
            self._overseer.prolong(self._at_work(), lease)
        except StoreError as error:
            log.warning("the supervisor could not renew the workers' leases, and tries again: %s", error)
            with self._lock:
                self._dead |= dead


__all__ = ["LeaseKeeper", "is_at_work"]
