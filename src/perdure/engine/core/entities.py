"""Entities: each runs one operation at a time, in the order of arrival, and holds the others.

An operation runs on the loop's thread, in the batch that took its message: its state, its answer and its
signals are committed together, and the same transaction consumes the message, so it counts exactly once. An
operation that cannot run yet is held durably: while another instance has the lock, while an operation runs
outside the loop, while the entity is suspended, and while no worker has its function. While the entity is
locked, the holder's first message goes next; otherwise the first message. An entity with `offload=True` runs
each operation after the commit that kept it, like an activity, at least once. The message stays held until the
result returns, and the result counts only for the operation that is due. A locked entity with waiting messages
probes its holder, so that no lock outlives the holder. A batch writes one history row for an entity, with the
names of its operations; only the newest rows are kept. An entity without state, lock or waiting messages no
longer exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from perdure.engine.core import activity_rows, control
from perdure.engine.core.entity_state import LiveEntity, flight_of
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.offloading import answer_of, invocation_of, misfit_of
from perdure.engine.core.parking import note
from perdure.engine.core.recovery import park
from perdure.engine.core.tracing import TracedOperation, calling
from perdure.errors import IllegalTransition, Interrupted, Overloaded
from perdure.failure import Failure
from perdure.model import messages as msg
from perdure.model.entities import Caller, EntityId, name_in
from perdure.model.events import ABSENT, ExecutionResumed
from perdure.model.instances import RuntimeStatus
from perdure.model.trace_context import is_sampled
from perdure.model.waiting import MISFIT, kind_of
from perdure.replay.determinism import Mismatch
from perdure.replay.entity import EntityCode, Operated, Surroundings, operate, undone

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus
Arriving = msg.EntityOperation | msg.LockRequest | msg.LockRelease
KEPT: Final = 16  # history rows of an execution; the previous execution is kept too


def arrive(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Arriving) -> None:
    """Handle an operation, a lock request, or a lock release."""
    if batch.accept_only:
        _for_later(batch, envelope, batch.now)
        return
    if isinstance(message, msg.EntityOperation) and message.visible_at:
        if message.visible_at > batch.now:
            _for_later(batch, envelope, message.visible_at)
        else:  # from now on it waits with the others
            batch.answer(envelope, None)
            batch.send(structs.replace(message, visible_at=0))
        return
    if instance is None:
        instance = _create(batch, message.instance_id)
    if isinstance(message, msg.LockRelease) and _call_off(batch, instance, message, envelope):
        return
    if envelope.reply is not None and len(instance.waiting or ()) >= batch.limits.buffered_events:
        batch.answer(envelope, _overflow(batch, instance))
        return
    if _is_first(instance) and _may_go(batch, instance, message):
        _do(batch, instance, envelope)
    else:
        _wait(batch, instance, envelope)
    go_on(batch, instance)


def go_on(batch: OpenBatch, instance: Instance) -> None:
    """Process the entity's waiting messages, as far as they can run now."""
    while (envelope := _next(batch, instance)) is not None:
        if instance.feeds >= batch.limits.feeds:
            batch.take_turns(msg.Wake(instance_id=instance.instance_id))
            return
        if isinstance(envelope.message, msg.EntityOperation) and _code(batch, instance).offload:
            _take_off(batch, instance, envelope.message)
            return
        _take_out(instance, envelope)
        _do(batch, instance, envelope)


def wake(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.Wake) -> None:
    """Retry the entity at a start or at its next turn: a worker may exist now, or the holder may be gone."""
    entity_state = _entity_state(instance)
    batch.consume(envelope)
    if instance.reason.startswith("no_worker") and batch.functions.entity(instance.name) is not None:
        instance.status, instance.reason = S.Running, ""
        batch.touch(instance)
    elif kind_of(instance.reason) == MISFIT and message.retry:
        _unpark(batch, instance, "retried when a worker starts")
    if entity_state.lock is not None:
        _probe(batch, instance, entity_state.lock)
    go_on(batch, instance)


