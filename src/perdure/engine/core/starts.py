"""Starts: whether the id is available, the new instance, and its first step, now or later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.engine.core import forwarding
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.lifecycle import begin, drop_carried, let_held_go, next_execution, remove
from perdure.engine.core.parking import is_set_aside
from perdure.engine.core.pinning import entry_to_begin
from perdure.engine.core.recovery import park, park_unknown
from perdure.engine.core.repeats import Begun, Met
from perdure.errors import InstanceExists, PerdureError
from perdure.model import payload
from perdure.model.events import ParentLink
from perdure.model.failures import failure_of
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import Begin, ChildResult, NextGeneration, Start

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus


def start(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Start) -> None:
    if instance is not None:
        refusal = _start_refusal(instance, message)
        if refusal is not None:
            _refuse_start(batch, envelope, message, refusal)
            return
        if message.on_existing == "return_existing" or not instance.is_finished:
            batch.answer(envelope, Met(instance.instance_id))
            return
        if batch.is_elsewhere(instance.instance_id):  # only its owner may replace it
            forwarding.ask(batch, envelope)
            return
        if (
            instance.dirty
        ):  # it ended in this batch: its history is written before another instance takes the id
            batch.postpone(envelope)
            return
        remove(batch, instance)
    created = _create(batch, message)
    batch.answer(envelope, Begun(created.instance_id, created.salt))
    first = Begin(
        instance_id=message.instance_id,
        execution_id=created.execution_id,
        input=message.input,
        operation_id=message.operation_id,
        trace=message.trace,
    )
    if message.visible_at > batch.now:
        created.reason = f"scheduled:{message.visible_at}"
        batch.store_delayed(first, message.visible_at)
    elif batch.accept_only or batch.is_elsewhere(message.instance_id):
        batch.store_delayed(first, batch.at_once)
    elif created.instance_id in batch.quarantine:
        park(batch, created, "poison", batch.quarantine[created.instance_id])
        batch.hold(created, Envelope(first, internal=True))
    elif entry_to_begin(batch, created) is None:
        park_unknown(batch, created)
        batch.hold(created, Envelope(first, internal=True))
    else:
        batch.released.started.append(created.instance_id)
        begin(batch, created, message.input, message.operation_id, trace=message.trace)


def _start_refusal(instance: Instance, message: Start) -> PerdureError | None:
    """Why the id is not available. A sub-orchestration takes the id of any instance that has finished, as in
    Azure: an orchestration that runs again under its own id calls its children by the same ids again.
    """
    if message.on_existing == "return_existing":
        return None
    if instance.is_finished and (message.parent is not None or message.on_existing == "replace_finished"):
        return None
    exists = f"an instance with the id {instance.instance_id!r} already exists and is {instance.status}"
    if message.parent is None:
        return InstanceExists(
            f"{exists}: choose another id, wait for it to finish, or start with on_existing='return_existing'"
        )
    return InstanceExists(
        f"{exists}: {_starter_of(instance, message.parent)}. Wait until it has finished (a retry policy of "
        "the call does this), terminate it, or give the call another instance_id"
    )


def _starter_of(instance: Instance, asking: ParentLink) -> str:
    """Who started the instance that has the id of a new sub-orchestration, as the parent sees it."""
    parent = instance.parent
    if parent is None:
        return "a client started it"
    if parent.instance_id != asking.instance_id:
        return f"instance {parent.instance_id!r} started it"
    if parent.execution_id == asking.execution_id:
        return f"call {parent.task_id} of this execution started it"
    return f"an earlier run of {asking.instance_id!r} (execution {parent.execution_id}) started it, and it still runs"


def _refuse_start(batch: OpenBatch, envelope: Envelope, message: Start, refusal: PerdureError) -> None:
    batch.answer(envelope, refusal)
    parent = message.parent
    if parent is not None:
        batch.send(
            ChildResult(
                instance_id=parent.instance_id,
                execution_id=parent.execution_id,
                task_id=parent.task_id,
                child_id=message.instance_id,
                failure=failure_of(refusal, with_stack=False),
            )
        )


def _create(batch: OpenBatch, message: Start) -> Instance:
    entry = batch.functions.orchestrator(message.name)
    created = Instance(
        no=batch.instance_numbers.take(),
        instance_id=message.instance_id,
        partition=batch.partition_of(message.instance_id),
        name=entry.code.name if entry is not None else message.name,
        version=message.version or (entry.version if entry is not None else ""),
        salt=batch.random.salt(),
        created_at=batch.now,
        parent=message.parent,
        tags=payload.encode(message.tags).decode() if message.tags else None,
    )
    created.trace = message.trace
    batch.cache.keep(created)
    batch.touch(created)
    if batch.is_elsewhere(created.instance_id):
        batch.borrowed.add(created.instance_id)
    return created


def begin_later(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Begin) -> None:
    if instance is None or instance.is_finished or instance.execution_id != message.execution_id:
        batch.consume(envelope)
    elif instance.status is S.Suspended:
        batch.hold(instance, envelope)
    elif entry_to_begin(batch, instance) is None:
        instance.trace = message.trace
        park_unknown(batch, instance)
        batch.hold(instance, envelope)
    else:
        batch.consume(envelope)
        kept = batch.is_kept(envelope)
        begin(
            batch,
            instance,
            message.input,
            message.operation_id,
            message.carried,
            trace=message.trace,
            kept=kept,
        )
        if not is_set_aside(instance):  # else its first message is held again
            let_held_go(batch, instance)


def next_generation(
    batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: NextGeneration
) -> None:
    if instance is None or instance.is_finished or instance.execution_id != message.execution_id:
        if instance is not None:
            drop_carried(batch, message, "the instance ended before its next execution began")
        batch.consume(envelope)
    elif instance.status is S.Suspended:
        batch.hold(instance, envelope)
    elif entry_to_begin(batch, instance, message.version) is None:
        instance.trace = message.trace
        park_unknown(batch, instance, message.version)
        batch.hold(instance, envelope)
    else:
        batch.consume(envelope)
        kept = batch.is_kept(envelope)
        next_execution(
            batch, instance, message.input, message.carried, message.version, trace=message.trace, kept=kept
        )
        if not is_set_aside(instance):
            let_held_go(batch, instance)
