"""What every schedule tells of its ticks, whatever makes them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import takewhile


class Ticks(ABC):
    """The ticks of a schedule, in microseconds since 1970 (UTC)."""

    @abstractmethod
    def ticks(self, after: int) -> Iterator[int]:
        """Every tick later than `after`, in order."""

    def next(self, after: int) -> int:
        """The first tick later than `after`."""
        return next(self.ticks(after))

    def between(self, after: int, until: int, most: int) -> list[int]:
        """At most `most` ticks later than `after` and not later than `until`, in order."""
        found = takewhile(lambda tick: tick <= until, self.ticks(after))
        return [tick for _, tick in zip(range(most), found, strict=False)]


__all__ = ["Ticks"]
