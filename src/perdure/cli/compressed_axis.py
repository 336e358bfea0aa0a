"""An axis for the few columns of a terminal. Each stretch between two marks is as wide as the log of its length.

Order and overlap stay correct, lengths do not.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import log2
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TOO_THIN = 0.01  # of the axis


class Axis:
    """Converts times to percentages and back, piecewise linearly between `marks`."""

    def __init__(self, marks: Sequence[int], *, compressed: bool) -> None:
        self.marks = marks
        weights = [_weight(b - a) if compressed else float(b - a) for a, b in pairwise(marks)]
        total = sum(weights) or 1.0
        self.places = [0.0]
        for weight in weights:
            self.places.append(self.places[-1] + 100.0 * weight / total)

    def place(self, at: int) -> float:
        i = min(max(bisect_right(self.marks, at) - 1, 0), max(len(self.marks) - 2, 0))
        return _between(at, self.marks, self.places, i)


def _between(value: float, source: Sequence[float], target: Sequence[float], i: int) -> float:
    if i + 1 >= len(source) or source[i + 1] == source[i]:
        return float(target[i])
    share = (value - source[i]) / (source[i + 1] - source[i])
    return target[i] + min(max(share, 0.0), 1.0) * (target[i + 1] - target[i])


def _weight(gap: int) -> float:
    return log2(1 + gap / 500)  # half a millisecond or less has almost no width


def has_thin(spans: Iterable[tuple[int, int]], start: int, end: int) -> bool:
    """Whether one of the spans (begin, end) is too short for a linear axis from `start` to `end`."""
    return any(0 < until - since < TOO_THIN * (end - start) for since, until in spans)


__all__ = ["Axis", "has_thin"]
