"""A time axis that is true to scale, from which long idle stretches are cut out.

A claim waits for days between activities of milliseconds. On one scale nobody would see the work. So a stretch in
which no activity runs, and which is much longer than all that is shown, becomes a cut of a fixed width that says how
long it was. Everything else keeps one scale, so that lengths can be compared.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MUCH_LONGER: Final = 4  # times all that is shown
CUT: Final = 7.0  # percent of the axis
CUTS: Final = 45.0  # percent of the axis, all together
BETWEEN_TICKS: Final = 20.0  # percent of the axis, about
APART: Final = 16.0  # percent of the axis, at least: a label fits in it on a phone
_SECOND: Final = 1_000_000
_STEPS: Final = (
    *(base * 10**power for power in range(6) for base in (1, 2, 5)),
    *(_SECOND * n for n in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800)),
    *(_SECOND * 3_600 * n for n in (1, 2, 3, 6, 12, 24, 48, 24 * 7, 24 * 30, 24 * 90, 24 * 365)),
)
"""Round distances between ticks, in microseconds."""


@dataclass(frozen=True)
class Cut:
    """An idle stretch that is cut out: its place in percent of the axis, and its length in microseconds."""

    x: float
    width: float
    lasted: int
    start: int


class Axis:
    """Converts times in microseconds to percentages of the axis.

    Parameters:
        marks: the moments at which something begins or ends, in order: at least the first and the last one.
        is_idle: whether nothing runs between two of them.
    """

    def __init__(self, marks: Sequence[int], is_idle: Callable[[int, int], bool]) -> None:
        self.marks = marks
        gaps = list(pairwise(marks))
        hidden = _hidden(gaps, is_idle)
        each = min(CUT, CUTS / len(hidden)) if hidden else 0.0
        shown = sum(b - a for a, b in gaps if (a, b) not in hidden) or 1
        scale = (100.0 - each * len(hidden)) / shown
        self.places, cuts = [0.0], []
        for a, b in gaps:
            width = each if (a, b) in hidden else (b - a) * scale
            if (a, b) in hidden:
                cuts.append(Cut(self.places[-1], width, b - a, a))
            self.places.append(self.places[-1] + width)
        self.cuts = tuple(cuts)

    def place(self, at: int) -> float:
        """Where a time is, in percent."""
        i = min(max(bisect_right(self.marks, at) - 1, 0), max(len(self.marks) - 2, 0))
        start, end = self.marks[i], self.marks[min(i + 1, len(self.marks) - 1)]
        if start == end:
            return self.places[i]
        share = min(max((at - start) / (end - start), 0.0), 1.0)
        return self.places[i] + share * (self.places[i + 1] - self.places[i])

    def ticks(self) -> list[tuple[float, int]]:
        """Places with their times: round distances from the start within each stretch, and where each begins."""
        found: list[tuple[float, int]] = []
        for start, end in self._stretches():
            for at in _round_times(self.marks[0], start, end, self.place(end) - self.place(start)):
                x = self.place(at)
                if not found or x - found[-1][0] >= APART:
                    found.append((round(x, 3), at))
        return found

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """The parts of the axis between the cuts."""
        since = self.marks[0]
        for cut in self.cuts:
            if cut.start > since:
                yield since, cut.start
            since = cut.start + cut.lasted
        yield since, self.marks[-1]


def _hidden(gaps: Sequence[tuple[int, int]], is_idle: Callable[[int, int], bool]) -> set[tuple[int, int]]:
    idle = sorted((gap for gap in gaps if is_idle(*gap)), key=lambda gap: gap[1] - gap[0])
    shown = sum(b - a for a, b in gaps) - sum(b - a for a, b in idle)
    for number, (a, b) in enumerate(idle):
        if shown and b - a > MUCH_LONGER * shown:
            return set(idle[number:])
        shown += b - a
    return set()


def _round_times(origin: int, start: int, end: int, width: float) -> Iterator[int]:
    """The start of a stretch, and the round times in it for which there is room."""
    wanted = int(width / BETWEEN_TICKS)
    if wanted < 1 or end <= start:
        yield start
        return
    step = next((step for step in _STEPS if step >= (end - start) / wanted), _STEPS[-1])
    first = origin + -((origin - start) // step) * step
    if first > start:
        yield start
    yield from range(first, end + 1, step)


__all__ = ["Axis", "Cut"]