def resume(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.Resume) -> None:
    batch.answer(envelope, None)
    if instance.status is S.Running:
        return
    _unpark(batch, instance, message.reason)
    go_on(batch, instance)


def _unpark(batch: OpenBatch, instance: Instance, reason: str) -> None:
    note(batch, instance, ExecutionResumed(reason=reason))
    instance.status, instance.reason = S.Running, ""


def purge(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.Purge) -> None:
    """Purge a suspended entity for an operator, with its state and its waiting messages."""
    holder = _entity_state(instance).lock
    if instance.status is not S.Suspended or holder is not None:
        why = f"{holder.instance_id!r} holds its lock" if holder else "it is not suspended"
        batch.answer(
            envelope,
            IllegalTransition(
                f"cannot purge the entity {instance.instance_id!r}: {why}. Signal the operation 'delete' to "
                "delete it, or suspend it first to discard its waiting operations too"
            ),
        )
        return
    batch.answer(envelope, 1)
    held, instance.waiting = instance.waiting, None
    _entity_state(instance).senders = None
    _entity_state(instance).state = ABSENT
    instance.status, instance.reason = S.Running, ""
    batch.touch(instance)
    gone = Failure("EntityPurged", f"the entity {instance.instance_id} was purged by an operator")
    for waiting in held or ():
        waiting.held = False
        if isinstance(waiting.message, msg.EntityOperation):
            _settle(batch, instance, waiting, waiting.message, Operated(ABSENT, failure=gone))
    batch.send_first(e for e in held or () if not isinstance(e.message, msg.EntityOperation))


def refuse(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.Message) -> None:
    """Reject a verb for orchestrations."""
    verb = type(message).__name__.lower()
    batch.answer(
        envelope,
        IllegalTransition(
            f"{instance.instance_id!r} is an entity, and {verb} works on orchestrations only: signal an "
            "operation instead"
        ),
    )


# ------------------------------------------------------------------------------------------- whose turn it is


def _may_go(batch: OpenBatch, instance: Instance, message: Arriving) -> bool:
    entity_state = _entity_state(instance)
    code = batch.functions.entity(instance.name)
    if entity_state.flying or instance.status is not S.Running or code is None:
        return False
    if code.offload and isinstance(message, msg.EntityOperation):
        return False  # an operation outside the loop must be durable first
    return entity_state.lock is None or _is_holder(entity_state.lock, message)


def _next(batch: OpenBatch, instance: Instance) -> Envelope | None:
    entity_state, held = _entity_state(instance), instance.waiting
    if not held or entity_state.flying or instance.status is not S.Running:
        return None
    if batch.functions.entity(instance.name) is None:
        _park_unknown(batch, instance)
        return None
    lock = entity_state.lock
    if lock is None:
        first: Envelope = held[0]
        return first
    if not _count_own(instance):
        return None  # skips the search through a thousand waiting messages
    return next((envelope for envelope in held if _is_holder(lock, envelope.message)), None)


def _is_first(instance: Instance) -> bool:
    """Whether no waiting message comes before the new one, if the new one can run at all."""
    return not instance.waiting or (_entity_state(instance).lock is not None and not _count_own(instance))


def _count_own(instance: Instance) -> int:
    """The number of waiting messages of the holder."""
    entity_state = _entity_state(instance)
    if entity_state.lock is None:
        return 0
    if entity_state.senders is None:
        entity_state.senders = Counter(_sender(envelope) for envelope in instance.waiting or ())
    return entity_state.senders[entity_state.lock.instance_id]


def _sender(envelope: Envelope) -> str:
    caller: Caller | None = envelope.message.caller  # type: ignore[union-attr]
    return caller.instance_id if caller is not None else ""


