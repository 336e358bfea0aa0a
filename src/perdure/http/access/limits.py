"""Limits on how much one caller may ask: token buckets, one for each key, link or address.

A bucket holds `burst` requests and fills again at `rate` a second. Failed attempts to get in have a bucket of
their own, small and slow, for each address. Somebody who shows the right key is let in even when others at the
same address have emptied it: keys cannot be guessed, and a lock-out would only be a way to lock others out.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST = 20_000  # buckets kept; the one that was not asked for longest goes first


@dataclass(frozen=True)
class RateLimits:
    """How much one caller may ask.

    Parameters:
        rate, burst: requests a second, and at once, for each caller. A rate of 0 means no limit.
        failures, failure_burst: the same for failed attempts to get in, for each address.
        header_bytes: request line and headers together; more is refused with 431.
    """

    rate: float = 2_000.0
    burst: int = 4_000
    failures: float = 0.2
    failure_burst: int = 20
    header_bytes: int = 32 * 1024


class Buckets:
    """Token buckets by name."""

    def __init__(self, rate: float, burst: int, monotonic: Callable[[], float]) -> None:
        self._rate, self._burst, self._monotonic = rate, float(burst), monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> left, when

    def take(self, name: str) -> int:
        """Take one; returns 0 when there was one, else the whole seconds until there is."""
        if not self._rate:
            return 0
        now = self._monotonic()
        left, at = self._buckets.pop(name, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        refused = left < 1.0
        self._buckets[name] = (left if refused else left - 1.0, now)
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return math.ceil((1.0 - left) / self._rate) if refused else 0


__all__ = ["Buckets", "RateLimits"]
