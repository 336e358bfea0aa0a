"""Arrivals: messages to a running instance, and whether they still apply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.engine.core import activity_rows, answers
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.lifecycle import feed
from perdure.engine.core.noted import TimerWasDue
from perdure.engine.core.parking import is_set_aside, park
from perdure.engine.core.pinning import entry_of
from perdure.engine.core.recovery import retry_parked, revive
from perdure.errors import (
    EventRefused,
    InstanceFinished,
    InstanceNotFound,
    Overloaded,
    PerdureError,
    TaskRefused,
)
from perdure.model import events as ev
from perdure.model.human_tasks import Person
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import (
    ActivityResult,
    ChildResult,
    CompleteTask,
    EntityResult,
    LockGrant,
    LockProbe,
    RaiseEvent,
    Wake,
)
from perdure.model.waiting import MISFIT
from perdure.replay.settle import release_lock, request_lock
from perdure.replay.state import LEGAL

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus
Result = ActivityResult | ChildResult | EntityResult


def raise_event(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: RaiseEvent) -> None:
    refusal = _event_refusal(batch, instance, envelope, message)
    if refusal is not None:
        if instance is not None and isinstance(refusal, EventRefused) and batch.is_kept(envelope):
            _keep_misfit(batch, instance, envelope, str(refusal))
        elif envelope.reply is not None:
            batch.answer(envelope, refusal)
        else:
            batch.drop(envelope, str(refusal))
        return
    assert instance is not None
    runs = instance.status is S.Running and not instance.between and not batch.accept_only
    if runs and not revive(batch, instance):
        batch.hold(instance, envelope)
        return
    is_new = envelope.reply is not None  # an event that was accepted is never rejected later
    if is_new and message.decided_by and not isinstance(message, CompleteTask):
        refused = answers.why_refused(instance, message.name, Person(message.decided_by, message.roles))
        if refused is not None:
            batch.answer(envelope, refused)
            return
    if batch.accept_only:
        batch.answer(envelope, None)
        batch.store_delayed(message, batch.now)
        return
    if not runs:
        _hold_or_refuse(batch, instance, envelope)
        return
    if _comes_behind_timers(batch, instance, envelope):
        return
    assert instance.execution is not None
    execution = instance.execution
    unqualified = execution.unqualified(message.name, message.decided_by, message.roles) if is_new else ""
    if unqualified:
        batch.answer(envelope, TaskRefused(f"{unqualified}. The event {message.name!r} was not accepted"))
        return
    full = is_new and execution.buffered >= batch.limits.buffered_events
    if full and not execution.awaits(message.name):
        _overflow(batch, instance, envelope)
        return
    batch.answer(envelope, None)
    event = ev.EventRaised(
        name=message.name,
        input=message.input,
        operation_id=message.operation_id,
        trace=message.trace,
        decided_by=message.decided_by,
        roles=message.roles,
        task=_task_of(message, instance),
    )
    if envelope.reading is not None:
        execution.was_read(event, envelope.reading)
        envelope.reading = None  # the code may change the value: after a failed batch it is read again
    feed(batch, instance, event, kept=batch.is_kept(envelope))


def _task_of(message: RaiseEvent, instance: Instance) -> int:
    """Which human task of this execution the event answers."""
    if not isinstance(message, CompleteTask):
        return ev.ANY_TASK
    return message.task if message.execution_id in ("", instance.execution_id) else ev.EARLIER_TASK


def _event_refusal(
    batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: RaiseEvent
) -> PerdureError | None:
    """Why the event is rejected, or None; then the envelope keeps the decoded body."""
    if instance is None:
        return InstanceNotFound(
            f"no instance {message.instance_id!r} in this hub: the event {message.name!r} was not accepted. "
            "Check the id, or start the instance first"
        )
    if instance.status not in LEGAL["raise_event"]:
        return InstanceFinished(
            f"instance {instance.instance_id!r} is {instance.status}: it accepts no more events; "
            f"{message.name!r} was rejected"
        )
    entry = entry_of(batch, instance)
    if entry is not None:
        try:
            envelope.reading = entry.admit(message.name, message.input, envelope.reading)
        except PerdureError as refused:
            return refused
    return None


def _keep_misfit(batch: OpenBatch, instance: Instance, envelope: Envelope, why: str) -> None:
    """Park the instance: the event was accepted, but the deployed code rejects it."""
    batch.hold(instance, envelope)
    if instance.status is S.Running:
        park(
            batch,
            instance,
            MISFIT,
            f"{why}. The event was accepted before this code was deployed. Change `events` and the wait to "
            "accept it too, and deploy. The instance continues when a worker starts, or when you resume it",
        )


def _hold_or_refuse(batch: OpenBatch, instance: Instance, envelope: Envelope) -> None:
    if envelope.reply is not None and len(instance.waiting or ()) >= batch.limits.buffered_events:
        _overflow(batch, instance, envelope)
    else:
        batch.hold(instance, envelope)


def _overflow(batch: OpenBatch, instance: Instance, envelope: Envelope) -> None:
    refusal = Overloaded(
        f"instance {instance.instance_id!r} already keeps {batch.limits.buffered_events} events that no wait "
        "has taken: this event was rejected. The instance may be suspended, or wait for another event name"
    )
    if envelope.reply is not None:
        batch.answer(envelope, refusal)
    else:
        batch.drop(envelope, str(refusal))


def activity_result(
    batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: ActivityResult
) -> None:
    caller = _caller(batch, instance, envelope, message, message.task_id)
    if caller is not None:
        if caller.placed is None or not activity_rows.taken_up(batch, caller, message):
            caller.open_local -= 1
        _tell(batch, caller, message, ev.TaskCompleted, ev.TaskFailed)
    elif instance is not None and envelope.held and not envelope.row_no:
        activity_rows.kept(batch, instance, message)


def child_result(
    batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: ChildResult
) -> None:
    caller = _caller(batch, instance, envelope, message)
    if caller is not None:
        if caller.children:
            caller.children.pop(message.task_id, None)
        _tell(batch, caller, message, ev.SubOrchestrationCompleted, ev.SubOrchestrationFailed)


def entity_result(
    batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: EntityResult
) -> None:
    caller = _caller(batch, instance, envelope, message)
    if caller is not None:
        _tell(batch, caller, message, ev.EntityOperationCompleted, ev.EntityOperationFailed)


def _caller(
    batch: OpenBatch,
    instance: Instance | None,
    envelope: Envelope,
    message: Result,
    answers: int = -1,
) -> Instance | None:
    """The instance whose call this message answers, if the call is open and the instance can process it now.

    Otherwise the message is settled: it came too late, or is held. `answers` is the activity that it completes.
    """
    if _is_stale(instance, message):
        _stale(batch, envelope)
        return None
    assert instance is not None
    if not _ready(batch, instance, envelope, answers) or _comes_behind_timers(batch, instance, envelope):
        return None
    assert instance.execution is not None
    if not instance.execution.is_open(message.task_id):
        _stale(batch, envelope)
        return None
    if envelope.row_no:
        batch.consume(envelope)
    return instance


def _tell(
    batch: OpenBatch,
    caller: Instance,
    message: Result,
    completed: type[Any],
    failed: type[Any],
) -> None:
    event = (
        failed(message.task_id, message.failure)
        if message.failure is not None
        else completed(message.task_id, message.result)
    )
    feed(batch, caller, event)


def lock_granted(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: LockGrant) -> None:
    """One entity of a critical section is locked: request the next, without running the code."""
    if _is_stale(instance, message):
        _decline(batch, message)
        _stale(batch, envelope)
        return
    assert instance is not None
    if not _ready(batch, instance, envelope):
        return
    assert instance.execution is not None
    lock_id = message.task_id
    if instance.execution.next_entity(lock_id) != message.entity:
        if lock_id not in instance.execution.held_locks():
            _decline(batch, message)
        _stale(batch, envelope)
        return
    batch.consume(envelope)
    feed(batch, instance, ev.LockGranted(task_id=lock_id, entity=message.entity))
    if instance.execution is None:
        return  # it has ended, or is parked and gets the message again
    following = instance.execution.next_entity(lock_id)
    if following is not None:
        batch.send(request_lock(instance.instance_id, instance.execution_id, lock_id, following))


def lock_probed(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: LockProbe) -> None:
    """Answer an entity that checks whether its holder is alive."""
    batch.consume(envelope)
    if _is_stale(instance, message):
        _decline(batch, message)


def _decline(batch: OpenBatch, message: LockGrant | LockProbe) -> None:
    """Release the entity, whose holder is gone or no longer waits."""
    for release in release_lock(message.instance_id, message.execution_id, message.task_id, [message.entity]):
        batch.send(release)


def _is_stale(
    instance: Instance | None, message: ActivityResult | ChildResult | EntityResult | LockGrant | LockProbe
) -> bool:
    return instance is None or instance.is_finished or instance.execution_id != message.execution_id


def _stale(batch: OpenBatch, envelope: Envelope) -> None:
    batch.counters["stale_results"] += 1
    batch.consume(envelope)
    message = envelope.message
    if isinstance(message, ActivityResult):
        batch.stale_results.append(envelope)
        activity_rows.unwanted(batch, envelope, message)


def wake(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Wake) -> None:
    if instance is None:
        return
    if is_set_aside(instance):
        if message.retry:
            retry_parked(batch, instance)
        return
    if not instance.is_running or instance.between or not revive(batch, instance):
        return
    if _fire(batch, instance, batch.now):
        batch.take_turns(Wake(instance_id=instance.instance_id))


def _fire(batch: OpenBatch, instance: Instance, until: int) -> bool:
    """Fire the timers due by `until`, in order; returns whether the instance reached its limit for this batch
    first.
    """
    assert instance.execution is not None
    execution = instance.execution
    while (timer := execution.next_timer()) is not None and timer[0] <= until:
        if instance.feeds >= batch.limits.feeds:
            return True
        batch.released.noted.append(TimerWasDue(batch.now - timer[0]))
        feed(batch, instance, ev.TimerFired(timer_id=timer[1]))
        if not instance.is_running or instance.execution is not execution:
            return False
    return False


def _comes_behind_timers(batch: OpenBatch, instance: Instance, envelope: Envelope) -> bool:
    """Whether timers were due when the message was accepted: they fire first, and the message is handled again.

    The instance may have been suspended then, the engine stopped, or both may be in this batch: a message after
    a deadline is too late in each case.
    """
    execution = instance.execution
    assert execution is not None
    at: int = envelope.message.accepted_at or envelope.came_at  # type: ignore[union-attr]
    batch.came_at = at or (0 if envelope.row_no else batch.now)  # 0 for a row of a version that did not say
    due = execution.due_at()
    if due is None:
        return False
    until = min(batch.came_at, batch.now)  # the clock of the worker that accepted it may be ahead
    if due > until:
        return False
    _fire(batch, instance, until)
    batch.send_first([envelope])
    return True


def _ready(batch: OpenBatch, instance: Instance, envelope: Envelope, answers: int = -1) -> bool:
    """Whether the instance can process the message now; otherwise the message is held. `answers` is the task
    that it completes.
    """
    if instance.status is S.Running and not instance.between:
        if instance.execution is not None or revive(batch, instance, answers):
            return True
    batch.hold(instance, envelope)
    return False
