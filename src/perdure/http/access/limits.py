"""Limits for one caller: a token bucket for each key, link or address, and the number of concurrent requests.

A bucket contains `burst` requests and refills at `rate` a second. Failed attempts have a separate, small and slow
bucket for each address. A caller with the right key is accepted even if others at the same address have emptied that
bucket. Keys cannot be guessed, and a lock-out would only let one caller lock out another.
"""

from __future__ import annotations

import math
import resource
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from perdure.http.principal import Refused

MOST = 20_000  # buckets kept; the least recently used is removed first

IN_HAND: Final = 1_000  # concurrent requests of one caller
_PART: Final = 4  # one caller can use at most a quarter of the process's open files
_LINK_PART: Final = 10  # one link can use at most a tenth of that, to leave most to others at its address
_RETRY: Final = 1  # seconds


@lru_cache(4_096)
def limited_address(address: str) -> str:
    """The address whose limits apply: in IPv6 its /64 network, because one caller has all its addresses."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(found.ipv4_mapped or ip_network((int(found) >> 64 << 64, 64)))


@dataclass(frozen=True)
class RateLimits:
    """The limits for one caller.

    Parameters:
        rate, burst: requests a second, and at once, for each caller. A rate of 0 means no limit.
        failures, failure_burst: the same for failed attempts from each address.
        in_hand: concurrent requests of one caller; None for as many as the process's open files allow.
        header_bytes: the size of request line and headers together. A larger request is rejected with 431.
    """

    rate: float = 2_000.0
    burst: int = 4_000
    failures: float = 0.2
    failure_burst: int = 20
    in_hand: int | None = None
    header_bytes: int = 32 * 1024


class Buckets:
    """Named token buckets."""

    def __init__(self, rate: float, burst: int, monotonic: Callable[[], float]) -> None:
        self._rate, self._burst, self._monotonic = rate, float(burst), monotonic
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> left, when

    def take(self, name: str) -> int:
        """Take one request from a bucket. Returns 0, or the whole seconds until the bucket has one."""
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


class RequestsInHand:
    """Counts the concurrent requests of each caller.

    A request that waits (`?wait=60`) keeps a connection, and so one of the process's open files. Without a limit, one
    caller with a thousand waiting requests could leave none for the others.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = min(IN_HAND, open_files() // _PART) if most is None else most
        self._taken: Counter[str] = Counter()

    def take(self, name: str, link: str = "") -> None:
        """Count one more request of a caller and of its link. Raises Refused if the limit is reached."""
        most = self._most
        if self._taken[name] >= most or (link and self._taken[link] >= max(most // _LINK_PART, 1)):
            raise Refused(
                429,
                "rate-limited",
                "this caller has too many concurrent requests. Wait until some of them have finished",
                retry_after=_RETRY,
            )
        self._taken[name] += 1
        if link:
            self._taken[link] += 1

    def leave(self, name: str, link: str = "") -> None:
        """Count one request of a caller and of its link less."""
        for one in filter(None, (name, link)):
            self._taken[one] -= 1
            if self._taken[one] <= 0:
                del self._taken[one]


def open_files() -> int:
    """The number of files that this process can open. A connection is one of them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


__all__ = ["Buckets", "RateLimits", "RequestsInHand", "limited_address", "open_files"]
