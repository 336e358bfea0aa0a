"""Parking: sets an instance aside with a visible reason, and keeps the message that it could not process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.model import events as ev
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import (
    ActivityResult,
    Begin,
    ChildResult,
    CompleteTask,
    EntityResult,
    LockGrant,
    Message,
    RaiseEvent,
    accepted,
)
from perdure.model.waiting import reason_of

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus


def note(batch: OpenBatch, instance: Instance, event: Any) -> None:
    """Add a control event, which the code never sees."""
    outcome = instance.episode(batch.now)
    outcome.events.append(event)
    batch.fed(instance)


def park(batch: OpenBatch, instance: Instance, kind: str, detail: str) -> None:
    """Park the instance. `resume` retries it, and for some kinds also the start of a worker."""
    reason = reason_of(kind, detail)[:4_000]
    if instance.reason == reason:
        return
    instance.put_away(batch.running)
    if kind == "no_worker" and not instance.episodes and instance.outcome is None:
        instance.status = S.Pending
    else:
        note(batch, instance, ev.ExecutionParked(kind=kind, detail=detail[:4_000]))
        instance.status = S.Suspended
    instance.reason = reason
    instance.due_at = None
    batch.touch(instance)
    # A worker's start retries the instance. If the cause is still there, receivers know of it already.
    if batch.announcing is not None and batch.retried.get(instance.instance_id) != reason:
        batch.announcing.parked(batch, instance, kind, detail)
    batch.released.parked.append((instance.instance_id, reason, instance.name))


def is_set_aside(instance: Instance) -> bool:
    """Whether the instance is suspended, or waits for a worker that can run it."""
    return instance.status is S.Suspended or (instance.status is S.Pending and bool(instance.reason))


_KEPT = ("name", "input", "operation_id", "trace", "decided_by", "roles")


def set_back(batch: OpenBatch, instance: Instance, arrival: ev.Arrival, kind: str, detail: str) -> None:
    """Undo an arrival that the code cannot process, keep its message, and park the instance."""
    outcome = instance.outcome
    assert outcome is not None
    if outcome.events and outcome.events[-1] is arrival:
        outcome.events.pop()
    if not outcome.events:
        instance.outcome = None
    instance.put_away(batch.running)
    if isinstance(arrival, (ev.TaskCompleted, ev.TaskFailed)):
        instance.open_local += 1  # the activity is open again, and its result waits here
    message = message_of(arrival, instance.instance_id, instance.execution_id)
    if message is not None:
        batch.hold(instance, Envelope(accepted(message, batch.came_at), internal=True))
    park(batch, instance, kind, detail)


def message_of(arrival: ev.Arrival, instance_id: str, execution_id: str) -> Message | None:
    """The message that repeats an arrival; None for a timer, which fires again by itself."""
    match arrival:
        case ev.EventRaised():
            return _event_message(arrival, instance_id, execution_id)
        case ev.TaskCompleted() | ev.TaskFailed():
            return ActivityResult(**_result_in(arrival, instance_id, execution_id))
        case ev.SubOrchestrationCompleted() | ev.SubOrchestrationFailed():
            return ChildResult(**_result_in(arrival, instance_id, execution_id), child_id="")
        case ev.EntityOperationCompleted() | ev.EntityOperationFailed():
            return EntityResult(**_result_in(arrival, instance_id, execution_id))
        case ev.ExecutionStarted():
            return Begin(
                instance_id=instance_id,
                execution_id=execution_id,
                input=arrival.input,
                operation_id=arrival.operation_id,
                carried=arrival.carried,
                trace=arrival.trace,
            )
        case ev.LockGranted():
            return LockGrant(
                instance_id=instance_id,
                execution_id=execution_id,
                task_id=arrival.task_id,
                entity=arrival.entity,
            )
        case ev.TimerFired():
            return None


def _event_message(event: ev.EventRaised, instance_id: str, execution_id: str) -> RaiseEvent:
    """The message that raises an event once more. An answer to a human task stays one."""
    fields = {name: getattr(event, name) for name in _KEPT}
    if event.task == ev.ANY_TASK:
        return RaiseEvent(instance_id=instance_id, **fields)
    return CompleteTask(instance_id=instance_id, task=event.task, execution_id=execution_id, **fields)


def _result_in(arrival: Any, instance_id: str, execution_id: str) -> dict[str, Any]:
    """The fields of a message with the result or the failure of a call."""
    return {
        "instance_id": instance_id,
        "execution_id": execution_id,
        "task_id": arrival.task_id,
        "result": getattr(arrival, "result", ev.ABSENT),
        "failure": getattr(arrival, "failure", None),
    }
