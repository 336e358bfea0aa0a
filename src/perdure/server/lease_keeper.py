"""Leases of supervised workers, prolonged and ended by their supervisor.

A worker prolongs its own lease, from a thread. What holds the interpreter's lock holds that thread, too, although
the process is in the middle of its work; so the supervisor, another process, does it as well. It does not for one
that has been stopped, or has died: there the work is to go to others, and for a dead one at once.
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
    """Whether a process is there, and neither stopped nor dead. Without a /proc, nobody is thought stopped."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()
    except OSError:
        return False
    return told.rpartition(")")[2].split()[0] not in _NOT_AT_WORK


class LeaseKeeper:
    """A thread that prolongs the leases of those who are at work, and ends those of the dead."""

    def __init__(self, overseer: Overseer, at_work: Callable[[], list[str]], lease: float) -> None:
        self.lease = lease  # seconds; what the workers say, once they do
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
        """This worker is dead: what it has is to be taken over now."""
        with self._lock:
            self._dead.add(name)
        self._wake.set()

    def stop(self) -> None:
        """End the leases of those who died last, and stop."""
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
        """Once for all. What could not be done now is done the next time."""
        with self._lock:
            dead, self._dead = self._dead, set()
        lease = round(self.lease * 1e6)
        try:
            self._overseer.expire(sorted(dead), lease)
            self._overseer.prolong(self._at_work(), lease)
        except StoreError as error:
            log.warning("leases could not be prolonged by the supervisor: %s", error)
            with self._lock:
                self._dead |= dead


__all__ = ["LeaseKeeper", "is_at_work"]
