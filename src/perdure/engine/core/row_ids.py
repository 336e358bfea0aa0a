"""Numbers for rows: of instances and of messages, given out by the loop without asking anybody.

An engine that has its hub to itself counts. Where several workers serve a hub, a number is the millisecond, then the
worker's seat, then a count: unique because no two living workers have one seat, and in the order of time, because
newest-first lists and lines of waiting messages are sorted by it. A worker that needs more than fit into a
millisecond borrows from the next.
"""

from __future__ import annotations

from typing import Final

EPOCH_MS: Final = 1_577_836_800_000  # 2020; 41 bits of milliseconds last until 2089
SEATS: Final = 1_024
_COUNT_BITS: Final = 12
_SEAT_BITS: Final = 10
_COUNTS: Final = (1 << _COUNT_BITS) - 1
_SKIP_SEATS: Final = (1 << (_COUNT_BITS + _SEAT_BITS)) - (1 << _COUNT_BITS)


class Numbers:
    """The next number, and those after it."""

    __slots__ = ("_next", "_seat")

    def __init__(self) -> None:
        self._next = 1
        self._seat = -1

    def opened(self, next_free: int, incarnation: int) -> None:
        """Go on behind what the store has; `incarnation` is 0 for an engine on its own."""
        if incarnation:
            self._seat = incarnation % SEATS
            self._next = (self._seat << _COUNT_BITS) | 1
        else:
            self._seat = -1
            self._next = max(self._next, next_free)

    @property
    def upcoming(self) -> int:
        """The number that is given out next."""
        return self._next

    def advance(self, now: int) -> None:
        """A batch begins, at `now` (microseconds)."""
        if self._seat >= 0:
            self._next = max(self._next, first_of(now, self._seat))

    def exceed(self, number: int) -> None:
        """Go on behind a number that another worker gave, whose clock may be ahead of this one's."""
        if self._seat >= 0 and number >= self._next:
            self._next = _first_in((number >> (_COUNT_BITS + _SEAT_BITS)) + 1, self._seat)

    def take(self) -> int:
        """A number nobody else has."""
        number = self._next
        self._next = number + 1
        if self._seat >= 0 and not self._next & _COUNTS:
            self._next += _SKIP_SEATS
        return number


def first_of(now: int, seat: int) -> int:
    """The smallest number of a seat in the millisecond of `now` (microseconds)."""
    return _first_in(now // 1_000 - EPOCH_MS, seat)


def _first_in(millisecond: int, seat: int) -> int:
    return (millisecond << (_COUNT_BITS + _SEAT_BITS)) | (seat << _COUNT_BITS)


__all__ = ["EPOCH_MS", "SEATS", "Numbers", "first_of"]
