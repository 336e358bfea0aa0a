"""What a message does to an instance: one function for each kind, chosen by a table.

Each function leaves the message in exactly one place: consumed (answered, fed, dropped with a record), held
until the instance is resumed, or deferred to the next batch. Whether a verb applies is read from the table of
transitions in `perdure.replay.state`; whether an arrival still has a place is asked of the execution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from perdure.engine.warm import Instance
from perdure.errors import (
    EngineSignal,
    IllegalTransition,
    InstanceExists,
    InstanceFinished,
    InstanceNotFound,
    Interrupted,
    NonDeterminismError,
    Overloaded,
    PerdureError,
)
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.failure import Failure, failure_of
from perdure.model.instances import PARTITIONS, RuntimeStatus, partition_of
from perdure.model.messages import (
    ActivityResult,
    Begin,
    ChildResult,
    Message,
    NextGeneration,
    Purge,
    RaiseEvent,
    Resume,
    Start,
    Suspend,
    Terminate,
    Wake,
    decode_message,
)
from perdure.model.records import InboxRow
from perdure.replay.context import Identity
from perdure.replay.decide import Execution
from perdure.replay.settle import Invocation, invocation_of, report_to_parent, settle, terminate_child
from perdure.replay.state import LEGAL

if TYPE_CHECKING:
    from perdure.engine.hub import Envelope, Hub, OrchestratorEntry

S = RuntimeStatus


def deliver(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    """Hand one message to its instance, which is None when there is none."""
    _HANDLERS[type(envelope.message)](hub, instance, envelope)


def envelope_of(row: InboxRow) -> Envelope:
    """A stored message."""
    from perdure.engine.hub import Envelope

    return Envelope(decode_message(row.message), None, row.message_no)


# ------------------------------------------------------------------------------------------------ starting


def _start(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if instance is not None:
        refusal = _start_refusal(instance, message)
        if refusal is not None:
            _refuse_start(hub, envelope, message, refusal)
            return
        if not instance.is_finished:  # return_existing
            hub.answer(envelope, instance.instance_id)
            return
        if message.on_existing == "return_existing":
            hub.answer(envelope, instance.instance_id)
            return
        _remove(hub, instance)
    created = _create(hub, message, instance)
    hub.answer(envelope, created.instance_id)
    first = Begin(
        instance_id=message.instance_id,
        execution_id=created.execution_id,
        input=message.input,
        operation_id=message.operation_id,
    )
    if message.visible_at > hub.now:
        created.reason = f"scheduled:{message.visible_at}"
        hub.store_delayed(first, message.visible_at)
    elif hub.accept_only:
        hub.store_delayed(first, hub.now)
    elif created.instance_id in hub.quarantine:
        _park(hub, created, "poison", hub.quarantine[created.instance_id])
        hub.hold(created, _internal(first))
    elif hub.functions.orchestrator(created.name) is None:
        _park_unknown(hub, created)
        hub.hold(created, _internal(first))
    else:
        hub.released.started.append(created.instance_id)
        _begin(hub, created, message.input, message.operation_id)


def _start_refusal(instance: Instance, message: Start) -> PerdureError | None:
    own_retry = (
        message.parent is not None
        and instance.parent is not None
        and instance.is_finished
        and instance.parent.instance_id == message.parent.instance_id
        and instance.parent.execution_id == message.parent.execution_id
    )
    if own_retry or message.on_existing == "return_existing":
        return None
    if instance.is_finished and message.on_existing == "replace_finished":
        return None
    return InstanceExists(
        f"an instance with the id {instance.instance_id!r} already exists and is {instance.status}: "
        "choose another id, wait for it to finish, or start with on_existing='return_existing'"
    )


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
    no = hub.next_instance_no
    hub.next_instance_no += 1
    entry = hub.functions.orchestrator(message.name)
    created = Instance(
        no=no,
        instance_id=message.instance_id,
        partition=partition_of(message.instance_id, PARTITIONS),
        name=entry.code.name if entry is not None else message.name,
        version=message.version or (entry.version if entry is not None else ""),
        salt=hub.chance.salt(),
        created_at=hub.now,
        parent=message.parent,
        tags=payload.encode(message.tags).decode() if message.tags else None,
    )
    hub.keep(created)
    hub.touch(created)
    return created


def _begin(hub: Hub, instance: Instance, body: Raw, operation_id: str) -> None:
    entry = hub.functions.orchestrator(instance.name)
    assert entry is not None
    instance.status = S.Running
    instance.reason = ""
    instance.execution = _execution(hub, instance, entry)
    started = ev.ExecutionStarted(
        name=instance.name,
        version=instance.version,
        input=body,
        parent=instance.parent,
        operation_id=operation_id,
    )
    _feed(hub, instance, started)


def _begin_message(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if instance is None or instance.is_finished or instance.execution_id != message.execution_id:
        hub.consume(envelope)
    elif instance.status is S.Suspended:
        hub.hold(instance, envelope)
    elif hub.functions.orchestrator(instance.name) is None:
        _park_unknown(hub, instance)
        hub.hold(instance, envelope)
    else:
        hub.consume(envelope)
        _begin(hub, instance, message.input, message.operation_id)
        _let_go(hub, instance)


def _next_generation(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if instance is None or instance.is_finished or instance.execution_id != message.execution_id:
        hub.consume(envelope)
    elif instance.status is S.Suspended:
        hub.hold(instance, envelope)
    elif hub.functions.orchestrator(instance.name) is None:
        _park_unknown(hub, instance)
        hub.hold(instance, envelope)
    else:
        hub.consume(envelope)
        _generation(hub, instance, message.input, message.carried)
        _let_go(hub, instance)


# ------------------------------------------------------------------------------------------------ arrivals


def _raise_event(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    refusal = _event_refusal(hub, instance, message)
    if refusal is not None:
        if envelope.reply is not None:
            hub.answer(envelope, refusal)
        else:
            hub.drop(envelope, str(refusal))
        return
    assert instance is not None
    if hub.accept_only:
        hub.answer(envelope, None)
        hub.store_delayed(message, hub.now)
        return
    if instance.status is not S.Running or instance.between:
        _hold_or_refuse(hub, instance, envelope)
        return
    if not _revive(hub, instance):
        hub.hold(instance, envelope)
        return
    assert instance.execution is not None
    if len(instance.execution.context._buffered) >= hub.limits.buffered_events:
        _overflow(hub, instance, envelope)
        return
    hub.answer(envelope, None)
    _feed(
        hub,
        instance,
        ev.EventRaised(name=message.name, input=message.input, operation_id=message.operation_id),
    )


def _event_refusal(hub: Hub, instance: Instance | None, message: RaiseEvent) -> PerdureError | None:
    if instance is None:
        return InstanceNotFound(
            f"no instance {message.instance_id!r} in this hub: the event {message.name!r} was not accepted. "
            "Check the id, or start the instance first"
        )
    if instance.status not in LEGAL["raise_event"]:
        return InstanceFinished(
            f"instance {instance.instance_id!r} is {instance.status}: it takes no more events; "
            f"{message.name!r} was not accepted"
        )
    entry = hub.functions.orchestrator(instance.name)
    if entry is not None:
        try:
            entry.admit(message.name, message.input)
        except PerdureError as refused:
            return refused
    return None


def _hold_or_refuse(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    if len(instance.held or ()) >= hub.limits.buffered_events:
        _overflow(hub, instance, envelope)
    else:
        hub.hold(instance, envelope)


def _overflow(hub: Hub, instance: Instance, envelope: Envelope) -> None:
    refusal = Overloaded(
        f"instance {instance.instance_id!r} already keeps {hub.limits.buffered_events} events that it has not "
        "taken: this one was not accepted. It may be suspended, or wait for another event name"
    )
    if envelope.reply is not None:
        hub.answer(envelope, refusal)
    else:
        hub.drop(envelope, str(refusal))


def _activity_result(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if _is_stale(instance, message):
        _stale(hub, envelope)
        return
    assert instance is not None
    if not _ready(hub, instance, envelope, message.task_id):
        return
    assert instance.execution is not None
    if message.task_id not in instance.execution.context._calls:
        _stale(hub, envelope)
        return
    hub.consume(envelope)
    instance.open_local -= 1
    _feed(
        hub,
        instance,
        ev.TaskFailed(task_id=message.task_id, failure=message.failure)
        if message.failure is not None
        else ev.TaskCompleted(task_id=message.task_id, result=message.result),
    )


def _child_result(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if _is_stale(instance, message):
        _stale(hub, envelope)
        return
    assert instance is not None
    if not _ready(hub, instance, envelope):
        return
    assert instance.execution is not None
    if message.task_id not in instance.execution.context._calls:
        _stale(hub, envelope)
        return
    hub.consume(envelope)
    if instance.children:
        instance.children.pop(message.task_id, None)
    _feed(
        hub,
        instance,
        ev.SubOrchestrationFailed(task_id=message.task_id, failure=message.failure)
        if message.failure is not None
        else ev.SubOrchestrationCompleted(task_id=message.task_id, result=message.result),
    )


def _is_stale(instance: Instance | None, message: ActivityResult | ChildResult) -> bool:
    return instance is None or instance.is_finished or instance.execution_id != message.execution_id


def _stale(hub: Hub, envelope: Envelope) -> None:
    hub.counters["stale_results"] += 1
    hub.consume(envelope)


def _wake(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    if instance is None:
        return
    if instance.status is S.Suspended or (instance.status is S.Pending and instance.reason):
        _retry_parked(hub, instance)
        return
    if not instance.is_running or instance.between or not _revive(hub, instance):
        return
    assert instance.execution is not None
    context = instance.execution.context
    while (due := context._earliest_timer()) is not None and due <= hub.now:
        if instance.feeds >= hub.limits.feeds:
            hub.defer(Wake(instance_id=instance.instance_id))
            return
        timer_id = context._due[0][1]
        _feed(hub, instance, ev.TimerFired(timer_id=timer_id))
        if not instance.is_running or instance.execution is None or instance.execution.context is not context:
            return


def _ready(hub: Hub, instance: Instance, envelope: Envelope, answers: int = -1) -> bool:
    """Whether the instance can be fed now; if not, the message is held. `answers` is the task it completes."""
    if instance.status is S.Running and not instance.between and _revive(hub, instance, answers):
        return True
    hub.hold(instance, envelope)
    return False


# ------------------------------------------------------------------------------------------------ operators


def _suspend(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    refusal = _illegal("suspend", instance, message.instance_id)
    if refusal is None:
        assert instance is not None
        if instance.status is not S.Suspended:
            _note(hub, instance, ev.ExecutionSuspended(reason=message.reason))
            instance.status = S.Suspended
            instance.reason = f"operator: {message.reason}" if message.reason else "operator"
            instance.due_at = None
    hub.answer(envelope, refusal)


def _resume(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    refusal = _illegal("resume", instance, message.instance_id)
    if refusal is not None:
        hub.answer(envelope, refusal)
        return
    assert instance is not None
    if instance.status is not S.Suspended and not instance.reason.startswith("no_worker"):
        hub.answer(envelope, None)
    elif _parked_just_now(instance):
        hub.postpone(envelope)
    elif hub.accept_only:
        hub.answer(envelope, None)
        hub.store_delayed(message, hub.now)
    else:
        hub.answer(envelope, None)
        _go_on(hub, instance, message.reason)


def _parked_just_now(instance: Instance) -> bool:
    """Its code was put away in this batch, and its history can be loaded only after the commit."""
    return instance.execution is None and instance.stored is None and instance.outcome is not None


def _go_on(hub: Hub, instance: Instance, reason: str) -> None:
    """Resume: the code is made again if it was parked, and what was held is delivered in order."""
    begun = instance.execution is not None or _was_begun(instance)
    if instance.status is S.Suspended:
        _note(hub, instance, ev.ExecutionResumed(reason=reason))
    instance.reason = ""
    instance.status = S.Running if begun else S.Pending
    hub.touch(instance)
    if begun and not _revive(hub, instance):
        return
    _let_go(hub, instance)
    if instance.is_running:
        hub.send(Wake(instance_id=instance.instance_id))


def _was_begun(instance: Instance) -> bool:
    """Whether its code has ever run: control events alone do not begin an execution."""
    if instance.stored is None:
        return False
    try:
        recorded = instance.recorded()
    except (msgspec.ValidationError, msgspec.DecodeError):
        return True
    return any(isinstance(event, ev.ExecutionStarted) for _, events in recorded for event in events)


def _let_go(hub: Hub, instance: Instance) -> None:
    held, instance.held = instance.held, None
    for envelope in held or ():
        envelope.held = False
    if held:
        hub.send_first(held)


def _retry_parked(hub: Hub, instance: Instance) -> None:
    """At a worker's start: perhaps the deployed code fits by now."""
    kind = instance.reason.partition(":")[0]
    if kind == "no_worker" and hub.functions.orchestrator(instance.name) is None:
        return
    if kind in ("no_worker", "nondeterminism") and not _parked_just_now(instance):
        _go_on(hub, instance, "tried again at a worker's start")


