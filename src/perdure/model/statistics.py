"""The statistics of a hub for the last hour or day, made from the ring: no instance is read.

See `perdure.model.ring` for what the ring keeps. Durations are estimates, because the ring counts them in buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from perdure.model.durations import moment
from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import FINISHED, RuntimeStatus
from perdure.model.ring import (
    BOUNDS,
    HOUR,
    MINUTE,
    Ended,
    InstanceCounts,
    RingValue,
    Slot,
    counts_in,
    floor_of,
    without_built_in,
)

Window = Literal["hour", "day"]
WINDOWS: Final[Mapping[Window, tuple[int, int]]] = {"hour": (MINUTE, 60), "day": (HOUR, 24)}
"""The seconds of an interval, and the number of intervals."""
_SECOND: Final = 1_000_000


class HubOutcomes(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What instances did in some time.

    `p50` and `p95` are durations in seconds, from start to end; None if no instance ended.
    """

    started: int = 0
    completed: int = 0
    failed: int = 0
    terminated: int = 0
    p50: float | None = None
    p95: float | None = None

    @property
    def ended(self) -> int:
        """How many instances ended, whatever the outcome."""
        return self.completed + self.failed + self.terminated


class HubInterval(HubOutcomes, frozen=True, kw_only=True, rename="camel"):
    """One minute or hour. `unfinished`, `pending` and `parked` count instances at its end.

    `replays` is how often a worker recreated the code of an instance from its history.
    """

    start: datetime
    unfinished: int = 0
    pending: int = 0
    parked: int = 0
    replays: int = 0


class HubStatistics(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the instances of a hub did in the last hour or day, and how many there are now.

    `counts` are the instances in each status now, and `parked` the parked ones among them. `intervals` are the
    minutes of the hour or the hours of the day, oldest first; the last one is not over. `total` sums them up, and
    `orchestrators` does for each orchestrator. perdure's own orchestrations, such as those of schedules, are
    counted only if they are parked.
    """

    window: Window
    seconds: int
    counts: dict[str, int]
    parked: int
    intervals: list[HubInterval]
    total: HubOutcomes
    orchestrators: dict[str, HubOutcomes]


def statistics_of(window: Window, slots: Sequence[Slot], counts: InstanceCounts, now: int) -> HubStatistics:
    """The statistics of a window.

    Parameters:
        slots: what each worker counted, by ascending start; see `slots_of`.
        counts: the instances now.
        now: microseconds.
    """
    seconds, many = WINDOWS[window]
    last = max([floor_of(now, seconds), *(slot.start for slot in slots[-1:])])
    starts = [last - back * seconds * _SECOND for back in reversed(range(many))]
    inside = [slot for slot in slots if slot.start >= starts[0]]
    present = _net_counts(slots, starts, counts)
    return HubStatistics(
        window=window,
        seconds=seconds,
        counts=counts.by_status,
        parked=counts.parked,
        intervals=[
            _interval(start, [slot.value for slot in inside if slot.start == start], there)
            for start, there in zip(starts, present, strict=True)
        ],
        total=_outcomes_of([slot.value for slot in inside]),
        orchestrators=_by_orchestrator([slot.value for slot in inside]),
    )


def _interval(start: int, values: Sequence[RingValue], there: InstanceCounts) -> HubInterval:
    outcomes = _outcomes_of(values)
    return HubInterval(
        start=moment(start),
        unfinished=sum(n for status, n in there.by_status.items() if RuntimeStatus(status) not in FINISHED),
        pending=there.by_status.get(RuntimeStatus.Pending.value, 0),
        parked=there.parked,
        replays=sum(value.replays for value in values),
        **msgspec.structs.asdict(outcomes),
    )


def _net_counts(slots: Sequence[Slot], starts: Sequence[int], now: InstanceCounts) -> list[InstanceCounts]:
    """The instances at the end of each interval.

    A worker's counts hold until its next row. Before its first row they are those of that row, unless all of its
    instances began in it.
    """
    by_worker: dict[str, list[Slot]] = {}
    for slot in slots:
        by_worker.setdefault(slot.worker, []).append(slot)
    found = []
    for start in starts[:-1]:
        there = RingValue()
        for own in by_worker.values():
            earlier = [slot for slot in own if slot.start <= start]
            if earlier or not _began_with(own[0].value):
                there.add_statuses(without_built_in((earlier[-1] if earlier else own[0]).value))
        found.append(counts_in(there))
    return [*found, now]


def _began_with(first: RingValue) -> bool:
    """Whether nothing was unfinished before a row: it counts the starts of all that is."""
    counts = counts_in(first).by_status
    unfinished = sum(n for status, n in counts.items() if RuntimeStatus(status) not in FINISHED)
    ended = sum(one.count for outcomes in first.ended.values() for one in outcomes.values())
    return sum(first.started.values()) - ended >= unfinished


def _by_orchestrator(values: Sequence[RingValue]) -> dict[str, HubOutcomes]:
    names = {name for value in values for name in (*value.started, *value.ended)}
    return {name: _outcomes_of(values, name) for name in sorted(names) if not name.startswith(BUILT_IN)}


def _outcomes_of(values: Iterable[RingValue], only: str | None = None) -> HubOutcomes:
    started = 0
    ended: dict[str, Ended] = {}
    for value in values:
        started += sum(count for name, count in value.started.items() if _is_meant(name, only))
        for name, outcomes in value.ended.items():
            for status, one in outcomes.items() if _is_meant(name, only) else ():
                ended.setdefault(status, Ended()).add(one)
    lifetimes = Ended()
    for one in ended.values():
        lifetimes.add(one)
    return HubOutcomes(
        started=started,
        completed=_count(ended, RuntimeStatus.Completed),
        failed=_count(ended, RuntimeStatus.Failed),
        terminated=_count(ended, RuntimeStatus.Terminated),
        p50=quantile(lifetimes, 0.5),
        p95=quantile(lifetimes, 0.95),
    )


def _is_meant(name: str, only: str | None) -> bool:
    return name == only if only is not None else not name.startswith(BUILT_IN)


def _count(ended: Mapping[str, Ended], status: RuntimeStatus) -> int:
    return ended[status.value].count if status.value in ended else 0


def quantile(ended: Ended, share: float) -> float | None:
    """The duration in seconds that this share of the instances did not exceed, estimated from the buckets."""
    if not ended.count:
        return None
    wanted, below = share * ended.count, 0
    for place in sorted(ended.buckets):
        inside = ended.buckets[place]
        if below + inside >= wanted:
            least = BOUNDS[place - 1] if place else 0.0
            most = BOUNDS[place] if place < len(BOUNDS) else least
            return least + (most - least) * (wanted - below) / inside
        below += inside
    return BOUNDS[-1]


__all__ = ["WINDOWS", "HubInterval", "HubOutcomes", "HubStatistics", "Window", "quantile", "statistics_of"]
