"""Limits on open streams, so that one caller cannot take them all.

A server has a number of places for streams, and each caller a share of them. Some places are reserved for
administrators, so that they can watch when the others are taken. Without access control the server cannot tell
callers apart, and they share all places.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from perdure.http.principal import Refused

MOST: Final = 1_000  # streams of one server at a time
SHARE: Final = 100  # streams of one caller
KEPT: Final = 100  # streams reserved for administrators
RETRY: Final = 10  # seconds after which to retry


class StreamLimits:
    """Counts the open streams of each caller."""

    def __init__(self, most: int = MOST, share: int = SHARE, kept: int = KEPT) -> None:
        self._most, self._share, self._kept = most, share, kept
        self._taken: Counter[str] = Counter()

    def take(self, name: str, *, is_admin: bool = False, is_known: bool = True) -> None:
        """Take a place. Raises Refused: 429 if the caller's share is used up, 503 if all places are taken.

        Parameters:
            name: the caller.
            is_admin: whether the caller can take a reserved place.
            is_known: whether the server can tell the caller from others.
        """
        if is_known and self._taken[name] >= self._share:
            raise Refused(
                429,
                "rate-limited",
                f"this caller already has {self._share} open streams. Close one, or poll instead",
                retry_after=RETRY,
            )
        if self._taken.total() >= self._most - (0 if is_admin else self._kept):
            raise Refused(
                503,
                "overloaded",
                "this server has no place for another stream. Try again later, or poll instead",
                retry_after=RETRY,
            )
        self._taken[name] += 1

    def leave(self, name: str) -> None:
        """Release a place."""
        self._taken[name] -= 1
        if self._taken[name] <= 0:
            del self._taken[name]


__all__ = ["StreamLimits"]
