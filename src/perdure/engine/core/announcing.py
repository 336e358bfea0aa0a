"""Announcements: what a batch does to tasks and instances starts deliveries in the same transaction.

A delivery is an instance of a built-in orchestration, so it is as durable as its cause: a crash loses neither, and a
batch that is rolled back announces nothing. The id of an event is a digest of its execution and its place in it, so
that a batch which is processed again announces the same event. Built-in instances and entities announce nothing.

Without a webhook `OpenBatch.announcing` is None, and the engine only checks for that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from msgspec import Raw

from perdure.model import events as ev
from perdure.model.announcements import (
    DELIVERY,
    ENDED,
    PARKED,
    TASK_CLOSED,
    TASK_COMPLETED,
    TASK_CREATED,
    TASK_DUE_SOON,
    TASK_ESCALATED,
    Announcement,
    Delivery,
    Subscription,
    delivery_id,
)
from perdure.model.durations import moment
from perdure.model.http_calls import BUILT_IN
from perdure.model.human_tasks import HumanTaskDetails, in_words
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import Message, Purge, Start
from perdure.replay.human_tasks import DecisionTask

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.replay.decide import Execution
    from perdure.replay.task import EventTask

LARGEST: Final = 64 * 1024  # bytes of an output in an event; a larger one is left out


class Sends(Protocol):
    """The open batch: its time, and messages that it commits with their cause."""

    now: int

    def send(self, message: Message) -> None: ...


class Announcing:
    """The receivers of a worker, by the kinds of events that they want."""

    def __init__(self, subscriptions: Iterable[Subscription]) -> None:
        self._by_kind: dict[str, list[Subscription]] = {}
        for one in subscriptions:
            for kind in one.kinds:
                self._by_kind.setdefault(kind, []).append(one)

    def waits(
        self,
        batch: Sends,
        instance: Instance,
        execution: Execution,
        opened: Sequence[EventTask[Any]],
        closed: Sequence[EventTask[Any]],
    ) -> None:
        """Announce the tasks that were opened, escalated and closed. Call it before the waits count as saved."""
        if not _is_of_interest(instance):
            return
        for wait in opened:
            if wait.saved:
                number = wait.escalated if isinstance(wait, DecisionTask) else 0
                self._tell(batch, instance, TASK_ESCALATED, _task(instance, execution, wait), str(number))
            elif _details(wait).number == 1:
                self._created(batch, instance, execution, wait)
        for wait in closed:
            details = _details(wait)
            if wait.event is None:
                if wait.saved:
                    self._tell(batch, instance, TASK_CLOSED, _task(instance, execution, wait), str(wait.id))
            elif details.number == details.decisions:
                self._tell(batch, instance, TASK_COMPLETED, _task(instance, execution, wait), str(wait.id))

    def left(self, batch: Sends, instance: Instance) -> None:
        """Announce what happened to the tasks of an execution that ends in this batch. Call it before its code is
        closed.
        """
        execution = instance.execution
        if execution is not None:
            opened, closed = execution.take_waits()
            left = [wait for wait in execution.open_waits() if wait.saved]
            escalated = [wait for wait in opened if wait.saved]
            self.waits(batch, instance, execution, escalated, [*closed, *left])

    def ended(self, batch: Sends, instance: Instance, status: RuntimeStatus) -> None:
        """Announce the end of an instance. A delivery that has succeeded is purged instead."""
        if instance.name == DELIVERY:
            if status is RuntimeStatus.Completed:
                batch.send(Purge(instance_id=instance.instance_id))
            return
        kind = ENDED.get(status)
        if kind is None or not _is_of_interest(instance):
            return
        data, details = _ending(instance)
        self._tell(batch, instance, kind, data, str(instance.episodes), details)

    def parked(self, batch: Sends, instance: Instance, kind: str, detail: str) -> None:
        """Announce that an instance was parked."""
        if _is_of_interest(instance):
            number = f"{instance.episodes}:{kind}"
            said = {"message": Raw(msgspec.json.encode(detail))}
            self._tell(batch, instance, PARKED, {"reason": kind}, number, said)

    def _created(self, batch: Sends, instance: Instance, execution: Execution, wait: EventTask[Any]) -> None:
        task, place = _task(instance, execution, wait), str(wait.id)
        facts = _details(wait).facts
        self._tell(batch, instance, TASK_CREATED, task, place, {"facts": facts} if bytes(facts) else {})
        deadline = execution.deadline_of(wait)
        if deadline:
            task_id = task["task"]["id"]
            for to in self._by_kind.get(TASK_DUE_SOON, ()):
                event = _event(instance, TASK_DUE_SOON, deadline - to.due_soon, task, place, {})
                _send(batch, to, event, visible_at=deadline - to.due_soon, while_open=task_id)

    def _tell(
        self,
        batch: Sends,
        instance: Instance,
        kind: str,
        data: dict[str, Any],
        place: str,
        details: dict[str, Raw] | None = None,
    ) -> None:
        """Start a delivery to each receiver of this kind. `place` tells events of one kind and execution apart."""
        receivers = self._by_kind.get(kind)
        if receivers:
            event = _event(instance, kind, max(instance.last_at, batch.now), data, place, details or {})
            for to in receivers:
                _send(batch, to, event)


def _send(
    batch: Sends, to: Subscription, event: Announcement, *, visible_at: int = 0, while_open: str = ""
) -> None:
    if event.details and not to.details:
        event = msgspec.structs.replace(event, details={})
    delivery = Delivery(to.name, event, while_open)
    batch.send(
        Start(
            instance_id=delivery_id(to.name, event.id),
            name=DELIVERY,
            input=Raw(msgspec.json.encode(delivery)),
            on_existing="return_existing",
            visible_at=visible_at,
        )
    )


def _event(
    instance: Instance, kind: str, at: int, data: dict[str, Any], place: str, details: dict[str, Raw]
) -> Announcement:
    said = f"{instance.instance_id}\0{instance.execution_id}\0{kind}\0{place}"
    return Announcement(
        id=f"evt_{sha256(said.encode()).hexdigest()[:32]}",
        kind=kind,
        at=at,
        data={**_about(instance), **data},
        details=details,
    )


def _about(instance: Instance) -> dict[str, Any]:
    return {
        "instanceId": instance.instance_id,
        "executionId": instance.execution_id,
        "orchestrator": instance.name,
        "parentId": instance.parent.instance_id if instance.parent is not None else None,
        "tags": json.loads(instance.tags) if instance.tags else {},
    }


def _task(instance: Instance, execution: Execution, wait: EventTask[Any]) -> dict[str, Any]:
    """What every receiver gets of a task: no facts, and no answer."""
    details, deadline = _details(wait), execution.deadline_of(wait)
    decided_by = list(wait.given_by) if isinstance(wait, DecisionTask) else []
    if wait.event is not None:
        decided_by.append(wait.event[1].decided_by)
    return {
        "task": {
            "id": f"{instance.instance_id}:{wait.id if details.of < 0 else details.of}",
            "event": wait.name,
            "title": details.title or in_words(wait.name),
            "roles": list(wait.roles if isinstance(wait, DecisionTask) else ()),
            "assignee": details.assignee,
            "due": f"{moment(deadline):%Y-%m-%dT%H:%M:%S.%fZ}" if deadline else None,
            "decisions": details.decisions,
            "decidedBy": decided_by,
        }
    }


def _details(wait: EventTask[Any]) -> HumanTaskDetails:
    return wait.details if isinstance(wait, DecisionTask) else _PLAIN


def _ending(instance: Instance) -> tuple[dict[str, Any], dict[str, Raw]]:
    match instance.ending:
        case ev.ExecutionCompleted(output=output):
            fits = 0 < len(bytes(output)) <= LARGEST
            return {}, {"output": output} if fits else {}
        case ev.ExecutionFailed(failure=failure):
            return {"failure": failure.type}, {"message": Raw(msgspec.json.encode(failure.message))}
        case ev.ExecutionTerminated(reason=reason):
            return {}, {"message": Raw(msgspec.json.encode(reason))}
        case _:
            return {}, {}


def _is_of_interest(instance: Instance) -> bool:
    return instance.entity_state is None and not instance.name.startswith(BUILT_IN)


_PLAIN: Final = HumanTaskDetails()

__all__ = ["Announcing"]
