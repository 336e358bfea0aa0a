"""Queues as clients and operators see them: send, count, look at dead letters, deliver those again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import Raw

from perdure.engine.client.client import Client
from perdure.engine.client.paging import all_pages
from perdure.engine.core.audit import noted_as
from perdure.engine.core.repeats import CODE, bound, send_named
from perdure.failure import chain_of
from perdure.model import payload
from perdure.model.durations import instant
from perdure.model.instances import check_instance_id
from perdure.model.messages import Start
from perdure.replay.inputs import NO_INPUT
from perdure.triggers.names import MESSAGE, message_id, queue_of
from perdure.triggers.queue_orchestration import Message

TAG = "queue"
AGAIN = "delivered again"
COUNTED = 1_000  # messages of one kind; more are not counted


@dataclass(frozen=True)
class QueueStatus:
    """How many messages of a queue wait or are being handled, have been handled and are kept, and are dead."""

    name: str
    open: int
    handled: int
    dead: int


@dataclass(frozen=True)
class DeadLetter:
    """A message whose last attempt has failed: the instance that keeps it, since when, and why."""

    instance_id: str
    queue: str
    since: datetime
    reason: str


class Queues:
    """The queues of a client's hub."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(
        self,
        queue: str,
        body: Any = NO_INPUT,
        *,
        message_id: str | None = None,
        at: datetime | None = None,
        operation_id: str | None = None,
    ) -> str:
        """Put a message into a queue of the hub's own store; returns the id of its instance once it is durable.

        Parameters:
            queue: the name given to `@app.queue`. Without a function for it the message waits, visibly.
            body: anything strict JSON can carry.
            message_id: names the message: sent again, it is not delivered again. Default a new one.
            at: not before this instant (aware).
            operation_id: names this request, where the message has no name: repeated within 24 hours it sends
                nothing and gets the first answer.

        Raises:
            PayloadError, InvalidInstanceId, Overloaded, OutcomeUnknown (then send again with the same message_id),
            IdempotencyConflict for a name that another message had within 24 hours.
        """
        noted_as("send_message", queue)
        gateway = self._client.gateway
        chosen = gateway.new_instance_id() if message_id is None else message_id
        visible_at = instant(at, "at") if at is not None else 0
        content = b"" if body is NO_INPUT else payload.encode(body)
        return await deliver(
            self._client,
            queue,
            chosen,
            content,
            visible_at=visible_at,
            is_named=message_id is not None,
            operation_id=operation_id or "",
        )

    async def status(self, queue: str) -> QueueStatus:
        """Count a queue's messages, at most 1,000 of each kind."""
        open_ = await self._count(queue, ("Pending", "Running", "Suspended"))
        return QueueStatus(
            queue, open_, await self._count(queue, ("Completed",)), await self._count(queue, ("Failed",))
        )

    async def names(self) -> list[str]:
        """The queues that the newest thousand messages of the hub are of."""
        page = await self._client.query(name=MESSAGE, top=COUNTED)
        return sorted({(one.tags or {}).get(TAG, "") for one in page.instances} - {""})

    async def dead_letters(self, queue: str | None = None) -> AsyncIterator[DeadLetter]:
        """Every dead letter of one queue or of all, newest first."""
        tags = None if queue is None else {TAG: queue}
        async for found in all_pages(self._client.query, name=MESSAGE, status=("Failed",), tags=tags):
            # What the function itself raised: around it is only that an activity of the message failed.
            reason = str(chain_of(found.failure)[-1]) if found.failure is not None else ""
            name = (found.tags or {}).get(TAG, "")
            yield DeadLetter(found.instance_id, name, found.last_updated_time, reason)

    async def redeliver(
        self, instance_id: str, reason: str = AGAIN, *, operation_id: str | None = None
    ) -> None:
        """Hand a dead letter to the function again, with all its attempts. Raises InstanceNotFound."""
        note_redelivery(queue_of(instance_id), reason)
        await self._client.rewind(instance_id, reason, operation_id=operation_id)

    async def redeliver_all(self, queue: str, reason: str = AGAIN) -> int:
        """Hand all dead letters of a queue to its function again; returns how many there were."""
        note_redelivery(queue, reason)
        dead = ("Failed",)
        outcome = await self._client.bulk(
            "rewind", reason=reason, name=MESSAGE, status=dead, tags={TAG: queue}
        )
        return outcome.done

    async def _count(self, queue: str, statuses: tuple[str, ...]) -> int:
        page = await self._client.query(name=MESSAGE, status=statuses, tags={TAG: queue}, top=COUNTED)
        return len(page.instances)


def note_redelivery(queue: str, reason: str) -> None:
    """Tell the audit log that what is rewound are dead letters."""
    noted_as("redeliver_message", queue, reason if reason != AGAIN else "")


async def deliver(
    client: Client,
    queue: str,
    message: str,
    body: bytes,
    *,
    visible_at: int = 0,
    is_named: bool = False,
    operation_id: str = "",
) -> str:
    """Make a message an instance; a message that is one already is left alone. No bytes are no input.

    `is_named` is for a message that its sender has named: the name with another body is refused.

    Raises PayloadError for no JSON, InvalidInstanceId for a name that no queue can have.
    """
    instance_id = check_instance_id(message_id(queue, message), derived=True)
    letter = Message(queue, payload.check(body)) if body else Message(queue, empty=True)
    start = Start(
        instance_id=instance_id,
        name=MESSAGE,
        input=Raw(payload.encode(letter)),
        tags={TAG: queue},
        on_existing="return_existing",
        visible_at=visible_at,
        operation_id=message if is_named else "",
    )
    if is_named:  # the name is the message's, whoever sends it
        start = bound(start, CODE)
    elif operation_id:
        start = send_named(start, queue, operation_id)
    return str(await client.gateway.accept(start))


__all__ = ["DeadLetter", "QueueStatus", "Queues", "deliver", "note_redelivery"]