def _take_out(instance: Instance, envelope: Envelope) -> None:
    """Remove the message from the waiting messages."""
    assert instance.waiting is not None
    instance.waiting.remove(envelope)
    envelope.held = False
    senders = _entity_state(instance).senders
    if senders is not None:
        senders[_sender(envelope)] -= 1


def _is_holder(lock: Caller, message: Any) -> bool:
    caller = message.caller
    return (
        caller is not None
        and caller.instance_id == lock.instance_id
        and caller.execution_id == lock.execution_id
    )


def _wait(batch: OpenBatch, instance: Instance, envelope: Envelope) -> None:
    batch.hold(instance, envelope)
    batch.touch(instance)
    entity_state = _entity_state(instance)
    if entity_state.senders is not None:
        entity_state.senders[_sender(envelope)] += 1
    if entity_state.lock is not None and not _is_holder(entity_state.lock, envelope.message):
        _probe(batch, instance, entity_state.lock)


def _probe(batch: OpenBatch, instance: Instance, lock: Caller) -> None:
    """Probe the holder, once a batch: it may have ended without a release."""
    entity_state = _entity_state(instance)
    if entity_state.probed_at == batch.now:
        return
    entity_state.probed_at = batch.now
    batch.send(
        msg.LockProbe(
            instance_id=lock.instance_id,
            execution_id=lock.execution_id,
            task_id=lock.task_id,
            entity=instance.instance_id,
        )
    )


def _call_off(batch: OpenBatch, instance: Instance, message: msg.LockRelease, envelope: Envelope) -> bool:
    """Handle a release before the grant: remove the request from the line."""
    if _entity_state(instance).lock == message.caller:
        return False
    batch.consume(envelope)
    batch.touch(instance)
    for waiting in instance.waiting or ():
        if isinstance(waiting.message, msg.LockRequest) and waiting.message.caller == message.caller:
            _take_out(instance, waiting)
            batch.consume(waiting)
            break
    return True


# ----------------------------------------------------------------------------------------------- doing it


def _do(batch: OpenBatch, instance: Instance, envelope: Envelope) -> None:
    message, entity_state = envelope.message, _entity_state(instance)
    batch.fed(instance)
    match message:
        case msg.EntityOperation():
            done = _run(batch, instance, message)
            if done is None:
                _put_first(batch, instance, envelope)
            else:
                _settle(batch, instance, envelope, message, done)
        case msg.LockRequest(caller=caller):
            entity_state.lock = caller
            batch.consume(envelope)
            batch.send(
                msg.LockGrant(
                    instance_id=caller.instance_id,
                    execution_id=caller.execution_id,
                    task_id=caller.task_id,
                    entity=instance.instance_id,
                )
            )
        case _:  # the end of the lock
            entity_state.lock = None
            batch.consume(envelope)


def _run(batch: OpenBatch, instance: Instance, message: msg.EntityOperation) -> Operated | None:
    """Run an operation; returns None, with the entity parked, when the state does not fit the code."""
    entity_state, code = _entity_state(instance), _code(batch, instance)
    inside, trace, since = None if batch.variables is None else batch.variables.copy(), "", 0.0
    if batch.tracing is not None and is_sampled(message.trace):
        trace, since = batch.tracing.operates(message), batch.random.monotonic()
        inside = Context() if inside is None else inside
        inside.run(batch.tracing.resumes, trace)
    try:
        done = batch.running.run(
            instance,
            operate,
            code,
            EntityId.parse(instance.instance_id),
            entity_state.state,
            entity_state.live,
            message,
            surroundings(batch),
            inside,
        )
    except Interrupted as stopped:
        return _too_long(batch, instance, stopped)
    except Mismatch as found:
        park(batch, instance, MISFIT, str(found.error))
        return None
    if trace:
        took = batch.random.monotonic() - since
        batch.released.traced.append(
            TracedOperation(instance.instance_id, message, trace, batch.now, took, done.failure)
        )
    if batch.tracing is not None and done.messages:
        _pass_trace_on(message, trace, done)
    return done


