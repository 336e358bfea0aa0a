"""The life cycle of an instance: processes one arrival at a time and the actions of its code, until it ends or
continues as new.

Only `feed` runs user code. Its actions are settled at once into the open episode; activities start after the
commit, messages to other instances are handled in the same batch. An end releases everything the execution
still has: its waits, its timers, its undelivered messages, which leave records where necessary.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from perdure.engine.core import activity_rows
from perdure.engine.core.critical_sections import release_locks
from perdure.engine.core.envelope import Elsewhere, Envelope
from perdure.engine.core.episodes import close_waits, write_episode
from perdure.engine.core.instance import Instance
from perdure.engine.core.noted import MISFIT as MISFIT_EVENT
from perdure.engine.core.noted import UNTAKEN
from perdure.engine.core.parking import set_back
from perdure.engine.core.pinning import entry_to_begin, pin
from perdure.engine.core.ports import Unwritten
from perdure.engine.core.tracing import begin_trace, traced
from perdure.errors import EngineSignal, FunctionMissing, Interrupted
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model.instances import RuntimeStatus, execution_id_of
from perdure.model.messages import Message, NextGeneration, Start
from perdure.model.trace_context import trace_continued
from perdure.model.waiting import MISFIT
from perdure.replay.decide import Execution
from perdure.replay.determinism import Mismatch
from perdure.replay.environment import Identity
from perdure.replay.settle import Outcome, report_to_parent, settle
from perdure.replay.state import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.ports import OrchestratorEntry

S = RuntimeStatus
SETTLED_AT_ONCE: Final = 2_000  # actions of one step between two pauses


class Quarantine(EngineSignal):
    """The instance cannot be processed: the batch is rolled back and repeated with the instance parked."""

    def __init__(self, instance_id: str, detail: str) -> None:
        super().__init__(detail)
        self.instance_id = instance_id
        self.detail = detail


def too_long(stopped: Interrupted) -> str:
    return str(stopped) or "the orchestrator blocked the engine for too long"


def begin(
    batch: OpenBatch,
    instance: Instance,
    body: Raw,
    operation_id: str,
    carried: tuple[ev.EventRaised, ...] = (),
    *,
    trace: str = "",
    kept: bool = False,
) -> None:
    """Run the first step of an instance. `kept`: its start was accepted before this engine started."""
    entry = entry_to_begin(batch, instance)
    assert entry is not None
    if not instance.version:
        pin(batch, instance, entry.version)
    instance.status = S.Running
    instance.reason = ""
    instance.execution = new_execution(batch, instance, entry)
    if batch.tracing is not None:
        trace = begin_trace(batch.tracing, instance, trace)
    if trace:
        instance.belongs_to(trace)
    if instance.outcome is not None:  # a resume opened the episode: there was no code then
        instance.execution.begin_episode(instance.last_at)
    started = ev.ExecutionStarted(
        name=instance.name,
        version=instance.version,
        input=body,
        parent=instance.parent,
        operation_id=operation_id,
        carried=carried,
        pairing=ev.AWAITED,
        parks_misfits=True,
        trace=trace,
    )
    feed(batch, instance, started, kept=kept)


def feed(batch: OpenBatch, instance: Instance, event: Any, *, kept: bool = False) -> None:
    """Pass one arrival to the code and process its actions.

    `kept`: the arrival was accepted before this engine started, perhaps under other code.
    """
    outcome = instance.episode(batch.now)
    batch.fed(instance)
    execution = instance.execution
    assert execution is not None
    outcome.events.append(event)
    if kept:
        execution.accepted_before(event)
    try:
        actions = batch.running.run(instance, execution.arrive, event)
    except Interrupted as stopped:
        raise Quarantine(instance.instance_id, too_long(stopped)) from stopped
    except FunctionMissing as missing:
        set_back(batch, instance, event, "no_worker", str(missing))
        return
    except Mismatch as found:
        set_back(batch, instance, event, MISFIT, str(found.error))
        return
    if batch.running.notice is not None:
        outcome.events.append(batch.running.notice)
        batch.running.notice = None
    if actions:
        _settle(batch, instance, outcome, actions)


def live_on(batch: OpenBatch, instance: Instance, actions: Sequence[act.Action]) -> None:
    """Process the code's actions."""
    _settle(batch, instance, instance.episode(batch.now), actions)


def _settle(batch: OpenBatch, instance: Instance, outcome: Outcome, actions: Sequence[act.Action]) -> None:
    if len(actions) <= SETTLED_AT_ONCE:
        settle(actions, outcome)
        _take_up(batch, instance, outcome)
    else:
        _settle_many(batch, instance, actions, outcome)
    if outcome.ending is not None:
        _finish(batch, instance, outcome.ending)


