"""Charts as numbers for SVG, which templates write: bars, lines and areas over time.

A chart has a fixed viewBox, round values on its vertical axis, and a text that says what the picture shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 404.0
HEIGHT: Final = 136.0
LEFT: Final = 38.0
RIGHT: Final = 400.0
TOP: Final = 8.0
BOTTOM: Final = 112.0
_LINES: Final = 5  # of the grid, at most
_STEPS: Final = (1.0, 2.0, 5.0, 10.0)

Values = Sequence[float | None]


@dataclass(frozen=True)
class Series:
    """One quantity over time: its name, its colour (a class of the sheet) and a value for each interval."""

    name: str
    colour: str
    values: Values


@dataclass(frozen=True)
class Kind:
    """What the values are: how they are written, the smallest step of the grid, and the units that it is round in."""

    show: Callable[[float], str]
    least: float = 0.0
    units: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Bar:
    """A rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass(frozen=True)
class Path:
    """A line, or the area below it."""

    d: str
    colour: str
    is_area: bool = False


@dataclass(frozen=True)
class Chart:
    """What a template draws."""

    title: str
    says: str
    legend: tuple[tuple[str, str], ...]
    axis: tuple[tuple[float, str, str], ...]  # x, anchor and label
    grid: tuple[tuple[float, str], ...] = ()  # y and label
    bars: tuple[Bar, ...] = ()
    paths: tuple[Path, ...] = ()
    hovers: tuple[tuple[float, float, str], ...] = ()  # x, width and text of each interval


def bars(title: str, series: Sequence[Series], labels: Sequence[str], kind: Kind) -> Chart:
    """Stacked bars, the first series at the bottom."""
    count = len(labels)
    totals = [sum(one.values[at] or 0 for one in series) for at in range(count)]
    top, grid = _scale(max(totals, default=0.0), kind)
    drawn: list[Bar] = []
    step = (RIGHT - LEFT) / max(count, 1)
    for at in range(count):
        base = BOTTOM
        for one in series:
            height = (one.values[at] or 0) / top * (BOTTOM - TOP)
            if height:
                shown = max(height, 1.5)  # one failure among thousands is still seen
                base -= shown
                x, width = LEFT + at * step + 0.5, step - 1
                drawn.append(Bar(_round(x), _round(base), _round(width), _round(shown), one.colour))
    return replace(_empty(title, series, labels, kind), grid=grid, bars=tuple(drawn))


def lines(
    title: str,
    series: Sequence[Series],
    labels: Sequence[str],
    kind: Kind,
    *,
    area: bool = False,
) -> Chart:
    """Lines; an interval without a value is a gap. With `area` the space below the first series is filled."""
    known = [value for one in series for value in one.values if value is not None]
    top, grid = _scale(max(known, default=0.0), kind)
    paths: list[Path] = []
    for number, one in enumerate(series):
        for part in _parts(one.values):
            points = [(_middle(at, len(labels)), BOTTOM - value / top * (BOTTOM - TOP)) for at, value in part]
            d = _line(points)
            if area and not number:
                paths.append(Path(f"{d} V{BOTTOM:g} H{points[0][0]:.1f} Z", one.colour, is_area=True))
            paths.append(Path(d, one.colour))
    return replace(_empty(title, series, labels, kind), grid=grid, paths=tuple(paths))


def _empty(title: str, series: Sequence[Series], labels: Sequence[str], kind: Kind) -> Chart:
    """The chart without its grid and drawing."""
    return Chart(
        title=title,
        says=_says(title, series, kind),
        legend=tuple((one.name, one.colour) for one in series),
        axis=_axis(labels),
        hovers=_hovers(series, labels, kind),
    )


def spark(values: Values) -> str:
    """The path of a small line in a viewBox of 100 by 24."""
    known = [0.0 if value is None else value for value in values]
    top = max(known, default=0.0) or 1.0
    last = max(len(known) - 1, 1)
    return _line([(at * 100 / last, 22 - value / top * 20) for at, value in enumerate(known)])


def _line(points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:  # a point alone is drawn as a short dash
        [(x, y)] = points
        points = [(x - 2, y), (x + 2, y)]
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _parts(values: Values) -> list[list[tuple[int, float]]]:
    """The stretches without a gap, each as (place, value)."""
    found: list[list[tuple[int, float]]] = [[]]
    for at, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append((at, value))
    return [part for part in found if part]


def _middle(at: int, count: int) -> float:
    return LEFT + (at + 0.5) * (RIGHT - LEFT) / max(count, 1)


def _scale(most: float, kind: Kind) -> tuple[float, tuple[tuple[float, str], ...]]:
    """The value at the top of the chart, and the lines of its grid with round values."""
    unit = max((size for size in kind.units if size <= most), default=kind.units[0])
    step = max(_round_step((most or unit) / unit / _LINES), kind.least) * unit
    count = max(1, ceil((most or step) / step - 1e-9))
    height = BOTTOM - TOP
    return step * count, tuple(
        (_round(BOTTOM - at / count * height), kind.show(at * step)) for at in range(count + 1)
    )


def _round_step(least: float) -> float:
    """The smallest round number that is not smaller."""
    size: float = 10.0 ** floor(log10(least))
    return next(size * step for step in _STEPS if size * step >= least * 0.999999)


def _axis(labels: Sequence[str]) -> tuple[tuple[float, str, str], ...]:
    """Five of the labels: the first, the last and those between."""
    last = len(labels) - 1
    if last < 1:
        return ()
    places = sorted({round(last * part / 4) for part in range(5)})
    anchors = {0: "start", last: "end"}
    ends = {0: LEFT, last: RIGHT}
    return tuple(
        (_round(ends.get(at, _middle(at, last + 1))), anchors.get(at, "middle"), labels[at]) for at in places
    )


def _hovers(
    series: Sequence[Series], labels: Sequence[str], kind: Kind
) -> tuple[tuple[float, float, str], ...]:
    step = (RIGHT - LEFT) / max(len(labels), 1)
    told = []
    for at, label in enumerate(labels):
        values = [f"{kind.show(value)} {one.name}" for one in series if (value := one.values[at]) is not None]
        if values and any(one.values[at] for one in series):
            told.append((_round(LEFT + at * step), _round(step), f"{label}: {', '.join(values)}"))
    return tuple(told)


def _says(title: str, series: Sequence[Series], kind: Kind) -> str:
    """The text for people who do not see the picture: the last and the largest value of each series."""
    told = []
    for one in series:
        known = [value for value in one.values if value is not None]
        if known:
            told.append(
                f"{one.name} {kind.show(known[-1])} in the last interval, {kind.show(max(known))} at most"
            )
    return f"{title}: {'; '.join(told) if told else 'nothing yet'}"


def _round(value: float) -> float:
    return round(value, 1)


__all__ = ["Bar", "Chart", "Kind", "Path", "Series", "bars", "lines", "spark"]
