"""Rewinding: a failed execution continues from an earlier place, and its history only grows.

A rewind appends one event, `ExecutionRewound`. From then on some earlier events are void: the end, the failures
of the named calls, and the decisions that the code made because of them. Everything else stays valid, so
completed calls are not repeated, open timers keep their time, and taken events stay taken. The calls with void
failures are open again under their old ids, and so under their old idempotency keys; `next_id` is above every
used id, so no other call can get a key that other systems have already seen. The code continues after the last
valid event, in the middle of its decisions about that arrival if necessary; from there its current time is that
of the rewind. Later arrivals with an open call, or that may still be awaited, are delivered again. Every reader
that interprets history (replay, `fold`, recovery) reads it through `counting`; the chain, the pages and the
exporters show all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from perdure.errors import TaskFailedError
from perdure.model import events as ev

Episode = tuple[int, list[ev.HistoryEvent]]

ARRIVALS: Final = (
    ev.ExecutionStarted,
    ev.TaskCompleted,
    ev.TaskFailed,
    ev.SubOrchestrationCompleted,
    ev.SubOrchestrationFailed,
    ev.TimerFired,
    ev.EventRaised,
    ev.EntityOperationCompleted,
    ev.EntityOperationFailed,
    ev.LockGranted,
)
NOT_REPLAYED: Final = (
    ev.ExecutionSuspended,
    ev.ExecutionResumed,
    ev.ExecutionParked,
    ev.ExecutionTerminated,
    ev.LoopHeld,
    ev.PatchMarked,
)
"""Events between decisions that the code does not repeat in the same place."""
RESULTS: Final = (ev.TaskCompleted, ev.SubOrchestrationCompleted, ev.EntityOperationCompleted)
FAILURES: Final = (ev.TaskFailed, ev.SubOrchestrationFailed, ev.EntityOperationFailed)
_UNSEEN: Final = (
    ev.ExecutionSuspended,
    ev.ExecutionResumed,
    ev.ExecutionParked,
    ev.ExecutionRewound,
    ev.LoopHeld,
)
_CALLS: Final = (ev.TaskScheduled, ev.SubOrchestrationCreated, ev.EntityCalled)


def is_rewound(episodes: Iterable[Episode]) -> bool:
    """Whether the execution was ever rewound."""
    return any(type(event) is ev.ExecutionRewound for _, events in episodes for event in events)


def counting(episodes: Sequence[Episode]) -> list[Episode]:
    """The valid history. Decisions after a rewind belong to the arrival from which it continues."""
    groups: list[Episode] = []
    row, goes_on = -1, False
    for _, number, event in _counted(episodes):
        if isinstance(event, ev.ExecutionRewound):
            goes_on = True
        elif isinstance(event, ARRIVALS):
            goes_on = False
        if number != row and not goes_on:
            row = number
            groups.append((episodes[number][0], []))
        groups[-1][1].append(event)
    return groups


def void(episodes: Sequence[Episode]) -> frozenset[int]:
    """The places (0 is the first event of the execution) of the void events."""
    whole = range(sum(len(events) for _, events in episodes))
    return frozenset(whole).difference(place for place, _, _ in _counted(episodes))


def _counted(episodes: Sequence[Episode]) -> list[tuple[int, int, ev.HistoryEvent]]:
    """(place, number of the episode, event) of the valid events."""
    kept: list[tuple[int, int, ev.HistoryEvent]] = []
    place = 0
    for number, (_, events) in enumerate(episodes):
        for event in events:
            if isinstance(event, ev.ExecutionRewound):
                kept = [one for one in kept[: event.kept] if not _is_voided(one[2], event)]
            kept.append((place, number, event))
            place += 1
    return kept


def _is_voided(event: ev.HistoryEvent, rewound: ev.ExecutionRewound) -> bool:
    return isinstance(event, FAILURES) and event.task_id in rewound.voided


def failed_calls(error: BaseException) -> tuple[int, ...]:
    """The ids of the failed calls that an exception reports, was caused by, or groups."""
    found: dict[int, None] = {}
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        cause = left.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        if isinstance(cause, TaskFailedError):
            found[cause.task_id] = None
            continue
        left.append(cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__))
        if isinstance(cause, BaseExceptionGroup):
            left.extend(reversed(cause.exceptions))
    return tuple(found)


# ------------------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class RewindPlan:
    """The plan of a rewind. `again` are the arrivals to deliver again, in order, `again_at` their times.

    `doubtful` are the places of failures that the code may have handled long before the end: they are voided
    only if history agrees. `end` is the place of the end.
    """

    kept: int
    next_id: int
    voided: tuple[int, ...]
    again: tuple[ev.Arrival, ...]
    again_at: tuple[int, ...]
    is_certain: bool
    places: tuple[int, ...]
    doubtful: frozenset[int]
    end: int

    def event(self, at: int, reason: str) -> ev.ExecutionRewound:
        return ev.ExecutionRewound(
            kept=self.kept, next_id=self.next_id, at=at, voided=self.voided, reason=reason
        )


def plan_of(episodes: Sequence[Episode]) -> RewindPlan:
    """Plan from history alone: the failures that ended the execution, and the place from which the code
    continues.

    The failures are those that the error reports, or, without any, those after the last result. If the code
    made a decision directly after one of them, everything from there on is void, because it depends on the
    failure. Before that place every failure without a decision after it is void, too: the code caught it, or
    had not seen it yet, while it waited for other tasks. Only a trial against the code
    (`perdure.engine.core.rewinding`) shows whether history would be the same without it, unless it is the only
    failure and came last.
    """
    events = _events(episodes)
    end = max(place for place, event in enumerate(events) if isinstance(event, ev.ExecutionFailed))
    failures = [p for p in range(end) if isinstance(events[p], FAILURES) and not _is_retried(events, p)]
    guilty = _named(events, end) or _behind_the_last_result(events, failures, end)
    kept = min((place for place in guilty if _is_answered(events, place)), default=end)
    quiet = [place for place in failures if place < kept and not _is_answered(events, place)]
    places = sorted({*quiet, *(place for place in guilty if place <= kept)})
    alone_and_last = len(places) == 1 and (kept < end or _following(events, places[0]) == end)
    return _plan(
        episodes,
        kept,
        end,
        places,
        is_certain=alone_and_last or not places,
        doubtful=frozenset(quiet).difference(guilty),
    )


def with_fewer(plan: RewindPlan, episodes: Sequence[Episode], arrival: ev.Arrival) -> RewindPlan | None:
    """The same plan without the doubtful failures before this arrival, where the code differs; None if there
    are none.
    """
    differs_at = next(place for place, event in enumerate(_events(episodes)) if event is arrival)
    blamed = {place for place in plan.doubtful if place < differs_at}
    if not blamed:
        return None
    places = [place for place in plan.places if place not in blamed]
    return _plan(episodes, plan.kept, plan.end, places, is_certain=False, doubtful=plan.doubtful - blamed)


def shortened(
    plan: RewindPlan, episodes: Sequence[Episode], arrival: ev.Arrival, repeated: int
) -> RewindPlan:
    """The same plan with fewer events kept: the code repeats only `repeated` decisions after this arrival."""
    events = _events(episodes)
    kept = next((place for place, event in enumerate(events, 1) if event is arrival), plan.kept)
    while kept < plan.kept and not isinstance(events[kept], ARRIVALS):
        if not isinstance(events[kept], NOT_REPLAYED):
            if not repeated:
                break
            repeated -= 1
        kept += 1
    return _plan(episodes, kept, plan.end, plan.places, is_certain=True, doubtful=plan.doubtful)


def _events(episodes: Sequence[Episode]) -> list[ev.HistoryEvent]:
    return [event for _, _, event in _counted(episodes)]


def _plan(
    episodes: Sequence[Episode],
    kept: int,
    end: int,
    places: Sequence[int],
    *,
    is_certain: bool,
    doubtful: frozenset[int],
) -> RewindPlan:
    counted = _counted(episodes)
    events = [event for _, _, event in counted]
    calls = {event.id for event in events[:kept] if isinstance(event, _CALLS)}
    again = [
        (event, episodes[number][0])
        for _, number, event in counted[kept:end]
        if isinstance(event, ev.EventRaised) or (isinstance(event, RESULTS) and event.task_id in calls)
    ]  # no timers: a due timer fires by itself
    given_up = (e.task_id for e in events[kept:end] if isinstance(e, FAILURES) and e.task_id in calls)
    voided = dict.fromkeys([*(events[place].task_id for place in places), *given_up])  # type: ignore[union-attr]
    used = max((_highest(event) for _, whole in episodes for event in whole), default=-1)
    return RewindPlan(
        kept=kept,
        next_id=used + 1,
        voided=tuple(voided),
        again=tuple(event for event, _ in again),
        again_at=tuple(at for _, at in again),
        is_certain=is_certain,
        places=tuple(places),
        doubtful=doubtful,
        end=end,
    )


def _highest(event: ev.HistoryEvent) -> int:
    """The highest id that an event shows to be in use."""
    number: int = event.next_id - 1 if isinstance(event, ev.ExecutionRewound) else getattr(event, "id", -1)
    return number


def _named(events: list[ev.HistoryEvent], end: int) -> list[int]:
    """The places of the failures that the final error reports."""
    ending = events[end]
    assert isinstance(ending, ev.ExecutionFailed)
    named = {ending.of, *ending.others}
    last = {
        event.task_id: place
        for place, event in enumerate(events[:end])
        if isinstance(event, FAILURES) and event.task_id in named
    }
    return sorted(last.values())


def _behind_the_last_result(events: list[ev.HistoryEvent], failures: list[int], end: int) -> list[int]:
    """The failures after the last result, for code that failed by itself, perhaps because it counted failures.

    Of the failures with decisions only the last one counts: the code handled the others. Histories written
    before `of` was recorded contain no more than this.
    """
    result = max((place for place in range(end) if isinstance(events[place], RESULTS)), default=-1)
    last = max((place for place in range(end) if isinstance(events[place], ARRIVALS)), default=-1)
    return [
        place for place in failures if place > result and (place == last or not _is_answered(events, place))
    ]


def _following(events: list[ev.HistoryEvent], place: int) -> int:
    """The place of the next event: a decision about it, another arrival, or the end."""
    return next(p for p in range(place + 1, len(events)) if not isinstance(events[p], _UNSEEN))


def _is_answered(events: list[ev.HistoryEvent], place: int) -> bool:
    """Whether the code made a decision about this arrival, other than to end."""
    return not isinstance(events[_following(events, place)], (*ARRIVALS, ev.ExecutionFailed))


def _is_retried(events: list[ev.HistoryEvent], place: int) -> bool:
    """Whether a policy retried the call, so that this attempt no longer matters."""
    answer = events[_following(events, place)]
    return isinstance(answer, ev.TimerCreated) and answer.purpose == "retry"


__all__ = [
    "ARRIVALS",
    "FAILURES",
    "RewindPlan",
    "counting",
    "failed_calls",
    "is_rewound",
    "plan_of",
    "shortened",
    "void",
    "with_fewer",
]
