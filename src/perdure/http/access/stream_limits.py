"""Limits of streams: how many streams each caller may have open, so that no caller takes those of the others.

A server has so many places, and a caller a share of them. Administrators have places that nobody else can take, so
that they can look when all others are taken. Where nobody is asked for a key, callers cannot be told apart, and
share all places.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from perdure.http.principal import Refused

MOST: Final = 1_000  # streams of one server at a time
SHARE: Final = 100  # of one caller
KEPT: Final = 100  # for administrators
RETRY: Final = 10  # seconds


class StreamLimits:
    """The places for streams that are taken, by caller."""

    def __init__(self, most: int = MOST, share: int = SHARE, kept: int = KEPT) -> None:
        self._most, self._share, self._kept = most, share, kept
        self._taken: Counter[str] = Counter()

    def take(self, name: str, *, is_admin: bool = False, is_known: bool = True) -> None:
        """Take a place. Raises Refused: 429 for a caller whose share is used up, 503 when there is no place.

        Parameters:
            name: who the caller is.
            is_admin: whether it may have a place of those that are kept.
            is_known: whether the caller can be told from others.
        """
        if is_known and self._taken[name] >= self._share:
            raise Refused(
                429,
                "rate-limited",
                f"this caller has {self._share} streams open already: close one, or ask now and then",
                retry_after=RETRY,
            )
        if self._taken.total() >= self._most - (0 if is_admin else self._kept):
            raise Refused(
                503,
                "overloaded",
                "this server has as many streams open as it takes: try again later, or ask now and then",
                retry_after=RETRY,
            )
        self._taken[name] += 1

    def leave(self, name: str) -> None:
        """Give a place back."""
        self._taken[name] -= 1
        if self._taken[name] <= 0:
            del self._taken[name]


__all__ = ["StreamLimits"]
