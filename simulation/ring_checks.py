"""What the ring must say: the true counts by status after every commit, and each start and end counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from perdure.model.instances import FINISHED, RuntimeStatus
from perdure.model.records import Batch, InstanceRow
from perdure.model.ring import HEAD, HOUR, MINUTE, RingRow, RingValue, key_of, value_of

Counts = Counter[tuple[str, str]]


class RingLedger:
    """The rows of the ring, as the commits have left them. Nothing expires here."""

    def __init__(self, met: Callable[[str], None]) -> None:
        self.started: Counter[str] = Counter()
        self.ended: Counts = Counter()
        self._met = met
        self._rows: dict[tuple[str, int, int], RingRow] = {}

    def born(self, row: InstanceRow) -> None:
        if row.kind == "entity":
            return
        self.started[row.name] += 1
        if RuntimeStatus(row.status) in FINISHED:
            self.ended[row.name, row.status] += 1

    def moved(self, before: InstanceRow, after: InstanceRow) -> None:
        if after.kind != "entity" and before.completed_at is None and after.completed_at is not None:
            self.ended[after.name, after.status] += 1

    def applied(self, batch: Batch, rows: Iterable[InstanceRow]) -> Iterator[str]:
        """Record a batch; returns what is wrong. `rows` are the instances after it."""
        for worker in batch.heads_removed:
            del self._rows[worker, HEAD, 0]
            self._met("a dead worker's counts taken over")
        for row in batch.ring:
            self._rows[row[:3]] = row
            if row.resolution == MINUTE:
                self._met("a minute of the ring ended")
        true = Counter(key_of(row.status, row.reason) for row in rows if row.kind != "entity")
        found: Counter[str] = Counter()
        for value in self._values(HEAD):
            found.update(value.statuses)
        if {key: n for key, n in found.items() if n} != dict(true):
            yield f"the ring counts {dict(found)}, there are {dict(true)}"
        if batch.ring:
            yield from self._wrong_events()

    def _wrong_events(self) -> Iterator[str]:
        """Each start and end is in one minute, and in one hour."""
        for resolution in (MINUTE, HOUR):
            total = RingValue()
            for value in (*self._values(HEAD), *self._values(resolution)):
                total.add_events(value)
            ended = {
                (name, status): one.count
                for name, outcomes in total.ended.items()
                for status, one in outcomes.items()
            }
            yield from _differences(f"started, in rows of {resolution} s", total.started, self.started)
            yield from _differences(f"ended, in rows of {resolution} s", ended, self.ended)
            for outcomes in total.ended.values():
                for one in outcomes.values():
                    if sum(one.buckets.values()) != one.count:
                        yield f"the buckets {one.buckets} do not count {one.count}"

    def _values(self, resolution: int) -> list[RingValue]:
        return [value_of(row) for key, row in self._rows.items() if key[1] == resolution]


def _differences(what: str, found: Mapping[Any, int], true: Mapping[Any, int]) -> Iterator[str]:
    if dict(found) != dict(true):
        yield f"{what}: {dict(found)} instead of {dict(true)}"


__all__ = ["RingLedger"]
