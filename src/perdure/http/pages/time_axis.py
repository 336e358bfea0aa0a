"""The time axis of an instance's page: one scale for all that is shown, labels at round times, marked cuts.

Durations differ by nine orders of magnitude within one instance: a claim waits for days between activities of
milliseconds. A stretch in which no activity runs and nothing happens can be cut out. A cut has a fixed width and is
marked; everything else keeps the same scale, so that equal lengths are equal times.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CUTS: Final = 8
LABELS: Final = 6
PARTS: Final = 8
_APART: Final = 11.0  # percent between two labels
_CUT_WIDTH: Final = 5.0  # percent
_SECOND: Final = 1_000_000
_STEPS: Final[tuple[int, ...]] = (
    *(factor * scale for scale in (1, 10, 100, 1_000, 10_000, 100_000) for factor in (1, 2, 5)),
    *(seconds * _SECOND for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * 60 * _SECOND for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3_600 * _SECOND for hours in (1, 2, 3, 6, 12)),
    *(days * 86_400 * _SECOND for days in (1, 2, 7, 14, 30, 90, 365)),
)

Stretch = tuple[int, int]  # from, to in microseconds


@dataclass(frozen=True)
class Piece:
    """A part of the axis: times in microseconds, position and width in percent."""

    start: int
    end: int
    x: float
    width: float
    is_cut: bool

    def place(self, at: int) -> float:
        return self.x + self.width * (at - self.start) / max(1, self.end - self.start)

    def instant(self, x: float) -> int:
        share = (x - self.x) / self.width if self.width else 0.0
        return self.start + round(min(max(share, 0.0), 1.0) * (self.end - self.start))


class TimeAxis:
    """Converts times to percentages and back. `cuts` are stretches in order that get a fixed, narrow width."""

    def __init__(self, start: int, end: int, cuts: Sequence[Stretch] = ()) -> None:
        self.start, self.end = start, max(end, start + 1)
        self.pieces = list(_pieces(self.start, self.end, cuts))
        self._starts = [piece.start for piece in self.pieces]
        self._places = [piece.x for piece in self.pieces]

    def place(self, at: int) -> float:
        """The position of a time in percent. Times outside the axis are at its edge."""
        at = min(max(at, self.start), self.end)
        return self.pieces[max(0, bisect_right(self._starts, at) - 1)].place(at)

    def instant(self, x: float) -> int:
        """The time at a position."""
        return self.pieces[max(0, bisect_right(self._places, x) - 1)].instant(x)

    @property
    def cuts(self) -> list[Piece]:
        return [piece for piece in self.pieces if piece.is_cut]

    @property
    def parts(self) -> list[tuple[float, float, int, int]]:
        """Equal parts of the axis to zoom into: position, width, from, to."""
        width = 100.0 / PARTS
        edges = [self.instant(width * each) for each in range(PARTS)] + [self.end]
        return [(width * at, width, *edge) for at, edge in enumerate(pairwise(edges)) if edge[0] < edge[1]]

    def ticks(self) -> list[tuple[float, int]]:
        """Positions and times of the labels: multiples of a round step, counted from the start of the axis."""
        shown = [piece for piece in self.pieces if not piece.is_cut]
        step = _step(sum(piece.end - piece.start for piece in shown))
        ticks: list[tuple[float, int]] = []
        for piece in shown:
            first = ceil((piece.start - self.start) / step) * step + self.start
            for at in range(first, piece.end + 1, step):
                x = piece.place(at)
                if not ticks or x - ticks[-1][0] >= _APART:
                    ticks.append((round(x, 2), at))
        return ticks


def _step(length: int) -> int:
    for step in _STEPS:
        if length <= step * LABELS:
            return step
    return _STEPS[-1] * ceil(length / (_STEPS[-1] * LABELS))


def _pieces(start: int, end: int, cuts: Sequence[Stretch]) -> Iterator[Piece]:
    width = min(_CUT_WIDTH, 40.0 / len(cuts)) if cuts else 0.0
    scale = (100.0 - width * len(cuts)) / max(1, end - start - sum(b - a for a, b in cuts))
    x, at = 0.0, start
    for since, until in cuts:
        if since > at:
            yield Piece(at, since, x, (since - at) * scale, is_cut=False)
            x += (since - at) * scale
        yield Piece(since, until, x, width, is_cut=True)
        x, at = x + width, until
    if at < end:
        yield Piece(at, end, x, 100.0 - x, is_cut=False)


def idle_stretches(busy: Iterable[Stretch], start: int, end: int) -> list[Stretch]:
    """The stretches worth cutting out: nothing is busy in them, and they are long beside what remains."""
    quiet: list[Stretch] = []
    reached = start
    for since, until in sorted(busy):
        if since > reached:
            quiet.append((reached, min(since, end)))
        reached = max(reached, until)
    if end > reached:
        quiet.append((reached, end))
    remains = end - start - sum(b - a for a, b in quiet)
    idle: list[Stretch] = []
    for stretch in sorted(quiet, key=lambda each: each[1] - each[0]):
        length = stretch[1] - stretch[0]
        if remains and length > remains:
            idle.append(stretch)
        else:
            remains += length
    return sorted(idle[-CUTS:])


__all__ = ["CUTS", "Piece", "TimeAxis", "idle_stretches"]
