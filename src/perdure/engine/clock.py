"""The only place that asks what time it is."""

from __future__ import annotations

import os
import secrets
import time
from typing import Protocol


class Clock(Protocol):
    """The hub's time. Tests put a virtual one in its place."""

    def now(self) -> int:
        """Microseconds since 1970, UTC. On SQLite the machine's clock; never asked to go back by the hub."""

    def monotonic(self) -> float:
        """Seconds that never go back, for measuring."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def monotonic(self) -> float:
        return time.monotonic()


SET_BACK = 1_000_000  # microseconds that a database's clock is behind what it was, when somebody has set it


class SharedClock:
    """The time of the database that several workers share, as last heard, and on by the monotonic clock.

    It does not go back for a little, such as the time an answer takes. A database whose clock was set back is
    followed: standing still until it has caught up would stop whatever waits for a time.
    """

    def __init__(self) -> None:
        self._heard = 0
        self._at = 0.0
        self._last = 0

    def heard(self, now: int, at: float) -> None:
        """The database's time (microseconds), read at `at` (monotonic seconds) at the latest."""
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
    """A fresh instance id: 32 hexadecimal digits, 12 of time and 20 (80 bits) of chance.

    Ids that grow with time keep the index on them compact: new rows land beside each other.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def new_salt() -> bytes:
    """The secret of one instance's digests."""
    return os.urandom(16)
