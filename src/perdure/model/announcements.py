"""What the engine tells other systems of: tasks and instances, as events with a kind, a stable id and a few facts.

The format is public (`docs/how-to/webhooks.md`). Fields may be added; none is removed or gets another meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Raw

from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import RuntimeStatus

DELIVERY: Final = f"{BUILT_IN}Webhook"
"""The built-in orchestration that delivers one event to one receiver, and the prefix of its activities."""

TASK_CREATED: Final = "task.created"
TASK_DUE_SOON: Final = "task.due_soon"
TASK_ESCALATED: Final = "task.escalated"
TASK_COMPLETED: Final = "task.completed"
TASK_CLOSED: Final = "task.closed"
PARKED: Final = "instance.parked"
ENDED: Final = {
    RuntimeStatus.Completed: "instance.completed",
    RuntimeStatus.Failed: "instance.failed",
    RuntimeStatus.Terminated: "instance.terminated",
}
KINDS: Final = (
    TASK_CREATED,
    TASK_DUE_SOON,
    TASK_ESCALATED,
    TASK_COMPLETED,
    TASK_CLOSED,
    *ENDED.values(),
    PARKED,
)
VERSION: Final = 1


class Announcement(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event: `id` is the same in every delivery of it, `at` its time in microseconds.

    `data` is JSON that every receiver gets, `details` what only a receiver gets that asks for it.
    """

    id: str
    kind: str
    at: int
    data: dict[str, Any] = {}
    details: dict[str, Raw] = {}


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event for one receiver. `while_open` is the id of the task without which there is nothing to tell."""

    webhook: str
    event: Announcement
    while_open: str = ""


@dataclass(frozen=True)
class Subscription:
    """What one receiver wants to be told of.

    Parameters:
        name: the receiver, in the ids of its deliveries.
        kinds: the kinds of events.
        due_soon: how long before a deadline a task is due soon, in microseconds.
        details: whether events also contain facts, outputs and the messages of failures.
    """

    name: str
    kinds: frozenset[str]
    due_soon: int
    details: bool = False


def delivery_id(webhook: str, event_id: str) -> str:
    """The instance that delivers an event to a receiver."""
    return f"webhook:{webhook}:{event_id}"


__all__ = [
    "DELIVERY",
    "ENDED",
    "KINDS",
    "PARKED",
    "TASK_CLOSED",
    "TASK_COMPLETED",
    "TASK_CREATED",
    "TASK_DUE_SOON",
    "TASK_ESCALATED",
    "VERSION",
    "Announcement",
    "Delivery",
    "Subscription",
    "delivery_id",
]
