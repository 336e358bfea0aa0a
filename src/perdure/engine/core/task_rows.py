"""The rows of people's tasks: what an open wait says of itself, and who has claimed it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.engine.core.instance import HeldTask, Instance
from perdure.model.human_tasks import TaskRecord, encode_task, read_task, role_text
from perdure.model.records import TaskUpdate, WaitRow

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.replay.human_tasks import DecisionTask


def described(row: WaitRow, record: TaskRecord | None) -> WaitRow:
    """The row of a wait, with what its task says."""
    if record is None:
        return row
    return row._replace(
        task=encode_task(record), roles=role_text(record.roles), assignee=record.details.assignee
    )


def opened(name: str, record: TaskRecord | None) -> HeldTask:
    """A wait that opens in this batch."""
    return HeldTask(name, record, assignee=record.details.assignee if record is not None else "")


def update(batch: OpenBatch, instance: Instance, wait: DecisionTask[Any]) -> None:
    """Write the row of a task that an escalation has changed."""
    record = wait.record
    batch.rows.task_updates.append(
        TaskUpdate(instance.no, wait.id, encode_task(record), role_text(record.roles))
    )
    if instance.tasks is not None and wait.id in instance.tasks:
        instance.tasks[wait.id] = msgspec.structs.replace(instance.tasks[wait.id], record=record)


def read(rows: Iterable[WaitRow]) -> dict[int, HeldTask]:
    """The open waits of an instance, from their rows. A damaged row says nothing of its task; the wait itself, from
    history, still checks an answer.
    """
    return {
        row.wait_id: HeldTask(
            row.name,
            read_task(row.task),
            row.holder,
            row.held_since,
            row.assignee,
        )
        for row in rows
    }


__all__ = ["described", "opened", "read", "update"]
