"""Connections for readers: a few, shared by all threads, created on demand.

A query uses one for one round trip, so a few serve any number of threads. A connection found broken on its next
use (the server was restarted) is replaced at once: a repeated read is harmless.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import psycopg

from perdure.errors import StoreError
from perdure.store.postgres.connection import READING, connect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.store.postgres.address import Address
    from perdure.store.postgres.pipeline import Statement, StatementResult, Wire

MOST: Final = 4
_PATIENCE: Final = 30.0


class Readers:
    """For any thread."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._free = threading.BoundedSemaphore(MOST)
        self._lock = threading.Lock()
        self._idle: list[Wire] = []
        self._keeps = True
        self._round = 0  # increases when all open connections are to be closed after use

    def ask(self, calls: Sequence[Statement], hub_no: int) -> list[StatementResult]:
        """Run all in one transaction. Raises psycopg.Error, or StoreError without a free connection."""
        if not self._free.acquire(timeout=_PATIENCE):
            raise StoreError(
                f"{self._address.shown}: all {MOST} connections for reading were busy for {_PATIENCE:.0f} s"
            )
        try:
            return self._ask(calls, hub_no)
        finally:
            self._free.release()

    def _ask(self, calls: Sequence[Statement], hub_no: int) -> list[StatementResult]:
        while True:
            round_ = self._round
            wire = self._taken()
            used_before = wire is not None
            wire = wire or connect(self._address, READING)
            wire.hub_no = hub_no
            try:
                answers = wire.ask(calls)
            except psycopg.Error:
                if not wire.is_broken:
                    self._give_back(wire, round_)
                    raise
                wire.close()
                if not used_before:
                    raise
                continue
            except BaseException:
                wire.close()
                raise
            self._give_back(wire, round_)
            return answers

    def _taken(self) -> Wire | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give_back(self, wire: Wire, round_: int) -> None:
        with self._lock:
            if round_ == self._round and self._keeps:
                self._idle.append(wire)
                return
        wire.close()

    def open(self) -> None:
        """Keep connections after their use, for the next query."""
        self._keeps = True

    def close(self, *, for_good: bool = False) -> None:
        """Close idle connections now, and others after their use; `for_good`, also those of later queries."""
        with self._lock:
            self._keeps = self._keeps and not for_good
            self._round += 1
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()


__all__ = ["MOST", "Readers"]
