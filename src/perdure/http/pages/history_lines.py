"""Formats history as lines for people: the event, its subject and its data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.model import events as ev
from perdure.model.durations import instant, moment
from perdure.model.events import BODY_FIELD, HistoryEvent, decode_events
from perdure.model.waiting import clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perdure.model.instances import OrchestrationStatus

BAD = (
    ev.TaskFailed,
    ev.SubOrchestrationFailed,
    ev.EntityOperationFailed,
    ev.ExecutionFailed,
    ev.EventRejected,
    ev.ExecutionParked,
    ev.LoopHeld,
)


def events_of(status: OrchestrationStatus) -> list[tuple[int, HistoryEvent]]:
    """The history of a status as typed events, each with its time in microseconds."""
    history = status.history or []
    typed = decode_events(msgspec.json.encode(history))
    times = [instant(datetime.fromisoformat(one["timestamp"])) for one in history]
    return list(zip(times, typed, strict=True))


@dataclass(frozen=True)
class HistoryLine:
    """One event of a history. `tone` is bad, decision or plain. `body` is the data, or None."""

    number: int
    at: datetime
    kind: str
    tone: str
    about: str
    body: Any = None


def lines_of(
    history: Iterable[tuple[int, HistoryEvent]], since: int = 0, until: int | None = None
) -> list[HistoryLine]:
    """One line for each event from number `since` to `until`. One that completes another shows its name."""
    names: dict[int, str] = {}
    lines: list[HistoryLine] = []
    for number, (at, event) in enumerate(history):
        if until is not None and number >= until:
            break
        if isinstance(event, (ev.TaskScheduled, ev.SubOrchestrationCreated, ev.EventAwaited)):
            names[event.id] = event.name
        elif isinstance(event, ev.EntityCalled):
            names[event.id] = _to_entity(event, names)
        elif isinstance(event, ev.TimerCreated):
            names[event.id] = _purpose(event, names) or "timer"
        elif isinstance(event, ev.LockRequested):
            names[event.id] = f"lock of {', '.join(event.entities)}"
        if number >= since:
            lines.append(_line(number, at, event, names))
    return lines


def _line(number: int, at: int, event: HistoryEvent, names: Names) -> HistoryLine:
    about = _ABOUT[type(event)](event, names)
    return HistoryLine(number, moment(at), type(event).__name__, _tone(event), about, _body(event))


def _tone(event: HistoryEvent) -> str:
    if isinstance(event, BAD):
        return "bad"
    return "decision" if isinstance(event, ev.Decision) else "plain"


def _body(event: HistoryEvent) -> Any:
    field = BODY_FIELD.get(type(event))
    raw = bytes(getattr(event, field)) if field else b""
    return msgspec.json.decode(raw) if raw else None


Names = dict[int, str]


def _named(event: Any, names: Names) -> str:
    return str(event.name)


def _called(event: Any, names: Names) -> str:
    again = f", attempt {event.attempt}" if event.attempt > 1 else ""
    return f"{event.name}{again}"


def _answered(event: Any, names: Names) -> str:
    return names.get(event.task_id, f"call {event.task_id}")


def _failed(event: Any, names: Names) -> str:
    return f"{_answered(event, names)}: {event.failure}"


def _purpose(event: ev.TimerCreated, names: Names) -> str:
    of = names.get(event.of, f"call {event.of}")
    return {
        "retry": f"pause before the retry of {of}",
        "timeout": f"time limit of {of}",
        "remind": f"reminder of {of}",
        "escalate": f"escalation of {of}",
    }.get(event.purpose, "")


def _timer(event: ev.TimerCreated, names: Names) -> str:
    return ", ".join(filter(None, (_purpose(event, names), f"due {clock(event.fire_at)}")))


def _to_entity(event: ev.EntityCalled | ev.EntitySignaled, names: Names) -> str:
    at = f", at {clock(event.at)}" if isinstance(event, ev.EntitySignaled) and event.at else ""
    return f"{event.operation} of {event.entity}{at}"


def _section(event: ev.LockRequested, names: Names) -> str:
    return ", ".join(event.entities)


def _granted(event: ev.LockGranted, names: Names) -> str:
    return event.entity


def _released(event: ev.LockReleased, names: Names) -> str:
    return names.get(event.lock_id, f"lock {event.lock_id}")


def _operated(event: ev.EntityOperated, names: Names) -> str:
    times = f" {event.count} times" if event.count > 1 else ""
    sender = f" for {event.sender}" if event.sender else ""
    failed = f"; {event.failed} failed: {event.failure}" if event.failed else ""
    return f"{event.operation}{times}{sender}{failed}"


def _timer_id(event: Any, names: Names) -> str:
    return names.get(event.timer_id, "timer")


def _awaited(event: ev.EventAwaited, names: Names) -> str:
    return f"{event.name}, until {clock(event.deadline)}" if event.deadline else event.name


def _wait_id(event: Any, names: Names) -> str:
    return names.get(event.wait_id, f"wait {event.wait_id}")


def _rejected(event: ev.EventRejected, names: Names) -> str:
    return f"{event.name}: {event.reason}"


def _reason(event: Any, names: Names) -> str:
    return str(event.reason)


def _parked(event: ev.ExecutionParked, names: Names) -> str:
    return f"{event.kind}: {event.detail}"


def _held(event: ev.LoopHeld, names: Names) -> str:
    return f"blocked the engine for {event.milliseconds / 1_000:.1f} s{event.place}"


def _rewound(event: ev.ExecutionRewound, names: Names) -> str:
    again = ", ".join(names.get(task_id, f"call {task_id}") for task_id in event.voided)
    return "; ".join(filter(None, (event.reason, f"{again} again" if again else "")))


def _ended_badly(event: ev.ExecutionFailed, names: Names) -> str:
    return str(event.failure)


def _nothing(event: Any, names: Names) -> str:
    return ""


_ABOUT: dict[type, Callable[[Any, Names], str]] = {
    ev.ExecutionStarted: _named,
    ev.TaskScheduled: _called,
    ev.TaskCompleted: _answered,
    ev.TaskFailed: _failed,
    ev.TaskCanceled: _answered,
    ev.SubOrchestrationCreated: _called,
    ev.SubOrchestrationCompleted: _answered,
    ev.SubOrchestrationFailed: _failed,
    ev.TimerCreated: _timer,
    ev.TimerFired: _timer_id,
    ev.TimerCanceled: _timer_id,
    ev.EventAwaited: _awaited,
    ev.EventRaised: _named,
    ev.WaitCanceled: _wait_id,
    ev.EventTaken: _wait_id,
    ev.EventRejected: _rejected,
    ev.EntityCalled: _to_entity,
    ev.EntitySignaled: _to_entity,
    ev.EntityOperationCompleted: _answered,
    ev.EntityOperationFailed: _failed,
    ev.LockRequested: _section,
    ev.LockGranted: _granted,
    ev.LockReleased: _released,
    ev.EntityOperated: _operated,
    ev.ExecutionSuspended: _reason,
    ev.ExecutionResumed: _reason,
    ev.ExecutionTerminated: _reason,
    ev.ExecutionParked: _parked,
    ev.ExecutionRewound: _rewound,
    ev.LoopHeld: _held,
    ev.PatchMarked: _named,
    ev.ExecutionCompleted: _nothing,
    ev.ExecutionFailed: _ended_badly,
    ev.ContinuedAsNew: _nothing,
}