def _settle_many(
    batch: OpenBatch, instance: Instance, actions: Sequence[act.Action], outcome: Outcome
) -> None:
    for begin_at in range(0, len(actions), SETTLED_AT_ONCE):
        settle(actions[begin_at : begin_at + SETTLED_AT_ONCE], outcome)
        _take_up(batch, instance, outcome)
        batch.pause()


def _take_up(batch: OpenBatch, instance: Instance, outcome: Outcome) -> None:
    """Send messages within the batch; start activities after its commit."""
    if outcome.invocations:
        local = outcome.invocations
        if batch.placement is not None:
            local = activity_rows.place(batch, batch.placement, instance, local)
        instance.open_local += len(local)
        batch.released.invocations += local
        outcome.invocations = []
    if outcome.cancellations:
        rows = sum(activity_rows.cancelled(batch, instance, task_id) for task_id in outcome.cancellations)
        instance.open_local -= len(outcome.cancellations) - rows
        batch.released.cancelled += [(instance.execution_id, task_id) for task_id in outcome.cancellations]
        outcome.cancellations = []
    if outcome.messages:
        for message in outcome.messages:
            _note_child(instance, message)
            batch.send(message)
        outcome.messages = []
    if outcome.rejections:
        for rejection in outcome.rejections:
            batch.record_drop(
                instance.instance_id,
                "event",
                rejection.name,
                rejection.operation_id,
                rejection.reason,
                bytes(rejection.input),
                MISFIT_EVENT,
            )
        outcome.rejections = []


def _note_child(instance: Instance, message: Message) -> None:
    if isinstance(message, Start) and message.parent is not None:
        if instance.children is None:
            instance.children = {}
        instance.children[message.parent.task_id] = message.instance_id


def _finish(batch: OpenBatch, instance: Instance, ending: act.Finish) -> None:
    match ending:
        case act.ContinueAsNew():
            _continue(batch, instance, ending)
            return
        case act.CompleteOrchestration():
            status = S.Completed
        case act.FailOrchestration():
            status = S.Failed
    drop_held(batch, instance, f"the instance has {status.lower()}")
    parent = instance.parent
    end(batch, instance, status)
    if parent is not None:
        batch.send(report_to_parent(parent, instance.instance_id, ending))


def _continue(batch: OpenBatch, instance: Instance, ending: act.ContinueAsNew) -> None:
    assert instance.execution is not None
    execution = instance.execution
    carried, kept_events = execution.unconsumed(), execution.unconsumed_kept()
    if not ending.save_events:
        _record_unconsumed(batch, instance, carried, "the instance continued as new without its events")
        carried = ()
    carried = tuple(map(_freed, carried))
    status_set = execution.take_status()
    if status_set is not None:
        batch.rows.custom_status.append((instance.no, status_set))
    instance.note_custom_status()
    release_locks(batch, instance)
    if batch.announcing is not None:
        batch.announcing.left(batch, instance)
    instance.put_away(batch.running)
    close_waits(batch, instance)
    activity_rows.ended(batch, instance)
    instance.due_at = None
    instance.open_local = 0
    instance.children = None
    trace = _trace_continued(instance)
    no_code = ending.version and entry_to_begin(batch, instance, ending.version) is None
    if no_code or instance.feeds >= batch.limits.feeds:
        instance.between = True
        batch.defer(
            NextGeneration(
                instance_id=instance.instance_id,
                execution_id=instance.execution_id,
                input=ending.input,
                carried=carried,
                version=ending.version,
                trace=trace,
            )
        )
    else:
        next_execution(
            batch, instance, ending.input, carried, ending.version, trace=trace, kept_events=kept_events
        )


def _freed(event: ev.EventRaised) -> ev.EventRaised:
    """A carried event. The human task that it answers is closed, and ids begin again in the next execution."""
    return event if event.task == ev.ANY_TASK else msgspec.structs.replace(event, task=ev.EARLIER_TASK)


def _trace_continued(instance: Instance) -> str:
    """The trace of the next execution."""
    if not instance.trace:
        return ""
    following = execution_id_of(instance.salt, instance.execution_no + 1)
    return trace_continued(instance.trace, instance.instance_id, instance.execution_id, following)