def _pass_trace_on(message: msg.EntityOperation, trace: str, done: Operated) -> None:
    """Make what an operation sends a part of its trace: of the operation's own span, or else of its caller's."""
    caller = calling(message)
    if caller is not None:
        done.messages = [_within_trace(sent, trace or caller.text()) for sent in done.messages]


def _within_trace(sent: msg.Message, trace: str) -> msg.Message:
    """What an operation sends, as a part of its trace."""
    return structs.replace(sent, trace=trace) if isinstance(sent, msg.EntityOperation | msg.Start) else sent


def _put_first(batch: OpenBatch, instance: Instance, envelope: Envelope) -> None:
    """Return an operation that has not run to the front."""
    batch.hold(instance, envelope)
    held = instance.waiting
    assert held is not None
    held.insert(0, held.pop())
    _entity_state(instance).senders = None  # counted again


def _too_long(batch: OpenBatch, instance: Instance, stopped: Interrupted) -> Operated:
    """Undo and fail an interrupted operation, and park the entity until an operator resumes it."""
    why = str(stopped) or "an operation blocked the engine for too long"
    park(batch, instance, "poison", f"{why}; operations that do I/O need offload=True")
    return undone(_entity_state(instance).state, TimeoutError(why))


def surroundings(batch: OpenBatch) -> Surroundings:
    environment = batch.functions.environment
    return Surroundings(
        batch.now,
        lambda: batch.random.salt().hex(),
        lambda function: environment.orchestrator(function).name,
        environment.entity,
    )


def _settle(
    batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.EntityOperation, done: Operated
) -> None:
    """Settle a finished operation: keep its state, answer it, send its messages, consume it."""
    entity_state = _entity_state(instance)
    entity_state.state, entity_state.live = done.state, done.live
    sender = message.caller.instance_id if message.caller is not None else ""
    entity_state.note(message.operation, sender, str(done.failure)[:300] if done.failure is not None else "")
    batch.answer(envelope, None)
    if message.caller is not None and not message.is_signal:
        batch.send(
            msg.EntityResult(
                instance_id=sender,
                execution_id=message.caller.execution_id,
                task_id=message.caller.task_id,
                result=done.result,
                failure=done.failure,
            )
        )
    elif done.failure is not None:
        batch.record_drop(
            instance.instance_id,
            "operation",
            message.operation,
            message.operation_id,
            f"it failed: {done.failure}"[:4_000],
            bytes(message.input),
        )
    for sent in done.messages:
        batch.send(sent)


# ------------------------------------------------------------------------------------------- outside the loop


def _take_off(batch: OpenBatch, instance: Instance, message: msg.EntityOperation) -> None:
    """Run the operation after the commit that keeps it."""
    entity_state = _entity_state(instance)
    entity_state.flying = True
    batch.fed(instance)
    batch.released.invocations.append(
        invocation_of(_code(batch, instance), instance, entity_state, message, batch.now)
    )


def land(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.ActivityResult) -> None:
    """Apply the result of an operation that ran outside the loop."""
    entity_state = _entity_state(instance)
    due = _due(instance)
    if (message.execution_id, message.task_id) != flight_of(instance, entity_state) or due is None:
        batch.counters["stale_results"] += 1
        batch.consume(envelope)
        activity_rows.unwanted(batch, envelope, message)
        return
    batch.consume(envelope)
    batch.fed(instance)
    activity_rows.taken_up(batch, instance, message)
    unfit = misfit_of(message)
    if unfit:  # the operation stays due
        entity_state.flying = False
        park(batch, instance, MISFIT, unfit)
        return
    _take_out(instance, due)
    entity_state.flying = False
    entity_state.applied += 1
    operation = due.message
    assert isinstance(operation, msg.EntityOperation)
    done = answer_of(message, entity_state.state)
    if batch.tracing is not None and done.messages:
        _pass_trace_on(operation, "", done)
    _settle(batch, instance, due, operation, done)
    go_on(batch, instance)


