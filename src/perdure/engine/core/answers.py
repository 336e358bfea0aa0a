"""Answers of people: whether one counts for an open task now, by whatever way it arrives.

Who has claimed a task is in no history, so it is checked only when the engine accepts an answer. What the task itself
says is checked by the wait, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.engine.core import task_rows
from perdure.errors import PerdureError, TaskHeld, TaskRefused
from perdure.model.human_tasks import HumanTaskDetails, TaskRecord, why_unqualified
from perdure.model.waiting import clock
from perdure.replay.human_tasks import DecisionTask
from perdure.replay.pairing import same

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.engine.core.instance import HeldTask, Instance
    from perdure.model.human_tasks import Person


def why_not(task: HeldTask, person: Person, where: str) -> PerdureError | None:
    """Why the person may not decide the task now: it is for others, or another person has claimed it."""
    return unqualified(task, person, where) or held_by_another(task, person.name)


def held_by_another(task: HeldTask, name: str) -> PerdureError | None:
    """Why a person may not touch the task: another one has claimed it."""
    if task.holder in ("", name):
        return None
    return TaskHeld(f"{task.holder} claimed this task at {clock(task.held_since)}. Nothing was changed")


def unqualified(task: HeldTask, person: Person, where: str) -> PerdureError | None:
    """Why the person's answer cannot count for the task, by role, assignment or an earlier decision."""
    why = _reason(task, person)
    return TaskRefused(f"{why}. Nothing was sent to {task.name!r} of {where}") if why else None


def _reason(task: HeldTask, person: Person) -> str:
    record = task.record or TaskRecord(HumanTaskDetails())
    if record.details.needs_person and not record.roles and task.assignee and person.name != task.assignee:
        return f"the task is assigned to {task.assignee}"
    return why_unqualified(record.details, record.roles, record.given_by, person.name, person.roles)


def why_refused(instance: Instance, name: str, person: Person) -> PerdureError | None:
    """Why the person's event of this name is not accepted: the task that would take it is another person's."""
    where = f"instance {instance.instance_id!r}"
    refusal: PerdureError | None = None
    for task in _open_tasks(instance, name):
        reason = unqualified(task, person, where)
        if reason is None:  # this one takes the event
            return held_by_another(task, person.name)
        refusal = refusal or reason
    return refusal


def _open_tasks(instance: Instance, name: str) -> Iterator[HeldTask]:
    """The open tasks that this event answers, in the order in which they would take it."""
    assert instance.tasks is not None  # the dispatcher has read them before this message
    rows = instance.tasks
    if instance.execution is None:
        yield from (task for task in rows.values() if same(task.name, name))
        return
    for wait in instance.execution.takers(name):
        record = wait.record if isinstance(wait, DecisionTask) else None
        row = rows.get(wait.id) or task_rows.opened(wait.name, record)
        yield msgspec.structs.replace(row, record=record)


__all__ = ["held_by_another", "unqualified", "why_not", "why_refused"]
