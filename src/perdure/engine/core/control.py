"""Operators' verbs: suspend, resume, terminate, purge. Whether one applies is read from the transition table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.lifecycle import drop_held, end, remove
from perdure.engine.core.parking import note
from perdure.engine.core.recovery import children_of, go_on, parked_just_now
from perdure.errors import IllegalTransition, InstanceFinished, InstanceNotFound, PerdureError
from perdure.failure import Failure
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model.instances import RuntimeStatus
from perdure.replay.settle import report_to_parent, terminate_child
from perdure.replay.state import LEGAL

if TYPE_CHECKING:
    from perdure.engine.core.dispatcher import Hub

S = RuntimeStatus


def suspend(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    refusal = illegal("suspend", instance, message.instance_id)
    if refusal is None:
        assert instance is not None
        if instance.status is not S.Suspended:
            note(hub, instance, ev.ExecutionSuspended(reason=message.reason))
            instance.status = S.Suspended
            instance.reason = f"operator: {message.reason}" if message.reason else "operator"
            instance.due_at = None
    hub.answer(envelope, refusal)


def resume(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    refusal = illegal("resume", instance, message.instance_id)
    if refusal is not None:
        hub.answer(envelope, refusal)
        return
    assert instance is not None
    if instance.status is not S.Suspended and not instance.reason.startswith("no_worker"):
        hub.answer(envelope, None)
    elif parked_just_now(instance):
        hub.postpone(envelope)
    elif hub.accept_only:
        hub.answer(envelope, None)
        hub.store_delayed(message, hub.now)
    else:
        hub.answer(envelope, None)
        go_on(hub, instance, message.reason)


def terminate(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if message.link is not None and (instance is None or instance.parent != message.link):
        hub.consume(envelope)  # a stranger under the id of a child that never came to be
        return
    refusal = illegal("terminate", instance, message.instance_id)
    hub.answer(envelope, refusal)
    if refusal is not None:
        return
    assert instance is not None
    children = children_of(instance) if message.recursive else {}
    for task_id, child_id in children.items():
        hub.send(
            terminate_child(instance.instance_id, instance.execution_id, task_id, child_id, message.reason)
        )
    note(hub, instance, ev.ExecutionTerminated(reason=message.reason))
    hub.released.ended.add(instance.execution_id)
    drop_held(hub, instance, f"the instance was terminated: {message.reason}")
    end(hub, instance, S.Terminated)
    if instance.parent is not None and message.link is None:
        failure = Failure("OrchestrationTerminated", message.reason or "the sub-orchestration was terminated")
        hub.send(report_to_parent(instance.parent, instance.instance_id, act.FailOrchestration(failure)))


def purge(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if message.finished_before:
        _expire(hub, instance, envelope)
        return
    refusal = illegal("purge", instance, message.instance_id)
    if refusal is None and instance is not None and instance.dirty:
        hub.postpone(envelope)  # what it did is written first, and purged with the next batch
        return
    hub.answer(envelope, refusal if refusal is not None else 1)
    if refusal is None:
        assert instance is not None
        forget(hub, instance)


def _expire(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    """Retention's purge. What it chose may have changed since: then it stays."""
    message: Any = envelope.message
    hub.consume(envelope)
    finished_at = instance.completed_at if instance is not None and not instance.is_new else None
    if finished_at is not None and finished_at < message.finished_before:
        assert instance is not None
        hub.counters["expired"] += 1
        forget(hub, instance)


def forget(hub: Hub, instance: Instance) -> None:
    """Remove the instance with all its rows."""
    hub.rows.forgotten.append(instance.instance_id)
    hub.released.ended.add(instance.execution_id)
    remove(hub, instance)


def illegal(verb: str, instance: Instance | None, instance_id: str) -> PerdureError | None:
    """Why a verb does not apply to the instance as it stands, by the table of transitions."""
    if instance is None:
        return InstanceNotFound(f"no instance {instance_id!r} in this hub: nothing to {verb}")
    if instance.status in LEGAL[verb]:
        return None
    if instance.is_finished:
        return InstanceFinished(
            f"cannot {verb} instance {instance_id!r}: it has finished and is {instance.status}"
        )
    return IllegalTransition(
        f"cannot {verb} instance {instance_id!r} while it is {instance.status}: "
        "terminate it first, or wait until it has finished"
    )