def _due(instance: Instance) -> Envelope | None:
    """The operation that runs outside the loop, which stays the same until its result returns."""
    lock = _entity_state(instance).lock
    for envelope in instance.waiting or ():
        if lock is None or _is_holder(lock, envelope.message):
            return envelope if isinstance(envelope.message, msg.EntityOperation) else None
    return None


# -------------------------------------------------------------------------------------------------- its row


def seal(batch: OpenBatch, instance: Instance) -> bool:
    """Write the entity's record and history before its rows. Returns False when the entity no longer exists."""
    entity_state = _entity_state(instance)
    if entity_state.is_empty and not instance.waiting and instance.status is S.Running:
        _vanish(batch, instance)
        return False
    events = entity_state.take_log()
    if events:
        instance.episode(batch.now).events.extend(events)
    if instance.outcome is not None and instance.episodes >= KEPT:
        instance.begin_execution(instance.execution_no + 1)
        batch.rows.executions_removed.append((instance.no, instance.execution_no - 1))
    record = entity_state.changed()
    if record is not None:
        batch.rows.entity_states.append((instance.no, record))
    instance.open_local = int(bool(instance.waiting) or entity_state.lock is not None)
    instance.updated_at = max(instance.updated_at, batch.now)
    return True


def _vanish(batch: OpenBatch, instance: Instance) -> None:
    instance.purged = True
    instance.outcome = None
    if not instance.is_new:
        batch.rows.purged.append(instance.no)


def _create(batch: OpenBatch, instance_id: str) -> Instance:
    created = Instance(
        no=batch.instance_numbers.take(),
        instance_id=instance_id,
        partition=batch.partition_of(instance_id),
        name=name_in(instance_id),
        version="",
        salt=batch.random.salt(),
        created_at=batch.now,
        parent=None,
        tags=None,
    )
    created.entity_state = LiveEntity()
    created.status = S.Running
    batch.cache.keep(created)
    batch.touch(created)
    batch.absent.discard(instance_id)
    if instance_id in batch.quarantine:
        park(batch, created, "poison", batch.quarantine[instance_id])
    elif batch.functions.entity(created.name) is None:
        _park_unknown(batch, created)
    return created


def _park_unknown(batch: OpenBatch, instance: Instance) -> None:
    instance.status = S.Pending
    instance.reason = f"no_worker: no worker here has the entity {instance.name!r}"
    batch.touch(instance)
    batch.released.parked.append((instance.instance_id, instance.reason, instance.name))


def _for_later(batch: OpenBatch, envelope: Envelope, at: int) -> None:
    batch.answer(envelope, None)
    batch.store_delayed(envelope.message, at)


def _overflow(batch: OpenBatch, instance: Instance) -> Overloaded:
    return Overloaded(
        f"the entity {instance.instance_id!r} already has {batch.limits.buffered_events} waiting operations: "
        "this operation was rejected. The entity may be locked, suspended, or without a worker; try again "
        "later"
    )


def _entity_state(instance: Instance) -> LiveEntity:
    entity_state = instance.entity_state
    assert entity_state is not None
    return entity_state


def _code(batch: OpenBatch, instance: Instance) -> EntityCode:
    code = batch.functions.entity(instance.name)
    assert code is not None
    return code


HANDLERS: Final[dict[type, Callable[[OpenBatch, Any, Envelope, Any], None]]] = {
    msg.EntityOperation: arrive,
    msg.LockRequest: arrive,
    msg.LockRelease: arrive,
    msg.Wake: wake,
    msg.ActivityResult: land,
    msg.Suspend: control.suspend,
    msg.Resume: resume,
    msg.Purge: purge,
}
"""The handlers of an entity's messages; others are rejected."""
