"""The ring: what a hub's instances did in the last hour and the last two days, in a few rows of the store.

Each worker has a *head*, which has its net count of instances by status and what happened in the current minute. The
batches of the worker write the head, each in its own transaction. When a minute is over, its part of the head becomes
a row of its own, and is added to the row of its hour. Sixty minutes and forty-eight hours are kept.

The net count of one worker means little: it falls when the worker ends what another has started. The sum over the
heads of all workers, dead ones included, is the exact number of instances in each status; so a gauge reads a row for
each worker, and never scans the instances. Entities are not counted.

The values are JSON and a format: fields are only added, with defaults.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import RuntimeStatus
from perdure.model.waiting import is_parked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEAD: Final = 0
MINUTE: Final = 60
HOUR: Final = 3_600
KEPT: Final = {MINUTE: 60, HOUR: 48}
"""How many rows of a worker the store keeps, by the seconds that a row covers."""
BOUNDS: Final = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0),
    *(86_400.0, 3 * 86_400.0, 7 * 86_400.0, 30 * 86_400.0),
)
"""The upper bounds of the buckets for lifetimes, in seconds. The last bucket has no bound."""
OTHER: Final = "_other"
MOST_NAMES: Final = 200  # orchestrators in one value; others count as `_other`
_PARKED: Final = "/parked"
UNKNOWN: Final = "?"
"""The key of an instance with a damaged row, which does not tell how the instance was counted."""
_SECOND: Final = 1_000_000
_ABLE_TO_PARK: Final = frozenset((RuntimeStatus.Pending.value, RuntimeStatus.Suspended.value))

Move = tuple[str, str, str, int]
"""A change of one instance: its orchestrator, the key under which it was counted and the new one ("" for neither),
and its lifetime in microseconds if it has ended now, or else -1."""


class RingRow(NamedTuple):
    """One row of the ring."""

    worker: str  # "" for an engine that has its hub to itself; else the name, "#" and what makes it unique
    resolution: int  # HEAD, or the seconds that the row covers
    start: int  # microseconds; 0 for a head
    incarnation: int
    value: bytes


class Ended(msgspec.Struct, array_like=True):
    """How many instances ended, their lifetimes in all (seconds), and how many in each bucket of `BOUNDS`."""

    count: int = 0
    seconds: float = 0.0
    buckets: dict[int, int] = {}

    def add(self, other: Ended) -> None:
        self.count += other.count
        self.seconds += other.seconds
        for place, count in other.buckets.items():
            self.buckets[place] = self.buckets.get(place, 0) + count


class RingValue(msgspec.Struct, omit_defaults=True):
    """What a row counts. `statuses` and `built_in` are net counts at its end, the others count what happened."""

    at: int = 0  # of a head: the start of its minute, in microseconds
    statuses: dict[str, int] = {}
    started: dict[str, int] = {}  # by orchestrator
    ended: dict[str, dict[str, Ended]] = {}  # by orchestrator and status
    built_in: dict[
        str, int
    ] = {}  # those of `statuses` that are perdure's own, as far as they were told apart
    replays: int = 0  # how often a worker recreated an instance's code from its history

    def count(self, move: Move) -> None:
        """Count a change of an instance."""
        name, before, after, lifetime = move
        _move(self.statuses, before, after)
        if name.startswith(BUILT_IN):
            _move(self.built_in, before, after)
        if not after:
            return
        if not before:
            name = self._named(name, self.started)
            self.started[name] = self.started.get(name, 0) + 1
        if lifetime >= 0:
            self._count_end(name, after, lifetime / _SECOND)

    def _count_end(self, name: str, status: str, seconds: float) -> None:
        outcomes = self.ended.setdefault(self._named(name, self.ended), {})
        found = outcomes.get(status)
        if found is None:
            found = outcomes[status] = Ended()
        found.count += 1
        found.seconds += seconds
        place = bisect_left(BOUNDS, seconds)
        found.buckets[place] = found.buckets.get(place, 0) + 1

    def _named(self, name: str, known: Mapping[str, object]) -> str:
        return name if name in known or len(known) < MOST_NAMES else OTHER

    def add(self, later: RingValue) -> None:
        """Add what happened in a later time, whose net counts replace these."""
        self.statuses, self.built_in = dict(later.statuses), dict(later.built_in)
        self.add_events(later)

    def add_events(self, other: RingValue) -> None:
        """Add what happened in another row's time."""
        self.replays += other.replays
        for name, count in other.started.items():
            own = self._named(name, self.started)
            self.started[own] = self.started.get(own, 0) + count
        for name, outcomes in other.ended.items():
            own_outcomes = self.ended.setdefault(self._named(name, self.ended), {})
            for status, ended in outcomes.items():
                own_outcomes.setdefault(status, Ended()).add(ended)

    def add_statuses(self, other: RingValue) -> None:
        """Add another worker's net counts."""
        for own, others in ((self.statuses, other.statuses), (self.built_in, other.built_in)):
            for status, count in others.items():
                there = own.pop(status, 0) + count
                if there:
                    own[status] = there

    def has_events(self) -> bool:
        return bool(self.started or self.ended)


