"""Rewinding: a failed execution goes on from where it can, and its history only grows.

Rewinding appends one event, `ExecutionRewound`. From then on some of the events before it no longer count: the
end, the failures of the calls it names, and whatever the code decided because of them. Everything else still does,
so completed calls are not made again, open timers keep their time, and events that were taken stay taken.
The calls whose failures no longer count are open again under their old ids, and so under their old idempotency keys;
`next_id` lies above every id ever used, so no other call can get a key that the outside has seen already.
The code goes on behind the last event that counts, in the middle of what it did about that arrival if need be;
from there its present time is that of the rewind. Arrivals that lay behind that place and still have an open
call or may still be awaited are delivered again.
Everything that reads history for its meaning (replay, `fold`, recovery) reads it through `counting`; the chain,
the pages and the exporters show all of it.
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
"""What stands between decisions without being asked for again in that place."""
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
    """The history as it counts. What was decided behind a rewind belongs to the arrival it goes on from."""
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
    """The places (0 is the first event of the execution) of the events that no longer count."""
    whole = range(sum(len(events) for _, events in episodes))
    return frozenset(whole).difference(place for place, _, _ in _counted(episodes))


def _counted(episodes: Sequence[Episode]) -> list[tuple[int, int, ev.HistoryEvent]]:
    """(place, number of the episode, event) of what counts."""
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
    """The ids of the calls whose failures an exception reports, was caused by, or holds as a group."""
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
    """How a failed execution is to be rewound. `again` are the arrivals to be delivered again, in order, `again_at`
    the times at which they came.

    `doubtful` are the places of failures that the code may have got over long before the end: they are voided only
    if history agrees with that. `end` is the place of the end.
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
    """From history alone: which failures ended it, and from where the code goes on without them.

    Those are the failures that the error tells of. If it tells of none, they are those that came after the last
    result. When the code decided something directly behind one of them, everything from there on is given up, because
    it would not have happened. Before that place every failure that the code met without deciding anything is void,
    too: it was caught, or not looked at yet, while others were waited for. Whether history would be the same without
    it has to be tried against the code (`perdure.engine.core.rewinding`), unless it is the one failure and came last.
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
    """The same plan without the doubtful failures before this arrival, where the code differs; None without such."""
    differs_at = next(place for place, event in enumerate(_events(episodes)) if event is arrival)
    blamed = {place for place in plan.doubtful if place < differs_at}
    if not blamed:
        return None
    places = [place for place in plan.places if place not in blamed]
    return _plan(episodes, plan.kept, plan.end, places, is_certain=False, doubtful=plan.doubtful - blamed)


def shortened(
    plan: RewindPlan, episodes: Sequence[Episode], arrival: ev.Arrival, repeated: int
) -> RewindPlan:
    """The same plan with fewer events kept: the code repeats only so many decisions behind this arrival."""
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
    ]  # no timers: one that is due fires by itself
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
    """Where the failures stand that the error tells of which ended the execution."""
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
    """The code failed by itself, perhaps for the failures that it has counted: those with no result behind them.

    Of those that it answered only what came last is meant: it got over the others, and went on. Histories written
    before `of` was recorded tell no more than this, either.
    """
    result = max((place for place in range(end) if isinstance(events[place], RESULTS)), default=-1)
    last = max((place for place in range(end) if isinstance(events[place], ARRIVALS)), default=-1)
    return [
        place for place in failures if place > result and (place == last or not _is_answered(events, place))
    ]


def _following(events: list[ev.HistoryEvent], place: int) -> int:
    """What stands next to it: a decision about it, another arrival, or the end."""
    return next(p for p in range(place + 1, len(events)) if not isinstance(events[p], _UNSEEN))


def _is_answered(events: list[ev.HistoryEvent], place: int) -> bool:
    """Whether the code decided something about this arrival, other than to end."""
    return not isinstance(events[_following(events, place)], (*ARRIVALS, ev.ExecutionFailed))


def _is_retried(events: list[ev.HistoryEvent], place: int) -> bool:
    """Whether a policy tried the call again: then this attempt is over."""
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
