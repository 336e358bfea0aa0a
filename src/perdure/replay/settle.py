"""Settle: turns actions into history, messages and effects. Never runs user code.

`Outcome` collects, over the arrivals of one episode, everything to write and all effects that leave the process
afterwards. It decides nothing about storage: the dispatcher makes the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec
from msgspec import Raw

from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model.events import ABSENT, ParentLink
from perdure.model.messages import (
    ChildResult,
    EntityOperation,
    LockRelease,
    LockRequest,
    Message,
    Start,
    Terminate,
)


class Invocation(msgspec.Struct, frozen=True, gc=False):
    """One attempt of an activity, which starts after the commit that scheduled it.

    The idempotency key names the logical call: instance, execution and the id of its first attempt, so that a
    retry, a rewind and a run after a crash have the same key.
    """

    instance_id: str
    execution_id: str
    task_id: int
    call: int
    attempt: int
    name: str
    input: Raw = ABSENT
    timeout: int = 0
    heartbeat: int = 0
    orchestrator: str = ""  # its name, for logs and telemetry of the activity
    trace: str = ""  # of the execution; see `perdure.model.trace_context`
    scheduled_at: int = 0  # the time of the episode that called it; 0 if it is not known
    endings: int = 0  # how often it ended before, in runs that a rewind continued

    @property
    def idempotency_key(self) -> str:
        return f"{self.instance_id}:{self.execution_id}:{self.call}"


class Rejection(msgspec.Struct, frozen=True):
    """An accepted event that did not fit the type of its wait."""

    name: str
    operation_id: str
    reason: str
    input: Raw


class Outcome:
    """The outcome of one episode of one execution so far.

    `events` grow until the episode is written; the other lists have the effects of the last arrival, and their
    consumer empties them.
    """

    __slots__ = (
        "at",
        "cancellations",
        "ending",
        "events",
        "execution_id",
        "instance_id",
        "invocations",
        "messages",
        "orchestrator",
        "rejections",
        "trace",
    )

    def __init__(self, instance_id: str, execution_id: str, orchestrator: str = "", trace: str = "") -> None:
        self.instance_id = instance_id
        self.execution_id = execution_id
        self.orchestrator = orchestrator
        self.trace = trace
        self.at = 0  # of the episode
        self.events: list[ev.HistoryEvent] = []
        self.invocations: list[Invocation] = []
        self.cancellations: list[int] = []  # task ids
        self.messages: list[Message] = []
        self.rejections: list[Rejection] = []
        self.ending: act.Finish | None = None


def settle(actions: Sequence[act.Action], into: Outcome) -> None:
    """Append each action's history event to the outcome, with the message or effect it causes."""
    events = into.events
    for action in actions:
        match action:  # the most frequent actions first
            case act.ScheduleTask():
                number, call = action.id, action.call
                name, body, attempt = action.name, action.input, action.attempt
                events.append(
                    ev.TaskScheduled(
                        number,
                        name,
                        body,
                        call=-1 if call == number else call,
                        attempt=attempt,
                        timeout=action.timeout,
                        heartbeat=action.heartbeat,
                    )
                )
                into.invocations.append(
                    Invocation(
                        into.instance_id,
                        into.execution_id,
                        number,
                        call,
                        attempt,
                        name,
                        body,
                        action.timeout,
                        action.heartbeat,
                        into.orchestrator,
                        into.trace,
                        into.at,
                    )
                )
            case act.CreateSubOrchestration():
                events.append(_child_created(action))
                into.messages.append(_child_start(action, into))
            case act.CallEntity() | act.SignalEntity():
                events.append(_asked_of_entity(action))
                into.messages.append(_operation(action, into))
            case act.CancelTask():
                events.append(ev.TaskCanceled(task_id=action.task_id))
                into.cancellations.append(action.task_id)
            case act.CreateTimer():
                events.append(
                    ev.TimerCreated(
                        id=action.id, fire_at=action.fire_at, purpose=action.purpose, of=action.of
                    )
                )
            case act.CancelTimer():
                events.append(ev.TimerCanceled(timer_id=action.timer_id))
            case act.AwaitEvent():
                events.append(
                    ev.EventAwaited(
                        id=action.id, name=action.name, deadline=action.deadline, task=action.task
                    )
                )
            case act.CancelWait():
                events.append(ev.WaitCanceled(wait_id=action.wait_id))
            case act.TakeEvent():
                events.append(ev.EventTaken(wait_id=action.wait_id, event=action.event))
            case act.RejectEvent():
                events.append(
                    ev.EventRejected(
                        wait_id=action.wait_id,
                        name=action.name,
                        operation_id=action.operation_id,
                        reason=action.reason,
                        event=action.event,
                    )
                )
                into.rejections.append(
                    Rejection(action.name, action.operation_id, action.reason, action.input)
                )
            case act.RequestLock():
                events.append(ev.LockRequested(id=action.id, entities=action.entities))
                into.messages.append(
                    request_lock(into.instance_id, into.execution_id, action.id, action.entities[0])
                )
            case act.ReleaseLock():
                events.append(ev.LockReleased(lock_id=action.lock_id))
                into.messages += release_lock(
                    into.instance_id, into.execution_id, action.lock_id, action.entities
                )
            case act.MarkPatch():
                events.append(ev.PatchMarked(name=action.name, deprecated=action.deprecated))
            case act.CompleteOrchestration():
                events.append(ev.ExecutionCompleted(output=action.output))
                into.ending = action
            case act.FailOrchestration():
                events.append(ev.ExecutionFailed(failure=action.failure, of=action.of, others=action.others))
                into.ending = action
            case act.ContinueAsNew():
                events.append(ev.ContinuedAsNew(input=action.input, version=action.version))
                into.ending = action
            case _:
                assert_never(action)


