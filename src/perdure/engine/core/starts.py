"""Starts: whether an id may be had, the new instance, and its first step, now or later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.engine.cluster import pending_requests
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.lifecycle import begin, drop_carried, let_held_go, next_execution, remove
from perdure.engine.core.parking import is_set_aside
from perdure.engine.core.recovery import park, park_unknown
from perdure.engine.core.repeats import Begun, Met
from perdure.engine.functions.versions import entry_to_begin
from perdure.errors import InstanceExists, PerdureError
from perdure.model import payload
from perdure.model.events import ParentLink
from perdure.model.failures import failure_of
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import Begin, ChildResult, Start

if TYPE_CHECKING:
    from perdure.engine.core.dispatcher import Hub

S = RuntimeStatus


def start(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if instance is not None:
        refusal = _start_refusal(instance, message)
        if refusal is not None:
            _refuse_start(hub, envelope, message, refusal)
            return
        if message.on_existing == "return_existing" or not instance.is_finished:
            hub.answer(envelope, Met(instance.instance_id))
            return
        if hub.is_foreign(instance.instance_id):  # only its owner may replace it
            pending_requests.ask(hub, envelope)
            return
        if instance.dirty:  # it ended in this batch: its life is written before another takes the id
            hub.postpone(envelope)
            return
        remove(hub, instance)
    created = _create(hub, message, instance)
    hub.answer(envelope, Begun(created.instance_id, created.salt))
    first = Begin(
        instance_id=message.instance_id,
        execution_id=created.execution_id,
        input=message.input,
        operation_id=message.operation_id,
    )
    if message.visible_at > hub.now:
        created.reason = f"scheduled:{message.visible_at}"
        hub.store_delayed(first, message.visible_at)
    elif hub.accept_only or hub.is_foreign(message.instance_id):
        hub.store_delayed(first, hub.at_once)
    elif created.instance_id in hub.quarantine:
        park(hub, created, "poison", hub.quarantine[created.instance_id])
        hub.hold(created, Envelope(first, internal=True))
    elif entry_to_begin(hub, created) is None:
        park_unknown(hub, created)
        hub.hold(created, Envelope(first, internal=True))
    else:
        hub.released.started.append(created.instance_id)
        begin(hub, created, message.input, message.operation_id)


def _start_refusal(instance: Instance, message: Start) -> PerdureError | None:
    """Why the id cannot be had. A sub-orchestration takes the id of any instance that has finished, as in Azure:
    an orchestration that runs again under its own id calls its children by the same ids again.
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
        f"{exists}: {_starter_of(instance, message.parent)}. Wait until it has finished (a retry policy of the call "
        "does), terminate it, or give the call another instance_id"
    )


def _starter_of(instance: Instance, asking: ParentLink) -> str:
    """Who started the instance whose id a sub-orchestration is to have, as the parent of that sees it."""
    parent = instance.parent
    if parent is None:
        return "a client started it"
    if parent.instance_id != asking.instance_id:
        return f"instance {parent.instance_id!r} started it"
    if parent.execution_id == asking.execution_id:
        return f"call {parent.task_id} of this execution started it"
    return f"an earlier run of {asking.instance_id!r} (execution {parent.execution_id}) started it, and it still runs"


def _refuse_start(hub: Hub, envelope: Envelope, message: Start, refusal: PerdureError) -> None:
    hub.answer(envelope, refusal)
    parent = message.parent
    if parent is not None:
        hub.send(
            ChildResult(
                instance_id=parent.instance_id,
                execution_id=parent.execution_id,
                task_id=parent.task_id,
                child_id=message.instance_id,
                failure=failure_of(refusal, with_stack=False),
            )
        )


def _create(hub: Hub, message: Start, replaced: Instance | None) -> Instance:
    entry = hub.functions.orchestrator(message.name)
    created = Instance(
        no=hub.instance_numbers.take(),
        instance_id=message.instance_id,
        partition=hub.partition_of(message.instance_id),
        name=entry.code.name if entry is not None else message.name,
        version=message.version or (entry.version if entry is not None else ""),
        salt=hub.chance.salt(),
        created_at=hub.now,
        parent=message.parent,
        tags=payload.encode(message.tags).decode() if message.tags else None,
    )
    hub.keep(created)
    hub.touch(created)
    if hub.is_foreign(created.instance_id):
        hub.visitors.add(created.instance_id)
    return created


def begin_later(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if instance is None or instance.is_finished or instance.execution_id != message.execution_id:
        hub.consume(envelope)
    elif instance.status is S.Suspended:
        hub.hold(instance, envelope)
    elif entry_to_begin(hub, instance) is None:
        park_unknown(hub, instance)
        hub.hold(instance, envelope)
    else:
        hub.consume(envelope)
        kept = hub.is_kept(envelope)
        begin(hub, instance, message.input, message.operation_id, message.carried, kept=kept)
        if not is_set_aside(instance):  # else what began it is held again
            let_held_go(hub, instance)


def next_generation(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if instance is None or instance.is_finished or instance.execution_id != message.execution_id:
        if instance is not None:
            drop_carried(hub, message, "the instance ended before its next execution began")
        hub.consume(envelope)
    elif instance.status is S.Suspended:
        hub.hold(instance, envelope)
    elif entry_to_begin(hub, instance, message.version) is None:
        park_unknown(hub, instance, message.version)
        hub.hold(instance, envelope)
    else:
        hub.consume(envelope)
        kept = hub.is_kept(envelope)
        next_execution(hub, instance, message.input, message.carried, message.version, kept=kept)
        if not is_set_aside(instance):
            let_held_go(hub, instance)
