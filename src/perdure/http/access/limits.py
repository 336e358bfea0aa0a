"""Limits on how much one caller may ask: token buckets, one for each key, link or address; and requests in hand.

A bucket holds `burst` requests and fills again at `rate` a second. Failed attempts to get in have a bucket of
their own, small and slow, for each address. Somebody who shows the right key is let in even when others at the
same address have emptied it: keys cannot be guessed, and a lock-out would only be a way to lock others out.
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

MOST = 20_000  # buckets kept; the one that was not asked for longest goes first

IN_HAND: Final = 1_000  # requests of one caller at a time
_PART: Final = 4  # one caller gets at most the fourth part of the process's open files
_LINK_PART: Final = 10  # and one link the tenth part of that, so that it leaves most to others at its address
_RETRY: Final = 1  # seconds


@lru_cache(4_096)
def limited_address(address: str) -> str:
    """The name by which an address is limited: in IPv6 its network, since one caller has all addresses of a /64."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(found.ipv4_mapped or ip_network((int(found) >> 64 << 64, 64)))


@dataclass(frozen=True)
class RateLimits:
    """How much one caller may ask.

    Parameters:
        rate, burst: requests a second, and at once, for each caller. A rate of 0 means no limit.
        failures, failure_burst: the same for failed attempts to get in, for each address.
        in_hand: requests of one caller at a time; None for as many as the process's open files allow.
        header_bytes: request line and headers together; more is refused with 431.
    """

    rate: float = 2_000.0
    burst: int = 4_000
    failures: float = 0.2
    failure_burst: int = 20
    in_hand: int | None = None
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


class RequestsInHand:
    """How many requests of each caller are being answered at this moment.

    A request that waits (`?wait=60`) keeps a connection, and so one of the process's open files. Without a bound, one
    caller who waits a thousand times could leave none for all others.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = min(IN_HAND, open_files() // _PART) if most is None else most
        self._taken: Counter[str] = Counter()

    def take(self, name: str, link: str = "") -> None:
        """Count one more request of a caller, and of the link that it came by. Raises Refused for one too many."""
        most = self._most
        if self._taken[name] >= most or (link and self._taken[link] >= max(most // _LINK_PART, 1)):
            raise Refused(
                429,
                "rate-limited",
                "this server is answering as many requests as it takes of one caller: wait for some of them",
                retry_after=_RETRY,
            )
        self._taken[name] += 1
        if link:
            self._taken[link] += 1

    def leave(self, name: str, link: str = "") -> None:
        """One request of the caller is answered."""
        for one in filter(None, (name, link)):
            self._taken[one] -= 1
            if self._taken[one] <= 0:
                del self._taken[one]


def open_files() -> int:
    """How many files this process may have open; a connection is one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


__all__ = ["Buckets", "RateLimits", "RequestsInHand", "limited_address", "open_files"]