def report_to_parent(parent: ParentLink, child_id: str, ending: act.Finish) -> ChildResult:
    """The message that reports the end of a sub-orchestration to its parent."""
    return ChildResult(
        instance_id=parent.instance_id,
        execution_id=parent.execution_id,
        task_id=parent.task_id,
        child_id=child_id,
        result=ending.output if isinstance(ending, act.CompleteOrchestration) else ev.ABSENT,
        failure=ending.failure if isinstance(ending, act.FailOrchestration) else None,
    )


def terminate_child(
    instance_id: str, execution_id: str, task_id: int, child_id: str, reason: str
) -> Terminate:
    """The message by which a terminated parent terminates a child; a child of another parent ignores it."""
    return Terminate(
        instance_id=child_id,
        reason=reason,
        recursive=True,
        link=ParentLink(instance_id, execution_id, task_id),
    )


def request_lock(instance_id: str, execution_id: str, task_id: int, entity: str) -> LockRequest:
    """The message that requests the lock of an entity."""
    return LockRequest(instance_id=entity, caller=ParentLink(instance_id, execution_id, task_id))


def release_lock(
    instance_id: str, execution_id: str, task_id: int, entities: Sequence[str]
) -> list[LockRelease]:
    """The messages that release the entities of a critical section."""
    caller = ParentLink(instance_id, execution_id, task_id)
    return [LockRelease(instance_id=entity, caller=caller) for entity in entities]


def _asked_of_entity(action: act.CallEntity | act.SignalEntity) -> ev.EntityCalled | ev.EntitySignaled:
    if isinstance(action, act.CallEntity):
        return ev.EntityCalled(
            id=action.id, entity=action.entity, operation=action.operation, input=action.input
        )
    return ev.EntitySignaled(
        id=action.id, entity=action.entity, operation=action.operation, input=action.input, at=action.at
    )


def _operation(action: act.CallEntity | act.SignalEntity, into: Outcome) -> EntityOperation:
    is_signal = isinstance(action, act.SignalEntity)
    return EntityOperation(
        instance_id=action.entity,
        operation=action.operation,
        input=action.input,
        caller=ParentLink(into.instance_id, into.execution_id, action.id),
        is_signal=is_signal,
        visible_at=action.at if isinstance(action, act.SignalEntity) else 0,
        trace=into.trace,
    )


def invocation_of(
    event: ev.TaskScheduled,
    instance_id: str,
    execution_id: str,
    orchestrator: str = "",
    trace: str = "",
    scheduled_at: int = 0,
    endings: int = 0,
) -> Invocation:
    """An invocation from history, for another run after a restart."""
    call = event.id if event.call < 0 else event.call
    return Invocation(
        instance_id,
        execution_id,
        event.id,
        call,
        event.attempt,
        event.name,
        event.input,
        event.timeout,
        event.heartbeat,
        orchestrator,
        trace,
        scheduled_at,
        endings,
    )


def _child_created(action: act.CreateSubOrchestration) -> ev.SubOrchestrationCreated:
    return ev.SubOrchestrationCreated(
        id=action.id,
        name=action.name,
        instance_id=action.instance_id,
        version=action.version,
        input=action.input,
        call=-1 if action.call == action.id else action.call,
        attempt=action.attempt,
    )


def _child_start(action: act.CreateSubOrchestration, into: Outcome) -> Start:
    return Start(
        instance_id=action.instance_id,
        name=action.name,
        version=action.version,
        input=action.input,
        parent=ParentLink(into.instance_id, into.execution_id, action.id),
        on_existing="reject",
        trace=into.trace,
    )