def next_execution(
    batch: OpenBatch,
    instance: Instance,
    body: Raw,
    carried: tuple[ev.EventRaised, ...],
    version: str,
    *,
    trace: str = "",
    kept: bool = False,
    kept_events: int = 0,
) -> None:
    """Start the next execution. `kept`: input and events were accepted before this engine started; otherwise
    only the first few events.
    """
    if version:
        pin(batch, instance, version)
    entry = entry_to_begin(batch, instance)
    assert entry is not None
    rows_kept = batch.limits.keep_executions
    if rows_kept <= 1:
        if batch.tells and instance.outcome is not None:
            batch.released.unwritten.append(
                Unwritten(
                    instance, instance.execution_no, instance.trace, instance.last_at, instance.outcome.events
                )
            )
        if batch.tracing is not None and instance.outcome is not None:
            traced(batch.released.traced, instance, instance.episodes, instance.outcome.events)
        instance.outcome = None  # the row of an execution that the same commit deletes is never written
    else:
        write_episode(batch, instance)
        instance.written = True
    batch.touch(instance)
    instance.between = False
    instance.stored = None
    instance.begin_execution(instance.execution_no + 1)
    if instance.written:
        batch.rows.executions_removed.append((instance.no, instance.execution_no - rows_kept + 1))
    instance.execution = new_execution(batch, instance, entry)
    instance.belongs_to(trace)
    started = ev.ExecutionStarted(
        name=instance.name,
        version=instance.version,
        input=body,
        parent=instance.parent,
        carried=carried,
        pairing=ev.AWAITED,
        parks_misfits=True,
        trace=trace,
    )
    instance.execution.carries_kept(kept_events if carried else 0)
    feed(batch, instance, started, kept=kept)


def end(batch: OpenBatch, instance: Instance, status: RuntimeStatus) -> None:
    _record_unconsumed(
        batch, instance, _unconsumed(instance), f"the instance has {status.lower()} without taking it"
    )
    # The row keeps the last custom status, because the code will not run again.
    status_set = instance.execution.take_status() if instance.execution is not None else None
    if status_set is not None:
        batch.rows.custom_status.append((instance.no, status_set))
    instance.note_custom_status()
    release_locks(batch, instance)
    assert instance.outcome is not None
    instance.ending = instance.outcome.events[-1]  # type: ignore[assignment]
    if batch.announcing is not None:
        batch.announcing.left(batch, instance)
        batch.announcing.ended(batch, instance, status)
    instance.put_away(batch.running)
    close_waits(batch, instance)
    activity_rows.ended(batch, instance)
    instance.status = status
    instance.reason = ""
    instance.completed_at = instance.last_at
    instance.due_at = None
    instance.open_local = 0
    instance.children = None
    batch.released.finished.append(instance)


def _record_unconsumed(
    batch: OpenBatch, instance: Instance, events: Iterable[ev.EventRaised], reason: str
) -> None:
    for event in events:
        batch.record_drop(
            instance.instance_id, "event", event.name, event.operation_id, reason, bytes(event.input), UNTAKEN
        )


def _unconsumed(instance: Instance) -> Iterable[ev.EventRaised]:
    """Events that no wait has taken; also for an instance whose code is not in memory."""
    if instance.execution is not None:
        return instance.execution.unconsumed()
    if instance.stored is None:
        return ()
    try:
        state = fold(instance.recorded())
        # Between two executions the events travel with the message that begins the next.
        return [event for _, event in state.buffered] if state.ending is None else ()
    except (msgspec.MsgspecError, KeyError):
        return ()  # the events of an unreadable history stay in it


def drop_held(batch: OpenBatch, instance: Instance, reason: str) -> None:
    held, instance.waiting = instance.waiting, None
    for envelope in held or ():
        envelope.held = False
        if isinstance(envelope.message, NextGeneration):
            drop_carried(batch, envelope.message, reason)
        batch.drop(envelope, reason, UNTAKEN)


def drop_carried(batch: OpenBatch, message: NextGeneration, reason: str) -> None:
    """Record the carried events of an execution that will not begin."""
    for event in message.carried:
        batch.record_drop(
            message.instance_id, "event", event.name, event.operation_id, reason, bytes(event.input), UNTAKEN
        )


def let_held_go(batch: OpenBatch, instance: Instance) -> None:
    held, instance.waiting = instance.waiting, None
    for envelope in held or ():
        envelope.held = False
    if held:  # in the order of acceptance: rows by their number, and then what came in this batch
        batch.send_first(sorted(held, key=_place_in_line))


def _place_in_line(envelope: Envelope) -> float:
    """A forwarded request keeps its original row number until it is held; then it gets a new, higher one."""
    return inf if isinstance(envelope.reply, Elsewhere) else envelope.row_no or inf


def remove(batch: OpenBatch, instance: Instance) -> None:
    instance.put_away(batch.running)
    instance.purged = True
    batch.rows.purged.append(instance.no)
    if instance.counted and instance.entity_state is None and instance.no not in batch.gone:
        batch.rows.moves.append((instance.name, instance.counted, "", -1))
    batch.gone.add(instance.no)
    if batch.cache.warm.get(instance.instance_id) is instance:
        batch.cache.evict(instance)
    batch.absent.add(instance.instance_id)


def new_execution(batch: OpenBatch, instance: Instance, entry: OrchestratorEntry) -> Execution:
    return Execution(
        entry.code,
        Identity(
            instance.instance_id,
            instance.execution_id,
            instance.parent.instance_id if instance.parent else None,
            instance.version,
        ),
        batch.functions.environment,
        batch.variables,
    )
