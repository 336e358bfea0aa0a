"""Compares the code's actions with recorded history, and explains a mismatch.

Kind, name and id are compared. Inputs and durations are not: after a deployment the code may compute another
input or another deadline; history's version counts.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from perdure.errors import EngineSignal, MisfitError, NonDeterminismError, PayloadError
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.actions import Action

COUNTERPART: Final[dict[type, type]] = {
    act.ScheduleTask: ev.TaskScheduled,
    act.CancelTask: ev.TaskCanceled,
    act.CreateSubOrchestration: ev.SubOrchestrationCreated,
    act.CreateTimer: ev.TimerCreated,
    act.CancelTimer: ev.TimerCanceled,
    act.AwaitEvent: ev.EventAwaited,
    act.CancelWait: ev.WaitCanceled,
    act.TakeEvent: ev.EventTaken,
    act.RejectEvent: ev.EventRejected,
    act.CallEntity: ev.EntityCalled,
    act.SignalEntity: ev.EntitySignaled,
    act.RequestLock: ev.LockRequested,
    act.ReleaseLock: ev.LockReleased,
    act.MarkPatch: ev.PatchMarked,
    act.CompleteOrchestration: ev.ExecutionCompleted,
    act.FailOrchestration: ev.ExecutionFailed,
    act.ContinueAsNew: ev.ContinuedAsNew,
}
"""The history event of each action."""

COMPARED: Final[dict[type, tuple[str, ...]]] = {
    ev.TaskScheduled: ("id", "name"),
    ev.TaskCanceled: ("task_id",),
    ev.SubOrchestrationCreated: ("id", "name"),
    ev.TimerCreated: ("id", "purpose"),
    ev.TimerCanceled: ("timer_id",),
    ev.EventAwaited: ("id", "name"),
    ev.WaitCanceled: ("wait_id",),
    ev.EventTaken: ("wait_id", "event"),
    ev.EventRejected: ("wait_id",),
    ev.EntityCalled: ("id", "entity", "operation"),
    ev.EntitySignaled: ("id", "entity", "operation"),
    ev.LockRequested: ("id", "entities"),
    ev.LockReleased: ("lock_id",),
    ev.PatchMarked: ("name",),
    ev.ExecutionCompleted: (),
    ev.ExecutionFailed: (),
    ev.ContinuedAsNew: (),
}
"""The fields of action and event that must match."""

_WORDS: Final[dict[type, str]] = {
    ev.TaskScheduled: "call the activity",
    ev.TaskCanceled: "cancel an activity",
    ev.SubOrchestrationCreated: "call the sub-orchestration",
    ev.TimerCreated: "create a timer",
    ev.TimerCanceled: "cancel a timer",
    ev.EventAwaited: "wait for the event",
    ev.WaitCanceled: "stop waiting for an event",
    ev.EventTaken: "take an event",
    ev.EventRejected: "reject an event",
    ev.EntityCalled: "call the entity",
    ev.EntitySignaled: "signal the entity",
    ev.LockRequested: "enter a critical section over",
    ev.LockReleased: "leave a critical section",
    ev.PatchMarked: "mark the patch",
    ev.ExecutionCompleted: "complete",
    ev.ExecutionFailed: "fail",
    ev.ContinuedAsNew: "continue as new",
}


class Mismatch(EngineSignal):
    """Raised through user code, which must not be able to catch it; `error` is reported."""

    def __init__(self, error: NonDeterminismError) -> None:
        super().__init__(str(error))
        self.error = error


def misfit(whose: str, expected_type: Any, error: PayloadError) -> Mismatch:
    """The error for a payload that does not fit the type in the code. `whose` names the payload."""
    missing = _MISSING.search(str(error))
    cure = (
        f"give {missing[1] or missing[2]!r} a default"
        if missing
        else "change the type to accept this value too"
    )
    unchecked = ", or no worker was running to check its start" if whose == "the input" else ""
    return Mismatch(
        MisfitError(
            f"{whose}: {error}. Usual cause: the type was changed while this instance was running{unchecked}. "
            f"To fix it, {cure}, or deploy the code this instance started with. The instance continues when a worker "
            "starts, or when you resume it",
            payload=whose,
            wanted=payload.title(expected_type),
            pointer=error.pointer,
            reason=str(error),
        )
    )


_MISSING = re.compile(
    r"missing required field `([^`]+)`|Field required(?: \(and \d+ more\))?, at (?:.*/)?([^/]+)$"
)


def agree(action: Action, recorded: Any) -> bool:
    """Whether an action matches the recorded one."""
    if COUNTERPART[type(action)] is not type(recorded):
        return False
    return all(getattr(action, name) == getattr(recorded, name) for name in COMPARED[type(recorded)])


def agree_but_for_name(action: Action, recorded: Any) -> bool:
    """Whether only the function's name differs."""
    if COUNTERPART[type(action)] is not type(recorded) or "name" not in COMPARED[type(recorded)]:
        return False
    rest = (name for name in COMPARED[type(recorded)] if name != "name")
    return all(getattr(action, name) == getattr(recorded, name) for name in rest)


def mismatch(expected: Any | None, found: Action | None) -> Mismatch:
    """The error for an action that history lacks, or for a recorded one that the code did not repeat."""
    want = _phrase(expected) if expected is not None else "nothing more before the next event arrived"
    have = _phrase(found) if found is not None else "it did nothing more"
    where = source_line()
    at = f" at {where}" if where else ""
    return Mismatch(
        NonDeterminismError(
            f"history says the orchestrator went on to {want}; the code now does: {have}{at}. "
            f"Usual cause: {_cure(expected, found)}",
            expected=want,
            found=have,
            where=where,
        )
    )


def _phrase(thing: Any) -> str:
    kind = COUNTERPART.get(type(thing), type(thing))
    words = _WORDS.get(kind, kind.__name__)
    name = getattr(thing, "name", "") or _of_entities(thing)
    number = getattr(thing, "id", None)
    return f"{words}{f' {name!r}' if name else ''}{f' (id {number})' if number is not None else ''}"


def _of_entities(thing: Any) -> str:
    """The name in an action or event about entities: the entity with its operation, or several."""
    if hasattr(thing, "entities"):
        return ", ".join(thing.entities)
    return f"{thing.entity} {thing.operation}" if hasattr(thing, "operation") else ""


def _cure(expected: Any | None, found: Action | None) -> str:
    if expected is None or found is None:
        return (
            "calls were added or removed while this instance was running, or code before this point depends "
            "on time, randomness or the environment. Deploy the code this instance started with, or keep the "
            "old path for running instances behind context.patched(...), then resume it"
        )
    if COUNTERPART[type(found)] is type(expected) and getattr(found, "name", 0) != getattr(
        expected, "name", 0
    ):
        return (
            "a function was renamed, or calls changed their order. Restore the order (or register the "
            "function under its old name with name=...), deploy, then resume the instance"
        )
    return (
        "calls changed their order or kind while this instance was running; or a set, time.time(), uuid4() "
        "or an environment variable decides the order. Restore it, or use context.random(), new_uuid(), "
        "current_utc_datetime; deploy, then resume the instance"
    )


def source_line() -> str:
    """File and line of the user's code that is running, or "" when there is none."""
    frame = sys._getframe(1)
    package = __name__.rsplit(".", 2)[0] + "."
    current: Any = frame
    while current is not None:
        module = str(current.f_globals.get("__name__", ""))
        if not module.startswith(package):
            code = current.f_code
            return f"{code.co_filename}:{current.f_lineno} in {code.co_name}"
        if module == f"{package}replay.decide" and current is not frame:
            return ""
        current = current.f_back
    return ""
