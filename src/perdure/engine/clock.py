"""The clocks of the engine. No other module reads the time."""

from __future__ import annotations

import os
import time
from typing import Protocol


class Clock(Protocol):
    """The hub's time. Tests replace it with a virtual clock."""

    def now(self) -> int:
        """Microseconds since 1970, UTC. On SQLite this is the machine's clock."""

    def monotonic(self) -> float:
        """Seconds that never decrease, for measuring."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()


SET_BACK = 1_000_000  # microseconds of a backward jump that count as a database clock set back


class SharedClock:
    """The time of the database that several workers share, extrapolated from the last answer by the monotonic
    clock.

    Small backward jumps, such as the time of an answer, are ignored. If the database's clock is set back
    further, this clock follows: to stop until it catches up would delay every timer.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._at = 0.0
        self._last = 0

    def heard(self, now: int, at: float) -> None:
        """Record the database's time (microseconds), which was read no later than `at` (monotonic seconds)."""
        self._heard, self._at = now, at
        if now < self._last - SET_BACK:
            self._last = now

    def now(self) -> int:
        if not self._heard:
            return time.time_ns() // 1_000
        found = self._heard + int((self.monotonic() - self._at) * 1e6)
        self._last = max(self._last, found)
        return self._last

    def monotonic(self) -> float:
        return time.monotonic()


def new_id() -> str:
    """A fresh instance id: 32 hexadecimal digits, 12 of time and 20 random (80 bits).

    Ids that grow with time keep their index compact, because new rows are adjacent.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def new_salt() -> bytes:
    """The secret of one instance's digests."""
    return os.urandom(16)