def _terminate(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    if message.link is not None and (instance is None or instance.parent != message.link):
        hub.consume(envelope)  # a stranger under the id of a child that never came to be
        return
    refusal = _illegal("terminate", instance, message.instance_id)
    hub.answer(envelope, refusal)
    if refusal is not None:
        return
    assert instance is not None
    children = _children_of(instance) if message.recursive else {}
    for task_id, child_id in children.items():
        hub.send(
            terminate_child(instance.instance_id, instance.execution_id, task_id, child_id, message.reason)
        )
    _note(hub, instance, ev.ExecutionTerminated(reason=message.reason))
    _drop_held(hub, instance, f"the instance was terminated: {message.reason}")
    _end(hub, instance, S.Terminated)
    if instance.parent is not None and message.link is None:
        failure = Failure("OrchestrationTerminated", message.reason or "the sub-orchestration was terminated")
        hub.send(report_to_parent(instance.parent, instance.instance_id, act.FailOrchestration(failure)))


def _purge(hub: Hub, instance: Instance | None, envelope: Envelope) -> None:
    message: Any = envelope.message
    refusal = _illegal("purge", instance, message.instance_id)
    hub.answer(envelope, refusal if refusal is not None else 1)
    if refusal is None:
        assert instance is not None
        _remove(hub, instance)


def _illegal(verb: str, instance: Instance | None, instance_id: str) -> PerdureError | None:
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


# ------------------------------------------------------------------------------------------ living and ending


def _feed(hub: Hub, instance: Instance, event: Any) -> None:
    """Tell the code one thing, and take up what it asked for."""
    outcome = instance.episode(hub.now)
    hub.touch(instance)
    hub.fed(instance)
    execution = instance.execution
    assert execution is not None
    outcome.events.append(event)
    running = hub.running
    try:
        running.enter(instance)
        actions = execution.arrive(event)
        running.leave()
    except Interrupted as stopped:
        running.leave()
        raise Quarantine(instance.instance_id, _too_long(stopped)) from stopped
    if actions:
        first_new = len(outcome.invocations)
        settle(actions, outcome)
        _take_up(hub, instance, first_new)
    if outcome.ending is not None:
        _finish(hub, instance, outcome.ending)


def _take_up(hub: Hub, instance: Instance, first_new: int) -> None:
    """Messages go on their way within the batch, activities start after its commit."""
    outcome = instance.outcome
    assert outcome is not None
    fresh = outcome.invocations[first_new:]
    if fresh:
        instance.open_local += len(fresh)
        hub.released.invocations.extend(fresh)
    if outcome.messages:
        for message in outcome.messages:
            if isinstance(message, Start) and message.parent is not None:
                if instance.children is None:
                    instance.children = {}
                instance.children[message.parent.task_id] = message.instance_id
            hub.send(message)
        outcome.messages = []
    if outcome.rejections:
        for rejection in outcome.rejections:
            hub.record_drop(
                instance.instance_id,
                "event",
                rejection.name,
                rejection.operation_id,
                rejection.reason,
                bytes(rejection.input),
            )
        outcome.rejections = []


def _finish(hub: Hub, instance: Instance, ending: act.Finish) -> None:
    match ending:
        case act.ContinueAsNew():
            _continue(hub, instance, ending)
            return
        case act.CompleteOrchestration():
            status = S.Completed
        case act.FailOrchestration():
            status = S.Failed
    _drop_held(hub, instance, f"the instance has {status.lower()}")
    parent = instance.parent
    _end(hub, instance, status)
    if parent is not None:
        hub.send(report_to_parent(parent, instance.instance_id, ending))


def _end(hub: Hub, instance: Instance, status: RuntimeStatus) -> None:
    if instance.execution is not None:
        unconsumed = instance.execution.context._unconsumed()
        for event in unconsumed:
            hub.record_drop(
                instance.instance_id,
                "event",
                event.name,
                event.operation_id,
                f"the instance has {status.lower()} without taking it",
                bytes(event.input),
            )
    # The status that is set last belongs to the row; the code has had its last word.
    if instance.execution is not None and instance.execution.context._status_changed:
        context = instance.execution.context
        hub.rows.custom_status.append((instance.no, context._custom_status or b"null"))
    if instance.execution is not None:
        instance.custom_status = instance.execution.context._custom_status
    assert instance.outcome is not None
    instance.ending = instance.outcome.events[-1]  # type: ignore[assignment]
    instance.put_away()
    hub.close_waits(instance)
    instance.status = status
    instance.reason = ""
    instance.completed_at = instance.last_at
    instance.due_at = None
    instance.open_local = 0
    instance.children = None
    hub.released.finished.append(instance)


def _continue(hub: Hub, instance: Instance, ending: act.ContinueAsNew) -> None:
    assert instance.execution is not None
    context = instance.execution.context
    carried = context._unconsumed() if ending.save_events else ()
    if context._status_changed:
        hub.rows.custom_status.append((instance.no, context._custom_status or b"null"))
    instance.put_away()
    hub.close_waits(instance)
    instance.due_at = None
    instance.open_local = 0
    instance.children = None
    if instance.feeds >= hub.limits.feeds:
        instance.between = True
        hub.defer(
            NextGeneration(
                instance_id=instance.instance_id,
                execution_id=instance.execution_id,
                input=ending.input,
                carried=carried,
            )
        )
    else:
        _generation(hub, instance, ending.input, carried)


def _generation(hub: Hub, instance: Instance, body: Raw, carried: tuple[ev.EventRaised, ...]) -> None:
    entry = hub.functions.orchestrator(instance.name)
    assert entry is not None
    kept = hub.limits.keep_executions
    if kept <= 1:
        instance.outcome = None  # the row of a generation that is deleted in the same commit is never written
    else:
        hub.write_episode(instance)
    hub.touch(instance)
    instance.between = False
    instance.stored = None
    instance.begin_execution(instance.execution_no + 1)
    if instance.written:
        hub.rows.executions_removed.append((instance.no, instance.execution_no - kept + 1))
    instance.execution = _execution(hub, instance, entry)
    started = ev.ExecutionStarted(
        name=instance.name,
        version=instance.version,
        input=body,
        parent=instance.parent,
        carried=carried,
    )
    _feed(hub, instance, started)


def _execution(hub: Hub, instance: Instance, entry: OrchestratorEntry) -> Execution:
    return Execution(
        entry.code,
        Identity(
            instance.instance_id,
            instance.execution_id,
            instance.parent.instance_id if instance.parent else None,
            instance.version,
        ),
        hub.functions.environment,
    )


# ------------------------------------------------------------------------------------------ revival and parking


def _revive(hub: Hub, instance: Instance, answered: int = -1) -> bool:
    """Make the code alive by replaying its history; parks the instance when that cannot be done."""
    if instance.execution is not None:
        return True
    if instance.stored is None:
        return False
    entry = hub.functions.orchestrator(instance.name)
    if entry is None:
        _park_unknown(hub, instance)
        return False
    execution = _execution(hub, instance, entry)
    hub.counters["replays"] += 1
    running = hub.running
    try:
        recorded = instance.recorded()
        running.enter(instance)
        execution.replay(recorded)
        running.leave()
    except Interrupted as stopped:
        running.leave()
        execution.close()
        raise Quarantine(instance.instance_id, _too_long(stopped)) from stopped
    except NonDeterminismError as error:
        running.leave()
        execution.close()
        _park(hub, instance, "nondeterminism", str(error))
        return False
    except (msgspec.ValidationError, msgspec.DecodeError, KeyError) as error:
        running.leave()
        execution.close()
        _park(hub, instance, "poison", f"its history cannot be read by this version: {error}")
        return False
    if execution.is_finished:  # it continued as new, and its next generation is on the way
        execution.close()
        instance.between = True
        return False
    _adopt(hub, instance, execution, recorded, answered)
    return True


def _adopt(
    hub: Hub,
    instance: Instance,
    execution: Execution,
    recorded: list[tuple[int, list[ev.HistoryEvent]]],
    answering: int,
) -> None:
    """The replayed code takes over; activities that history leaves open here are started again."""
    instance.execution = execution
    instance.last_at = max(instance.last_at, recorded[-1][0] if recorded else 0)
    context = execution.context
    context._status_changed = False
    context._opened_waits.clear()
    context._closed_waits.clear()
    for wait in context._waits.values():
        wait.saved = True
    instance.saved_waits = len(context._waits)
    if instance.stored is not None:
        instance.size = sum(len(row.events) for row in instance.stored.history)
        hub.warm_bytes += instance.size
    instance.stored = None
    open_calls = context._calls
    again: list[Invocation] = []
    instance.open_local = 0
    held = (e.message for e in instance.held or ())
    answered = {answering, *(m.task_id for m in held if isinstance(m, ActivityResult))}
    for _, events in recorded:
        for event in events:
            if isinstance(event, ev.TaskScheduled) and event.id in open_calls and event.placed == "local":
                instance.open_local += 1
                if event.id in answered:
                    continue
                again.append(invocation_of(event, instance.instance_id, instance.execution_id))
            elif isinstance(event, ev.SubOrchestrationCreated) and event.id in open_calls:
                if instance.children is None:
                    instance.children = {}
                instance.children[event.id] = event.instance_id
    hub.released.invocations.extend(again)
    if instance.outcome is not None:
        execution.begin_episode(instance.last_at)


class Quarantine(EngineSignal):
    """This instance cannot be processed: the batch is undone, and redone with the instance parked."""

    def __init__(self, instance_id: str, detail: str) -> None:
        super().__init__(detail)
        self.instance_id = instance_id
        self.detail = detail


def _too_long(stopped: Interrupted) -> str:
    return str(stopped) or "the orchestrator kept the loop to itself for too long"


def quarantine(hub: Hub, instance: Instance) -> None:
    """Park an instance that the store or the watchdog would not have."""
    if not instance.is_finished and instance.reason.partition(":")[0] != "poison":
        _park(hub, instance, "poison", hub.quarantine[instance.instance_id])


def _park_unknown(hub: Hub, instance: Instance) -> None:
    _park(hub, instance, "no_worker", f"no worker here has the orchestrator {instance.name!r}")


def _park(hub: Hub, instance: Instance, kind: str, detail: str) -> None:
    """Set the instance aside, visibly. It is tried again at `resume`, and some kinds at a worker's start."""
    reason = f"{kind}: {detail}"[:4_000]
    if instance.reason == reason:
        return
    instance.put_away()
    if kind == "no_worker" and not instance.episodes and instance.outcome is None:
        instance.status = S.Pending
    else:
        _note(hub, instance, ev.ExecutionParked(kind=kind, detail=detail[:4_000]))
        instance.status = S.Suspended
    instance.reason = reason
    instance.due_at = None
    hub.touch(instance)
    hub.released.parked.append((instance.instance_id, reason))


def _note(hub: Hub, instance: Instance, event: Any) -> None:
    """A control event, which the code never sees."""
    outcome = instance.episode(hub.now)
    outcome.events.append(event)
    hub.touch(instance)
    hub.fed(instance)


def _drop_held(hub: Hub, instance: Instance, reason: str) -> None:
    held, instance.held = instance.held, None
    for envelope in held or ():
        envelope.held = False
        hub.drop(envelope, reason)


def _remove(hub: Hub, instance: Instance) -> None:
    instance.put_away()
    instance.purged = True
    if instance.is_new:
        rows = hub.rows
        rows.history = [row for row in rows.history if row.instance_no != instance.no]
        rows.bodies = [row for row in rows.bodies if row.instance_no != instance.no]
        rows.custom_status = [row for row in rows.custom_status if row[0] != instance.no]
    else:
        hub.rows.purged.append(instance.no)
    if hub.warm.get(instance.instance_id) is instance:
        hub.evict(instance)
    hub.absent.add(instance.instance_id)


def _children_of(instance: Instance) -> dict[int, str]:
    """Open sub-orchestrations, also of an instance whose code is not alive."""
    if instance.execution is not None or instance.stored is None:
        return dict(instance.children or {})
    return {task_id: event.instance_id for task_id, (event, _) in fold(instance.recorded()).children.items()}


def _internal(message: Message) -> Envelope:
    from perdure.engine.hub import Envelope

    return Envelope(message, internal=True)


def scheduled_at(reason: str) -> int:
    """When a Pending instance is to begin, from its row's reason; 0 when it is not waiting for a time."""
    kind, _, at = reason.partition(":")
    return int(at) if kind == "scheduled" and at.isdigit() else 0


_HANDLERS: Final[dict[type, Callable[[Any, Any, Any], None]]] = {
    Start: _start,
    Begin: _begin_message,
    NextGeneration: _next_generation,
    RaiseEvent: _raise_event,
    ActivityResult: _activity_result,
    ChildResult: _child_result,
    Suspend: _suspend,
    Resume: _resume,
    Terminate: _terminate,
    Purge: _purge,
    Wake: _wake,
}
