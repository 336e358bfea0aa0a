"""Entities: each does one thing at a time, in the order of arrival, and what it must not do now waits.

An operation runs on the loop's thread, in the batch that took it up: its state, its answer and its signals are
committed together, and the message is consumed by the same transaction, so it counts exactly once.
What cannot run yet is held, durably: while another instance has the entity locked, while an operation runs outside
the loop, while the entity is suspended, and while nobody here has its function.
While it is locked, the first thing from its holder goes next; otherwise simply the first.
An entity with `offload=True` runs each operation after the commit that kept it, like an activity, at least once; the
message stays held until the result comes back, and the result counts only if it is of the very operation that is
due. A locked entity that somebody waits for asks after its holder, so that no lock outlives it.
A batch writes one history row for an entity, naming what was done; only the newest of them are kept. An entity
without state, lock or anything waiting is no longer there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from msgspec import structs

from perdure.engine.core import activity_rows, control
from perdure.engine.core.entity_state import LiveEntity, flight_of
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.offloading import answer_of, invocation_of, misfit_of
from perdure.engine.core.parking import note
from perdure.engine.core.recovery import park
from perdure.errors import IllegalTransition, Interrupted, Overloaded
from perdure.failure import Failure
from perdure.model import messages as msg
from perdure.model.entities import Caller, EntityId, name_in
from perdure.model.events import ABSENT, ExecutionResumed
from perdure.model.instances import RuntimeStatus
from perdure.model.waiting import MISFIT, kind_of
from perdure.replay.determinism import Mismatch
from perdure.replay.entity import EntityCode, Operated, Surroundings, operate, undone

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus
Arriving = msg.EntityOperation | msg.LockRequest | msg.LockRelease
KEPT: Final = 16  # history rows of an execution; the one before is kept too


def arrive(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Arriving) -> None:
    """An operation, a request for its lock, or the end of one."""
    if batch.accept_only:
        _for_later(batch, envelope, batch.now)
        return
    if isinstance(message, msg.EntityOperation) and message.visible_at:
        if message.visible_at > batch.now:
            _for_later(batch, envelope, message.visible_at)
        else:  # from now on it stands in line with the others
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
    """Do what waits for the entity, as far as it may be done now."""
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
    """At a start, or when it is its turn again: perhaps there is a worker by now, and perhaps no holder."""
    entity_state = _entity_state(instance)
    batch.consume(envelope)
    if instance.reason.startswith("no_worker") and batch.functions.entity(instance.name) is not None:
        instance.status, instance.reason = S.Running, ""
        batch.touch(instance)
    elif kind_of(instance.reason) == MISFIT and message.retry:
        _unpark(batch, instance, "tried again at a worker's start")
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
    """An operator gives up a suspended entity, with its state and what waits for it."""
    holder = _entity_state(instance).lock
    if instance.status is not S.Suspended or holder is not None:
        why = f"{holder.instance_id!r} has it locked" if holder else "it is not suspended"
        batch.answer(
            envelope,
            IllegalTransition(
                f"cannot purge the entity {instance.instance_id!r}: {why}. Signal it the operation 'delete' to "
                "delete it; suspend it first to throw away also what waits for it"
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
    """A verb for orchestrations only."""
    verb = type(message).__name__.lower()
    batch.answer(
        envelope,
        IllegalTransition(
            f"{instance.instance_id!r} is an entity, and {verb} is for orchestrations: signal it an operation"
        ),
    )


# ------------------------------------------------------------------------------------------- whose turn it is


def _may_go(batch: OpenBatch, instance: Instance, message: Arriving) -> bool:
    entity_state = _entity_state(instance)
    code = batch.functions.entity(instance.name)
    if entity_state.flying or instance.status is not S.Running or code is None:
        return False
    if code.offload and isinstance(message, msg.EntityOperation):
        return False  # what runs outside the loop is kept first
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
        return None  # among a thousand that wait, nobody looks for what is not there
    return next((envelope for envelope in held if _is_holder(lock, envelope.message)), None)


def _is_first(instance: Instance) -> bool:
    """Whether nothing waits that would have to go before what has just come, if that may go at all."""
    return not instance.waiting or (_entity_state(instance).lock is not None and not _count_own(instance))


def _count_own(instance: Instance) -> int:
    """How much of what waits is the holder's."""
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
    """It waits no longer."""
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
    """Ask after the holder, once a batch: it may be gone in a way that told nobody."""
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
    """A release of what has not been granted: the request is taken out of the line."""
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
    """What came of an operation; None when the state does not fit the code, and the entity is parked."""
    entity_state, code = _entity_state(instance), _code(batch, instance)
    try:
        return batch.running.run(
            instance,
            operate,
            code,
            EntityId.parse(instance.instance_id),
            entity_state.state,
            entity_state.live,
            message,
            surroundings(batch),
        )
    except Interrupted as stopped:
        return _too_long(batch, instance, stopped)
    except Mismatch as found:
        park(batch, instance, MISFIT, str(found.error))
        return None


def _put_first(batch: OpenBatch, instance: Instance, envelope: Envelope) -> None:
    """The operation has not been done: it goes first when the entity goes on."""
    batch.hold(instance, envelope)
    held = instance.waiting
    assert held is not None
    held.insert(0, held.pop())
    _entity_state(instance).senders = None  # counted anew


def _too_long(batch: OpenBatch, instance: Instance, stopped: Interrupted) -> Operated:
    """The operation is undone and fails; the entity stands still until somebody has looked at it."""
    why = str(stopped) or "an operation kept the loop to itself for too long"
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
    """The operation is over: keep its state, answer it, send what it sent. It is consumed with that."""
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
    """Have the operation run after the commit that keeps it."""
    entity_state = _entity_state(instance)
    entity_state.flying = True
    batch.fed(instance)
    batch.released.invocations.append(
        invocation_of(_code(batch, instance), instance, entity_state, message, batch.now)
    )


def land(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.ActivityResult) -> None:
    """An operation that ran outside the loop is done."""
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
    _settle(batch, instance, due, operation, answer_of(message, entity_state.state))
    go_on(batch, instance)


def _due(instance: Instance) -> Envelope | None:
    """The operation that runs outside the loop: which one that is cannot change meanwhile."""
    lock = _entity_state(instance).lock
    for envelope in instance.waiting or ():
        if lock is None or _is_holder(lock, envelope.message):
            return envelope if isinstance(envelope.message, msg.EntityOperation) else None
    return None


# -------------------------------------------------------------------------------------------------- its row


def seal(batch: OpenBatch, instance: Instance) -> bool:
    """Before the entity's rows are made: its record and history. Returns False when there is none any more."""
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
    batch.released.parked.append((instance.instance_id, instance.reason))


def _for_later(batch: OpenBatch, envelope: Envelope, at: int) -> None:
    batch.answer(envelope, None)
    batch.store_delayed(envelope.message, at)


def _overflow(batch: OpenBatch, instance: Instance) -> Overloaded:
    return Overloaded(
        f"the entity {instance.instance_id!r} already has {batch.limits.buffered_events} operations waiting: this "
        "one was not accepted. It may be locked, suspended, or without a worker; try again later"
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
"""What a message does to an entity; anything else is refused."""
