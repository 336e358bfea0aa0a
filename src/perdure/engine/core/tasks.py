"""People's tasks: who has claimed an open wait, and whether an answer counts.

A claim is a row beside the wait, written in the transaction of the worker that owns the instance. So two people
never hold one task, and a claim never meets a decision halfway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

import msgspec

from perdure.engine.core import answers, arrivals
from perdure.engine.core.instance import HeldTask, Instance
from perdure.errors import InstanceNotFound, PerdureError, TaskClosed, TaskRefused
from perdure.model.human_tasks import Person
from perdure.model.names import is_name, not_a_name
from perdure.model.records import TaskMove
from perdure.replay.human_tasks import DecisionTask

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.envelope import Envelope
    from perdure.model.messages import CompleteTask, MoveTask

    Move = MoveTask | CompleteTask


def move(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: MoveTask) -> None:
    found = _look_up(batch, instance, envelope, message)
    if found is None:
        return
    instance, wait_id, task = found
    refusal = _why_not_moved(task, message)
    if refusal is None:
        moved = _moved(task, message, batch.now)
        assert instance.tasks is not None
        instance.tasks[wait_id] = moved
        batch.rows.task_moves.append(
            TaskMove(instance.no, wait_id, moved.holder, moved.held_since, moved.assignee)
        )
        batch.touch(instance)
    batch.answer(envelope, refusal)


def complete(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: CompleteTask) -> None:
    if envelope.reply is None:  # accepted earlier: the wait itself decides whether it counts
        arrivals.raise_event(batch, instance, envelope, message)
        return
    found = _look_up(batch, instance, envelope, message)
    if found is None:
        return
    instance, _, task = found
    person, where = Person(message.decided_by, message.roles), f"instance {message.instance_id!r}"
    refusal = answers.held_by_another(task, person.name) or answers.unqualified(task, person, where)
    if refusal is not None:
        batch.answer(envelope, refusal)
        return
    bound = msgspec.structs.replace(message, execution_id=instance.execution_id)
    envelope.message = bound
    arrivals.raise_event(batch, instance, envelope, bound)


def _look_up(
    batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Move
) -> tuple[Instance, int, HeldTask] | None:
    """The open task of a message. Without one the message is answered; before its row is read, it waits."""
    if instance is None or instance.is_finished:
        batch.answer(envelope, _closed(message, instance))
        return None
    if instance.tasks is None:
        batch.task_owners.add(instance.instance_id)
        batch.postpone(envelope)
        return None
    for wait_id, task in instance.tasks.items():
        number = task.record.details.of if task.record is not None else -1
        if message.task in (wait_id, number):
            current = _current(instance, wait_id, task)
            if current is not None:
                return instance, wait_id, current
    batch.answer(envelope, _closed(message, instance))
    return None


def _current(instance: Instance, wait_id: int, task: HeldTask) -> HeldTask | None:
    """The task as this batch has left it; None when this batch has closed it."""
    if instance.execution is None:
        return task
    wait = instance.execution.open_wait(wait_id)
    if wait is None:
        return None
    return msgspec.structs.replace(task, record=wait.record) if isinstance(wait, DecisionTask) else task


def _why_not_moved(task: HeldTask, message: MoveTask) -> PerdureError | None:
    person, where = Person(message.person, message.roles), f"instance {message.instance_id!r}"
    match message.verb:
        case "claim":
            return answers.why_not(task, person, where)
        case "release":
            return answers.held_by_another(task, message.person)
        case "assign":
            if not is_name(message.to):
                return TaskRefused(not_a_name(message.to, "the person to whom the task is assigned"))
            return answers.why_not(task, person, where)
        case _:
            assert_never(message.verb)


def _moved(task: HeldTask, message: MoveTask, now: int) -> HeldTask:
    replace = msgspec.structs.replace
    match message.verb:
        case "claim":
            return (
                task
                if task.holder == message.person
                else replace(task, holder=message.person, held_since=now)
            )
        case "release":
            return replace(task, holder="", held_since=0)
        case "assign":
            return replace(task, holder="", held_since=0, assignee=message.to)
        case _:
            assert_never(message.verb)


def _closed(message: Move, instance: Instance | None) -> PerdureError:
    where = f"instance {message.instance_id!r}"
    if instance is None:
        return InstanceNotFound(f"no instance {message.instance_id!r} in this hub: nothing was changed")
    state = f"which is {instance.status}" if instance.is_finished else "which no longer waits for it"
    return TaskClosed(
        f"task {message.task} of {where}, {state}, is closed: it was decided, has expired, or was withdrawn. "
        "Nothing was sent"
    )


__all__ = ["complete", "move"]