def _move(counts: dict[str, int], before: str, after: str) -> None:
    if before:
        counts[before] = counts.get(before, 0) - 1
    if after:
        counts[after] = counts.get(after, 0) + 1


encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(RingValue).decode


def value_of(row: RingRow) -> RingValue:
    """The content of a row. Raises msgspec.MsgspecError if it is damaged."""
    return _decode(row.value)


def key_of(status: str, reason: str) -> str:
    """The key under which an instance is counted: its status, and whether it is parked."""
    return status + _PARKED if reason and status in _ABLE_TO_PARK and is_parked(reason) else status


def floor_of(at: int, resolution: int) -> int:
    """The start of the minute or hour of a time in microseconds."""
    return at - at % (resolution * _SECOND)


def oldest_kept(at: int, resolution: int) -> int:
    """The start of the oldest row that is still kept at a time: the newest is in the heads."""
    return floor_of(at, resolution) - (KEPT[resolution] - 1) * resolution * _SECOND


class InstanceCounts(NamedTuple):
    """The number of orchestrations in each status, and of the parked ones among them."""

    by_status: dict[str, int]
    parked: int

    @property
    def total(self) -> int:
        return sum(self.by_status.values())


def counts_of(heads: Iterable[RingRow]) -> InstanceCounts:
    """The exact counts, from the heads of all workers. Raises msgspec.MsgspecError if one is damaged."""
    return counts_in(summed(heads))


def without_built_in(value: RingValue) -> RingValue:
    """The value without perdure's own orchestrations, except for parked ones, which need a hand as others do."""
    left = dict(value.statuses)
    for key, count in value.built_in.items():
        if not key.endswith(_PARKED):
            left[key] = max(0, left.get(key, 0) - max(0, count))
    return RingValue(statuses=left, started=value.started, ended=value.ended, replays=value.replays)


def summed(heads: Iterable[RingRow]) -> RingValue:
    """The net counts of all workers. Raises msgspec.MsgspecError if a head is damaged."""
    total = RingValue()
    for row in heads:
        total.add_statuses(value_of(row))
    return total


def counts_in(value: RingValue) -> InstanceCounts:
    """The counts in one value, such as the sum over all workers."""
    counts: dict[str, int] = {}
    parked = 0
    for counted_as, count in value.statuses.items():
        status = counted_as.removesuffix(_PARKED)
        counts[status] = counts.get(status, 0) + count
        parked += count if counted_as.endswith(_PARKED) else 0
    return InstanceCounts({status: count for status, count in counts.items() if count}, parked)


def is_certain(heads: Iterable[RingRow]) -> bool:
    """Whether the counts are exact: no damaged instance was changed or purged since they were made.

    Raises msgspec.MsgspecError if a head is damaged.
    """
    return not sum(value_of(row).statuses.get(UNKNOWN, 0) for row in heads)


class Slot(NamedTuple):
    """What a worker counted in one minute or hour."""

    worker: str
    start: int  # microseconds
    value: RingValue


def slots_of(heads: Iterable[RingRow], rows: Iterable[RingRow], resolution: int, now: int) -> list[Slot]:
    """The minutes or hours that are kept, by ascending start, with the current one from the heads.

    Parameters:
        heads: the rows with the resolution `HEAD`.
        rows: the rows with this resolution.
        resolution: `MINUTE` or `HOUR`.
        now: the time in microseconds; older rows than those kept at this time are left out.
    """
    found: dict[tuple[int, str], RingValue] = {}
    for row in rows:
        found[row.start, row.worker] = value_of(row)
    for row in heads:
        head = value_of(row)
        place = floor_of(head.at, resolution), row.worker
        found.setdefault(place, RingValue()).add(head)
    least = oldest_kept(now, resolution)
    return [Slot(place[1], place[0], found[place]) for place in sorted(found) if place[0] >= least]


def base_of(by_status: Mapping[str, int], parked: Mapping[str, int]) -> RingRow:
    """The head of a hub that has instances and no ring yet, from true counts. `parked` are part of `by_status`."""
    statuses = {status: count - parked.get(status, 0) for status, count in by_status.items()}
    statuses |= {status + _PARKED: count for status, count in parked.items()}
    left = {key: count for key, count in statuses.items() if count}
    return RingRow("", HEAD, 0, 0, encode(RingValue(statuses=left)))


__all__ = [
    *(
        "BOUNDS",
        "HEAD",
        "HOUR",
        "KEPT",
        "MINUTE",
        "OTHER",
        "Ended",
        "UNKNOWN",
        "InstanceCounts",
        "Move",
        "RingRow",
    ),
    *(
        "RingValue",
        "Slot",
        "base_of",
        "counts_in",
        "counts_of",
        "encode",
        "floor_of",
        "is_certain",
        "key_of",
        "oldest_kept",
    ),
    *("slots_of", "summed", "value_of", "without_built_in"),
]
