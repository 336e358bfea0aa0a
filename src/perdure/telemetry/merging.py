"""The metrics of several workers together: as messages between processes, and added up over the deaths of workers.

A supervisor gives each of its places a name that stays while workers in it die and are replaced. What the workers
before counted is added to what the present one counts, so that no counter of a place ever decreases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from perdure.telemetry.counting import Buckets, Labels, Slowest
from perdure.telemetry.metrics import BY_NAME, Reading, Value


class Row(msgspec.Struct, array_like=True, omit_defaults=True):
    """One series. A histogram has counts, and the slowest by bucket; its value is the sum."""

    labels: Labels
    value: float
    counts: list[int] = []
    slowest: dict[int, Slowest] = {}


Snapshot = dict[str, list[Row]]
"""The readings of one worker by the names of the metrics, for a message."""


def snapshot_of(readings: Iterable[Reading]) -> Snapshot:
    """The readings as a message."""
    return {
        reading.metric.name: [_row(labels, value) for labels, value in reading.series.items()]
        for reading in readings
    }


def _row(labels: Labels, value: Value) -> Row:
    if isinstance(value, Buckets):
        return Row(labels, value.total, list(value.counts), dict(list(value.slowest.items())))
    return Row(labels, value)


def readings_of(snapshot: Snapshot) -> list[Reading]:
    """The readings of a message. Metrics that this version does not know are left out."""
    known = {name: rows for name, rows in snapshot.items() if name in BY_NAME}
    return [
        Reading(BY_NAME[name], {row.labels: _value(name, row) for row in rows})
        for name, rows in known.items()
    ]


def _value(name: str, row: Row) -> Value:
    if BY_NAME[name].kind != "histogram":
        return row.value
    return Buckets.of(row.counts, row.value, row.slowest, BY_NAME[name].bounds)


def added(before: Snapshot, now: Snapshot) -> Snapshot:
    """What a worker counted, added to what those before it in its place counted. Gauges are those of now."""
    sums: Snapshot = {}
    for name in dict.fromkeys((*before, *now)):
        metric = BY_NAME.get(name)
        if metric is None:
            continue
        if metric.kind == "gauge":
            sums[name] = now.get(name, [])
            continue
        rows = {row.labels: row for row in before.get(name, ())}
        for row in now.get(name, ()):
            rows[row.labels] = _sum(rows[row.labels], row) if row.labels in rows else row
        sums[name] = list(rows.values())
    return sums


def _sum(one: Row, other: Row) -> Row:
    if len(one.counts) != len(other.counts):  # of a version with other buckets
        return other
    counts = [a + b for a, b in zip(one.counts, other.counts, strict=True)]
    return Row(one.labels, one.value + other.value, counts, {**one.slowest, **other.slowest})


@dataclass
class Place:
    """One place of a supervisor: what the dead workers in it counted, and the last snapshot of the present one."""

    before: Snapshot = field(default_factory=dict)
    last: Snapshot = field(default_factory=dict)

    def ended(self) -> None:
        """The worker is gone."""
        self.before, self.last = added(self.before, self.last), {}
        self.before = {name: rows for name, rows in self.before.items() if BY_NAME[name].kind != "gauge"}

    @property
    def total(self) -> Snapshot:
        return added(self.before, self.last)


def together(places: Mapping[str, Place]) -> dict[str, Snapshot]:
    """The totals by the names of the places."""
    return {name: place.total for name, place in places.items()}


__all__ = ["Place", "Row", "Snapshot", "added", "readings_of", "snapshot_of", "together"]
