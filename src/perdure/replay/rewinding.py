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
    ev.PatchMarked,
)
"""What stands between decisions without being asked for again in that place."""
RESULTS: Final = (ev.TaskCompleted, ev.SubOrchestrationCompleted, ev.EntityOperationCompleted)
FAILURES: Final = (ev.TaskFailed, ev.SubOrchestrationFailed, ev.EntityOperationFailed)
_UNSEEN: Final = (ev.ExecutionSuspended, ev.ExecutionResumed, ev.ExecutionParked, ev.ExecutionRewound)
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


def failed_call(error: BaseException) -> int:
    """The id of the call whose failure an exception reports or was caused by; -1 when there is none."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, TaskFailedError):
            return cause.task_id
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return -1


# ------------------------------------------------------------------------------------------------- planning


@dataclass(frozen=True)
class Plan:
    """How a failed execution is to be rewound. `again` are the arrivals to be delivered again, in order."""

    kept: int
    next_id: int
    voided: tuple[int, ...]
    again: tuple[ev.Arrival, ...]
    is_certain: bool

    def event(self, at: int, reason: str) -> ev.ExecutionRewound:
        return ev.ExecutionRewound(
            kept=self.kept, next_id=self.next_id, at=at, voided=self.voided, reason=reason
        )


def plan_of(episodes: Sequence[Episode]) -> Plan:
    """From history alone: which failure ended it, and from where the code goes on without it.

    When the code decided something directly behind that failure, everything from there on is given up, because it
    would not have happened. Otherwise all of it stays: that is certain when the failure came last, and has to be
    tried against the code (`perdure.engine.rewinding`) when other arrivals lie between.
    """
    events = _events(episodes)
    end = max(place for place, event in enumerate(events) if isinstance(event, ev.ExecutionFailed))
    failure = _failure_behind(events, end)
    if failure is None:
        return _plan(events, episodes, end, end, ())
    answered = next(
        (p for p in range(failure + 1, end) if not isinstance(events[p], _UNSEEN)), end
    )  # what stands next to it: a decision about it, another arrival, or the end
    kept = failure if answered < end and not isinstance(events[answered], ARRIVALS) else end
    voided = (events[failure].task_id,)  # type: ignore[union-attr]
    certain = kept == failure or answered == end
    return _plan(events, episodes, kept, end, voided, is_certain=certain)


def shortened(plan: Plan, episodes: Sequence[Episode], arrival: ev.Arrival, repeated: int) -> Plan:
    """The same plan with fewer events kept: the code repeats only so many decisions behind this arrival."""
    events = _events(episodes)
    kept = next((place for place, event in enumerate(events, 1) if event is arrival), plan.kept)
    while kept < plan.kept and not isinstance(events[kept], ARRIVALS):
        if not isinstance(events[kept], NOT_REPLAYED):
            if not repeated:
                break
            repeated -= 1
        kept += 1
    return _plan(events, episodes, kept, plan.kept, plan.voided)


def _events(episodes: Sequence[Episode]) -> list[ev.HistoryEvent]:
    return [event for _, _, event in _counted(episodes)]


def _plan(
    events: list[ev.HistoryEvent],
    episodes: Sequence[Episode],
    kept: int,
    end: int,
    voided: tuple[int, ...],
    *,
    is_certain: bool = True,
) -> Plan:
    calls = {event.id for event in events[:kept] if isinstance(event, _CALLS)}
    again = tuple(
        event
        for event in events[kept:end]
        if isinstance(event, ev.EventRaised) or (isinstance(event, RESULTS) and event.task_id in calls)
    )  # no timers: one that is due fires by itself
    used = max((_highest(event) for _, whole in episodes for event in whole), default=-1)
    return Plan(kept, used + 1, voided, again, is_certain)


def _highest(event: ev.HistoryEvent) -> int:
    """The highest id that an event shows to be in use."""
    number: int = event.next_id - 1 if isinstance(event, ev.ExecutionRewound) else getattr(event, "id", -1)
    return number


def _failure_behind(events: list[ev.HistoryEvent], end: int) -> int | None:
    """Where the failure stands that ended the execution; None when the code failed by itself.

    Histories written before `of` was recorded do not tell: there it is the last arrival, if that is a failure.
    """
    ending = events[end]
    assert isinstance(ending, ev.ExecutionFailed)
    last = next((p for p in range(end - 1, -1, -1) if isinstance(events[p], ARRIVALS)), None)
    if ending.of < 0:
        return last if last is not None and isinstance(events[last], FAILURES) else None
    return next(
        (
            place
            for place in range(end - 1, -1, -1)
            if isinstance(event := events[place], FAILURES) and event.task_id == ending.of
        ),
        None,
    )


__all__ = [
    "ARRIVALS",
    "FAILURES",
    "Plan",
    "counting",
    "failed_call",
    "is_rewound",
    "plan_of",
    "shortened",
    "void",
]
