"""The verb `rewind`: a failed instance continues; failures are retried and completed work stays.

`perdure.replay.rewinding` defines the effect on history; this module applies it in one batch. It writes the
marker and recreates the code by replaying the valid part of history, and the code continues. Arrivals after
that point are delivered again, open waits get their rows back, and open activities are started, as after a
restart. The sub-orchestrations are asked as well, because their reports after the failure were dropped: a
failed child is rewound itself, a completed child reports again, and a deleted or terminated child is started
again. If the code cannot be recreated, the instance is parked, with everything kept for a later attempt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.engine.core.control import illegal
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.lifecycle import Quarantine, let_held_go, new_execution, too_long
from perdure.engine.core.parking import message_of, note
from perdure.engine.core.pinning import entry_of
from perdure.engine.core.recovery import revive
from perdure.engine.core.task_rows import described
from perdure.engine.core.tenure import REWIND
from perdure.errors import FunctionMissing, IllegalTransition, Interrupted, PerdureError
from perdure.failure import Failure
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model.events import ParentLink
from perdure.model.failures import failure_of
from perdure.model.human_tasks import TaskRecord
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import EntityOperation, Rewind, Start, Wake, accepted
from perdure.model.records import WaitRow
from perdure.model.trace_context import trace_of
from perdure.replay.rewinding import Episode, RewindPlan, plan_of, shortened, with_fewer
from perdure.replay.settle import report_to_parent
from perdure.replay.state import State, fold

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus


def rewind(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Rewind) -> None:
    """Handle the operator's verb, and a rewound parent's request to its sub-orchestration."""
    if message.link is not None:
        _asked_by_parent(batch, instance, envelope, message, message.link)
        return
    refusal = illegal("rewind", instance, message.instance_id)
    if refusal is not None:
        batch.answer(envelope, refusal)
        return
    assert instance is not None
    if batch.accept_only:
        batch.answer(envelope, None)
        batch.store_delayed(message, batch.now)
    elif _has_history(batch, instance, envelope):
        plan = _planned(batch, instance)
        batch.answer(envelope, plan if isinstance(plan, PerdureError) else None)
        if not isinstance(plan, PerdureError):
            _go_back(batch, instance, plan, message.reason)


def _asked_by_parent(
    batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Rewind, link: ParentLink
) -> None:
    is_own = instance is not None and instance.parent == link
    if instance is None or not is_own or instance.status in (S.Terminated, S.Canceled):
        batch.consume(envelope)
        if message.again is not None:
            batch.send(message.again)
    elif not instance.is_finished:
        batch.consume(envelope)  # it reports when it has finished
    elif _has_history(batch, instance, envelope):
        batch.consume(envelope)
        plan = _planned(batch, instance) if instance.status is S.Failed else None
        if isinstance(plan, RewindPlan):
            _go_back(batch, instance, plan, message.reason)
        else:
            _report_again(batch, instance, link)


def _has_history(batch: OpenBatch, instance: Instance, envelope: Envelope) -> bool:
    """Whether the history is loaded. Finished instances are loaded without it; then the message waits for one
    batch.
    """
    if instance.stored is not None and instance.stored.history:
        return True
    if instance.no not in batch.touched:
        batch.cache.evict(instance)
    batch.postpone(envelope)
    return False


def _planned(batch: OpenBatch, instance: Instance) -> RewindPlan | PerdureError:
    """The plan for the rewind, or why it is not possible."""
    cannot = f"cannot rewind instance {instance.instance_id!r}: "
    try:
        recorded = instance.recorded()
        state = fold(recorded)
    except (msgspec.MsgspecError, KeyError) as error:
        return IllegalTransition(f"{cannot}its history cannot be read by this version: {error}")
    if not isinstance(state.ending, ev.ExecutionFailed):
        return IllegalTransition(f"{cannot}its history does not say that it failed")
    plan = plan_of(recorded)
    if not plan.is_certain:
        plan = _tried(batch, instance, plan, recorded)
    after = fold([*recorded, (batch.now, [plan.event(batch.now, "")])])
    if after.locks:
        return IllegalTransition(
            f"{cannot}it failed inside a critical section, whose locks other orchestrations may hold by now. "
            "Restart it, or start a new instance"
        )
    if any(task_id not in plan.voided for task_id in after.operations):
        return IllegalTransition(
            f"{cannot}it failed while it waited for an entity, whose answer was dropped; a second call could "
            "do the operation twice. Restart it, or start a new instance"
        )
    return plan


def _go_back(batch: OpenBatch, instance: Instance, plan: RewindPlan, reason: str) -> None:
    recorded = instance.recorded()
    instance.status, instance.reason = S.Running, ""
    instance.completed_at = instance.ending = None
    outcome = instance.episode(batch.now)
    instance.belongs_to(trace_of(recorded))
    note(batch, instance, plan.event(instance.last_at, reason))
    state = fold([*recorded, (instance.last_at, list(outcome.events))])
    for arrival, came_at in zip(plan.again, plan.again_at, strict=True):
        again = message_of(arrival, instance.instance_id, instance.execution_id)
        if again is not None:
            batch.hold(instance, Envelope(accepted(again, came_at), internal=True))
    batch.released.started.append(instance.instance_id)
    if revive(batch, instance, reason=REWIND):
        _open_waits(instance)
        let_held_go(batch, instance)
        batch.send(Wake(instance_id=instance.instance_id))
    elif not instance.is_finished:
        _open_rows(batch, instance, state)
    if not instance.is_finished:
        _ask_children(batch, instance, state, reason)
        _ask_entities(batch, instance, state)


def _tried(batch: OpenBatch, instance: Instance, plan: RewindPlan, recorded: list[Episode]) -> RewindPlan:
    """Check by replay that the code, without the failures, matches history. If not, void fewer failures or keep
    less of it.
    """
    while (found := _difference(batch, instance, plan, recorded)) is not None:
        fewer = with_fewer(plan, recorded, found[0])
        if fewer is None:
            return shortened(plan, recorded, *found)
        plan = fewer
    return plan


def _difference(
    batch: OpenBatch, instance: Instance, plan: RewindPlan, recorded: list[Episode]
) -> tuple[ev.Arrival, int] | None:
    entry = entry_of(batch, instance)
    if entry is None:
        return None
    execution = new_execution(batch, instance, entry)
    tried = [*recorded, (batch.now, [plan.event(batch.now, "")])]
    try:
        return batch.running.run(instance, execution.differs_after, tried)
    except FunctionMissing:
        return None
    except Interrupted as stopped:
        raise Quarantine(instance.instance_id, too_long(stopped)) from stopped
    finally:
        batch.running.close(instance, execution)


def _open_waits(instance: Instance) -> None:
    """Recreate its wait rows, which the failure deleted; the seal writes them."""
    assert instance.execution is not None
    instance.execution.reopen_waits()
    instance.saved_waits = 0


def _open_rows(batch: OpenBatch, instance: Instance, state: State) -> None:
    """The same for a parked instance, from history alone, without the types that its code expects."""
    instance.open_local = len(state.activities)
    for wait_id, (wait, since) in state.waits.items():
        row = WaitRow(instance.no, wait_id, wait.name, since, wait.deadline, None)
        record = TaskRecord(wait.task) if wait.task is not None else None
        batch.rows.waits_opened.append(described(row, record))
    instance.saved_waits = len(state.waits)


def _ask_children(batch: OpenBatch, instance: Instance, state: State, reason: str) -> None:
    still_open = state.children if instance.execution is None else instance.children or {}
    for task_id, (created, _) in state.children.items():
        if task_id not in still_open:
            continue
        link = ParentLink(instance.instance_id, instance.execution_id, task_id)
        again = Start(
            instance_id=created.instance_id,
            name=created.name,
            version=created.version,
            input=created.input,
            parent=link,
            on_existing="reject",
            trace=instance.trace,
        )
        batch.send(Rewind(instance_id=created.instance_id, reason=reason, link=link, again=again))


def _ask_entities(batch: OpenBatch, instance: Instance, state: State) -> None:
    """Call the entities of failed operations again, because a failed operation was undone."""
    for task_id, (called, _) in state.operations.items():
        batch.send(
            EntityOperation(
                instance_id=called.entity,
                operation=called.operation,
                input=called.input,
                caller=ParentLink(instance.instance_id, instance.execution_id, task_id),
                trace=instance.trace,
            )
        )


def _report_again(batch: OpenBatch, instance: Instance, link: ParentLink) -> None:
    finish: act.Finish
    ending = _ending_of(instance)
    match ending:
        case ev.ExecutionCompleted():
            finish = act.CompleteOrchestration(ending.output)
        case ev.ExecutionFailed():
            finish = act.FailOrchestration(ending.failure)
        case Failure() as unreadable:
            finish = act.FailOrchestration(unreadable)
        case _:
            finish = act.FailOrchestration(Failure("OrchestrationTerminated", "the sub-orchestration ended"))
    batch.send(report_to_parent(link, instance.instance_id, finish))


def _ending_of(instance: Instance) -> ev.Ending | Failure | None:
    """The ending, or a failure that says why its history cannot be read."""
    try:
        ending: ev.Ending | None = fold(instance.recorded()).ending
    except (msgspec.MsgspecError, KeyError) as error:
        return failure_of(error, with_stack=False)
    return ending


__all__ = ["rewind"]
