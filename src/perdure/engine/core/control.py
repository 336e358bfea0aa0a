"""Operators' verbs: suspend, resume, terminate, purge. The transition table decides whether a verb applies."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from perdure.model.messages import Purge, Resume, Suspend, Terminate
from perdure.replay.settle import report_to_parent, terminate_child
from perdure.replay.state import LEGAL

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus


def suspend(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Suspend) -> None:
    refusal = illegal("suspend", instance, message.instance_id)
    if refusal is None:
        assert instance is not None
        if instance.status is not S.Suspended:
            note(batch, instance, ev.ExecutionSuspended(reason=message.reason))
            instance.status = S.Suspended
            instance.reason = f"operator: {message.reason}" if message.reason else "operator"
            instance.due_at = None
    batch.answer(envelope, refusal)


def resume(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Resume) -> None:
    refusal = illegal("resume", instance, message.instance_id)
    if refusal is not None:
        batch.answer(envelope, refusal)
        return
    assert instance is not None
    if instance.status is not S.Suspended and not instance.reason.startswith("no_worker"):
        batch.answer(envelope, None)
    elif parked_just_now(instance):
        batch.postpone(envelope)
    elif batch.accept_only:
        batch.answer(envelope, None)
        batch.store_delayed(message, batch.now)
    else:
        batch.answer(envelope, None)
        go_on(batch, instance, message.reason)


def terminate(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Terminate) -> None:
    if message.link is not None and (instance is None or instance.parent != message.link):
        batch.consume(envelope)  # another instance has the id of a child that was never created
        return
    refusal = illegal("terminate", instance, message.instance_id)
    batch.answer(envelope, refusal)
    if refusal is not None:
        return
    assert instance is not None
    children = children_of(instance) if message.recursive else {}
    for task_id, child_id in children.items():
        batch.send(
            terminate_child(instance.instance_id, instance.execution_id, task_id, child_id, message.reason)
        )
    note(batch, instance, ev.ExecutionTerminated(reason=message.reason))
    batch.released.ended.add(instance.execution_id)
    drop_held(batch, instance, f"the instance was terminated: {message.reason}")
    end(batch, instance, S.Terminated)
    if instance.parent is not None and message.link is None:
        failure = Failure("OrchestrationTerminated", message.reason or "the sub-orchestration was terminated")
        batch.send(report_to_parent(instance.parent, instance.instance_id, act.FailOrchestration(failure)))


def purge(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Purge) -> None:
    if message.finished_before:
        _expire(batch, instance, envelope, message)
        return
    refusal = illegal("purge", instance, message.instance_id)
    if refusal is None and instance is not None and instance.dirty:
        batch.postpone(envelope)  # its episode is written first, and purged with the next batch
        return
    batch.answer(envelope, refusal if refusal is not None else 1)
    if refusal is None:
        assert instance is not None
        forget(batch, instance)


def _expire(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Purge) -> None:
    """Retention's purge. An instance that has changed since it was selected stays."""
    batch.consume(envelope)
    finished_at = instance.completed_at if instance is not None and not instance.is_new else None
    if finished_at is not None and finished_at < message.finished_before:
        assert instance is not None
        batch.counters["expired"] += 1
        forget(batch, instance)


def forget(batch: OpenBatch, instance: Instance) -> None:
    """Delete the instance with all its rows."""
    batch.rows.forgotten.append(instance.instance_id)
    batch.released.ended.add(instance.execution_id)
    remove(batch, instance)


def illegal(verb: str, instance: Instance | None, instance_id: str) -> PerdureError | None:
    """Why a verb does not apply in the instance's status, from the transition table."""
    if instance is None:
        return InstanceNotFound(f"no instance {instance_id!r} in this hub: nothing to {verb}")
    if instance.status in LEGAL[verb]:
        return None
    if instance.is_finished:
        return InstanceFinished(
            f"cannot {verb} instance {instance_id!r}: it has finished and is {instance.status}"
            + ("; only a Failed instance can be rewound" if verb == "rewind" else "")
        )
    advice = (
        "only a Failed instance can be rewound"
        if verb == "rewind"
        else "terminate it first, or wait until it has finished"
    )
    return IllegalTransition(
        f"cannot {verb} instance {instance_id!r} while it is {instance.status}: {advice}"
    )
