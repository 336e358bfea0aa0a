"""Entities in the hub: each does one thing at a time, in the order of arrival, and what it must not do now waits.

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

from perdure.engine.activities.offloaded import answer_of, invocation_of, misfit_of
from perdure.engine.core import activity_rows, control
from perdure.engine.core.entity_state import Mailbox, flight_of
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
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
    from perdure.engine.core.dispatcher import Hub

S = RuntimeStatus
KEPT: Final = 16  # history rows of an execution; the one before is kept too


def arrive(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    """An operation, a request for its lock, or the end of one."""
    message: Any = envelope.message
    if hub.accept_only:
        _for_later(hub, envelope, hub.now)
        return
    if isinstance(message, msg.EntityOperation) and message.visible_at:
        if message.visible_at > hub.now:
            _for_later(hub, envelope, message.visible_at)
        else:  # from now on it stands in line with the others
            hub.answer(envelope, None)
            hub.send(structs.replace(message, visible_at=0))
        return
    if instance is None:
        instance = _create(hub, message.instance_id)
    if isinstance(message, msg.LockRelease) and _call_off(hub, instance, message, envelope):
        return
    if envelope.reply is not None and len(instance.held or ()) >= hub.limits.buffered_events:
        hub.answer(envelope, _overflow(hub, instance))
        return
    if _is_first(instance) and _may_go(hub, instance, message):
        _do(hub, instance, envelope)
    else:
        _wait(hub, instance, envelope)
    go_on(hub, instance)


def go_on(hub: Hub, instance: Instance) -> None:
    """Do what waits for the entity, as far as it may be done now."""
    while (envelope := _next(hub, instance)) is not None:
        if instance.feeds >= hub.limits.feeds:
            hub.take_turns(msg.Wake(instance_id=instance.instance_id))
            return
        if isinstance(envelope.message, msg.EntityOperation) and _code(hub, instance).offload:
            _take_off(hub, instance, envelope)
            return
        _take_out(instance, envelope)
        _do(hub, instance, envelope)


def wake(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    """At a start, or when it is its turn again: perhaps there is a worker by now, and perhaps no holder."""
    message: Any = envelope.message
    mailbox = _mailbox(instance)
    hub.consume(envelope)
    if instance.reason.startswith("no_worker") and hub.functions.entity(instance.name) is not None:
        instance.status, instance.reason = S.Running, ""
        hub.touch(instance)
    elif kind_of(instance.reason) == MISFIT and message.retry:
        _unpark(hub, instance, "tried again at a worker's start")
    if mailbox.lock is not None:
        _probe(hub, instance, mailbox.lock)
    go_on(hub, instance)


def resume(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    message: Any = envelope.message
    hub.answer(envelope, None)
    if instance.status is S.Running:
        return
    _unpark(hub, instance, message.reason)
    go_on(hub, instance)


def _unpark(hub: Hub, instance: Instance, reason: str) -> None:
    note(hub, instance, ExecutionResumed(reason=reason))
    instance.status, instance.reason = S.Running, ""


def purge(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    """An operator gives up a suspended entity, with its state and what waits for it."""
    holder = _mailbox(instance).lock
    if instance.status is not S.Suspended or holder is not None:
        why = f"{holder.instance_id!r} has it locked" if holder else "it is not suspended"
        hub.answer(
            envelope,
            IllegalTransition(
                f"cannot purge the entity {instance.instance_id!r}: {why}. Signal it the operation 'delete' to "
                "delete it; suspend it first to throw away also what waits for it"
            ),
        )
        return
    hub.answer(envelope, 1)
    held, instance.held = instance.held, None
    _mailbox(instance).senders = None
    _mailbox(instance).state = ABSENT
    instance.status, instance.reason = S.Running, ""
    hub.touch(instance)
    gone = Failure("EntityPurged", f"the entity {instance.instance_id} was purged by an operator")
    for waiting in held or ():
        waiting.held = False
        if isinstance(waiting.message, msg.EntityOperation):
            _settle(hub, instance, waiting, Operated(ABSENT, failure=gone))
    hub.send_first(e for e in held or () if not isinstance(e.message, msg.EntityOperation))


def refuse(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    """A verb for orchestrations only."""
    verb = type(envelope.message).__name__.lower()
    hub.answer(
        envelope,
        IllegalTransition(
            f"{instance.instance_id!r} is an entity, and {verb} is for orchestrations: signal it an operation"
        ),
    )


# ------------------------------------------------------------------------------------------- whose turn it is


def _may_go(hub: Hub, instance: Instance, message: Any) -> bool:
    mailbox = _mailbox(instance)
    code = hub.functions.entity(instance.name)
    if mailbox.flying or instance.status is not S.Running or code is None:
        return False
    if code.offload and isinstance(message, msg.EntityOperation):
        return False  # what runs outside the loop is kept first
    return mailbox.lock is None or _is_holder(mailbox.lock, message)


def _next(hub: Hub, instance: Instance) -> Envelope | None:
    mailbox, held = _mailbox(instance), instance.held
    if not held or mailbox.flying or instance.status is not S.Running:
        return None
    if hub.functions.entity(instance.name) is None:
        _park_unknown(hub, instance)
        return None
    lock = mailbox.lock
    if lock is None:
        first: Envelope = held[0]
        return first
    if not _count_own(instance):
        return None  # among a thousand that wait, nobody looks for what is not there
    return next((envelope for envelope in held if _is_holder(lock, envelope.message)), None)


def _is_first(instance: Instance) -> bool:
    """Whether nothing waits that would have to go before what has just come, if that may go at all."""
    return not instance.held or (_mailbox(instance).lock is not None and not _count_own(instance))


def _count_own(instance: Instance) -> int:
    """How much of what waits is the holder's."""
    mailbox = _mailbox(instance)
    if mailbox.lock is None:
        return 0
    if mailbox.senders is None:
        mailbox.senders = Counter(_sender(envelope) for envelope in instance.held or ())
    return mailbox.senders[mailbox.lock.instance_id]


def _sender(envelope: Envelope) -> str:
    caller: Caller | None = envelope.message.caller  # type: ignore[union-attr]
    return caller.instance_id if caller is not None else ""


def _take_out(instance: Instance, envelope: Envelope) -> None:
    """It waits no longer."""
    assert instance.held is not None
    instance.held.remove(envelope)
    envelope.held = False
    senders = _mailbox(instance).senders
    if senders is not None:
        senders[_sender(envelope)] -= 1


def _is_holder(lock: Caller, message: Any) -> bool:
    caller = message.caller
    return (
        caller is not None
        and caller.instance_id == lock.instance_id
        and caller.execution_id == lock.execution_id
    )


def _wait(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    hub.hold(instance, envelope)
    hub.touch(instance)
    mailbox = _mailbox(instance)
    if mailbox.senders is not None:
        mailbox.senders[_sender(envelope)] += 1
    if mailbox.lock is not None and not _is_holder(mailbox.lock, envelope.message):
        _probe(hub, instance, mailbox.lock)


def _probe(hub: Hub, instance: Instance, lock: Caller) -> None:
    """Ask after the holder, once a batch: it may be gone in a way that told nobody."""
    mailbox = _mailbox(instance)
    if mailbox.probed_at == hub.now:
        return
    mailbox.probed_at = hub.now
    hub.send(
        msg.LockProbe(
            instance_id=lock.instance_id,
            execution_id=lock.execution_id,
            task_id=lock.task_id,
            entity=instance.instance_id,
        )
    )


def _call_off(hub: Hub, instance: Instance, message: msg.LockRelease, envelope: Envelope) -> bool:
    """A release of what has not been granted: the request is taken out of the line."""
    if _mailbox(instance).lock == message.caller:
        return False
    hub.consume(envelope)
    hub.touch(instance)
    for waiting in instance.held or ():
        if isinstance(waiting.message, msg.LockRequest) and waiting.message.caller == message.caller:
            _take_out(instance, waiting)
            hub.consume(waiting)
            break
    return True


# ----------------------------------------------------------------------------------------------- doing it


def _do(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    message, mailbox = envelope.message, _mailbox(instance)
    hub.fed(instance)
    hub.touch(instance)
    match message:
        case msg.EntityOperation():
            done = _run(hub, instance, message)
            if done is None:
                _put_first(hub, instance, envelope)
            else:
                _settle(hub, instance, envelope, done)
        case msg.LockRequest(caller=caller):
            mailbox.lock = caller
            hub.consume(envelope)
            hub.send(
                msg.LockGrant(
                    instance_id=caller.instance_id,
                    execution_id=caller.execution_id,
                    task_id=caller.task_id,
                    entity=instance.instance_id,
                )
            )
        case _:  # the end of the lock
            mailbox.lock = None
            hub.consume(envelope)


def _run(hub: Hub, instance: Instance, message: msg.EntityOperation) -> Operated | None:
    """What came of an operation; None when the state does not fit the code, and the entity is parked."""
    mailbox, code = _mailbox(instance), _code(hub, instance)
    try:
        return hub.running.run(
            instance,
            operate,
            code,
            EntityId.parse(instance.instance_id),
            mailbox.state,
            mailbox.live,
            message,
            surroundings(hub),
        )
    except Interrupted as stopped:
        return _too_long(hub, instance, stopped)
    except Mismatch as found:
        park(hub, instance, MISFIT, str(found.error))
        return None


def _put_first(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    """The operation has not been done: it goes first when the entity goes on."""
    hub.hold(instance, envelope)
    held = instance.held
    assert held is not None
    held.insert(0, held.pop())
    _mailbox(instance).senders = None  # counted anew


def _too_long(hub: Hub, instance: Instance, stopped: Interrupted) -> Operated:
    """The operation is undone and fails; the entity stands still until somebody has looked at it."""
    why = str(stopped) or "an operation kept the loop to itself for too long"
    park(hub, instance, "poison", f"{why}; operations that do I/O need offload=True")
    return undone(_mailbox(instance).state, TimeoutError(why))


def surroundings(hub: Hub) -> Surroundings:
    environment = hub.functions.environment
    return Surroundings(
        hub.now,
        lambda: hub.chance.salt().hex(),
        lambda function: environment.orchestrator(function).name,
        environment.entity,
    )


def _settle(hub: Hub, instance: Instance, envelope: Envelope, done: Operated) -> None:
    """The operation is over: keep its state, answer it, send what it sent. It is consumed with that."""
    message: Any = envelope.message
    mailbox = _mailbox(instance)
    mailbox.state, mailbox.live = done.state, done.live
    sender = message.caller.instance_id if message.caller is not None else ""
    mailbox.note(message.operation, sender, str(done.failure)[:300] if done.failure is not None else "")
    hub.answer(envelope, None)
    if message.caller is not None and not message.is_signal:
        hub.send(
            msg.EntityResult(
                instance_id=sender,
                execution_id=message.caller.execution_id,
                task_id=message.caller.task_id,
                result=done.result,
                failure=done.failure,
            )
        )
    elif done.failure is not None:
        hub.record_drop(
            instance.instance_id,
            "operation",
            message.operation,
            message.operation_id,
            f"it failed: {done.failure}"[:4_000],
            bytes(message.input),
        )
    for sent in done.messages:
        hub.send(sent)


# ------------------------------------------------------------------------------------------- outside the loop


def _take_off(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    """Have the operation run after the commit that keeps it."""
    mailbox = _mailbox(instance)
    mailbox.flying = True
    hub.fed(instance)
    hub.touch(instance)
    hub.released.invocations.append(
        invocation_of(_code(hub, instance), instance, mailbox, envelope.message, hub.now)  # type: ignore[arg-type]
    )


def land(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    """An operation that ran outside the loop is done."""
    message: Any = envelope.message
    mailbox = _mailbox(instance)
    due = _due(instance)
    if (message.execution_id, message.task_id) != flight_of(instance, mailbox) or due is None:
        hub.counters["stale_results"] += 1
        hub.consume(envelope)
        activity_rows.unwanted(hub, envelope)
        return
    hub.consume(envelope)
    hub.fed(instance)
    hub.touch(instance)
    activity_rows.taken_up(hub, instance, message)
    unfit = misfit_of(message)
    if unfit:  # the operation stays due
        mailbox.flying = False
        park(hub, instance, MISFIT, unfit)
        return
    _take_out(instance, due)
    mailbox.flying = False
    mailbox.applied += 1
    _settle(hub, instance, due, answer_of(message, mailbox.state))
    go_on(hub, instance)


def _due(instance: Instance) -> Envelope | None:
    """The operation that runs outside the loop: which one that is cannot change meanwhile."""
    lock = _mailbox(instance).lock
    for envelope in instance.held or ():
        if lock is None or _is_holder(lock, envelope.message):
            return envelope if isinstance(envelope.message, msg.EntityOperation) else None
    return None


# -------------------------------------------------------------------------------------------------- its row


def seal(hub: Hub, instance: Instance) -> bool:
    """Before the entity's rows are made: its record and history. Returns False when there is none any more."""
    mailbox = _mailbox(instance)
    if mailbox.is_empty and not instance.held and instance.status is S.Running:
        _vanish(hub, instance)
        return False
    events = mailbox.take_log()
    if events:
        instance.episode(hub.now).events.extend(events)
    if instance.outcome is not None and instance.episodes >= KEPT:
        instance.begin_execution(instance.execution_no + 1)
        hub.rows.executions_removed.append((instance.no, instance.execution_no - 1))
    record = mailbox.changed()
    if record is not None:
        hub.rows.entity_states.append((instance.no, record))
    instance.open_local = int(bool(instance.held) or mailbox.lock is not None)
    instance.updated_at = max(instance.updated_at, hub.now)
    return True


def _vanish(hub: Hub, instance: Instance) -> None:
    instance.purged = True
    instance.outcome = None
    if not instance.is_new:
        hub.rows.purged.append(instance.no)


def _create(hub: Hub, instance_id: str) -> Instance:
    created = Instance(
        no=hub.instance_numbers.take(),
        instance_id=instance_id,
        partition=hub.partition_of(instance_id),
        name=name_in(instance_id),
        version="",
        salt=hub.chance.salt(),
        created_at=hub.now,
        parent=None,
        tags=None,
    )
    created.mailbox = Mailbox()
    created.status = S.Running
    hub.keep(created)
    hub.touch(created)
    hub.absent.discard(instance_id)
    if instance_id in hub.quarantine:
        park(hub, created, "poison", hub.quarantine[instance_id])
    elif hub.functions.entity(created.name) is None:
        _park_unknown(hub, created)
    return created


def _park_unknown(hub: Hub, instance: Instance) -> None:
    instance.status = S.Pending
    instance.reason = f"no_worker: no worker here has the entity {instance.name!r}"
    hub.touch(instance)
    hub.released.parked.append((instance.instance_id, instance.reason))


def _for_later(hub: Hub, envelope: Envelope, at: int) -> None:
    hub.answer(envelope, None)
    hub.store_delayed(envelope.message, at)


def _overflow(hub: Hub, instance: Instance) -> Overloaded:
    return Overloaded(
        f"the entity {instance.instance_id!r} already has {hub.limits.buffered_events} operations waiting: this "
        "one was not accepted. It may be locked, suspended, or without a worker; try again later"
    )


def _mailbox(instance: Instance) -> Mailbox:
    mailbox = instance.mailbox
    assert mailbox is not None
    return mailbox


def _code(hub: Hub, instance: Instance) -> EntityCode:
    code = hub.functions.entity(instance.name)
    assert code is not None
    return code


HANDLERS: Final[dict[type, Callable[[Any, Any, Any], None]]] = {
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
