"""Queues for clients and operators: send messages, count them, list dead letters, redeliver them."""

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
COUNTED = 1_000  # messages of one kind at which counting stops


@dataclass(frozen=True)
class QueueStatus:
    """The numbers of a queue's messages: open (waiting or running), handled and still stored, and dead."""

    name: str
    open: int
    handled: int
    dead: int


@dataclass(frozen=True)
class DeadLetter:
    """A message whose last attempt failed: its instance, the time of the failure, and the reason."""

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
        """Put a message into a queue of the hub. Returns the id of the message's instance after the commit.

        Parameters:
            queue: the name given to `@app.queue`. Without a function for the queue, the message waits.
            body: a value that strict JSON can represent.
            message_id: an id for the message. A second message with the same id is not delivered. Default: a new id.
            at: the earliest time of the delivery, an aware datetime.
            operation_id: an id for this request, if there is no `message_id`. A repetition within 24 hours sends
                nothing and returns the first result.

        Raises:
            PayloadError, InvalidInstanceId, Overloaded, OutcomeUnknown (then send again with the same message_id),
            IdempotencyConflict for an id that another message had within 24 hours.
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
        """Count a queue's messages. Counting stops at 1,000 of each kind."""
        open_ = await self._count(queue, ("Pending", "Running", "Suspended"))
        return QueueStatus(
            queue, open_, await self._count(queue, ("Completed",)), await self._count(queue, ("Failed",))
        )

    async def names(self) -> list[str]:
        """The queues of the newest 1,000 messages in the hub."""
        page = await self._client.query(name=MESSAGE, top=COUNTED)
        return sorted({(one.tags or {}).get(TAG, "") for one in page.instances} - {""})

    async def dead_letters(self, queue: str | None = None) -> AsyncIterator[DeadLetter]:
        """All dead letters of one queue, or of all queues, newest first."""
        tags = None if queue is None else {TAG: queue}
        async for found in all_pages(self._client.query, name=MESSAGE, status=("Failed",), tags=tags):
            # The function's own error. The outer failure only says that the message's activity failed.
            reason = str(chain_of(found.failure)[-1]) if found.failure is not None else ""
            name = (found.tags or {}).get(TAG, "")
            yield DeadLetter(found.instance_id, name, found.last_updated_time, reason)

    async def redeliver(
        self, instance_id: str, reason: str = AGAIN, *, operation_id: str | None = None
    ) -> None:
        """Redeliver a dead letter to its function, with its full number of attempts. Raises InstanceNotFound."""
        note_redelivery(queue_of(instance_id), reason)
        await self._client.rewind(instance_id, reason, operation_id=operation_id)

    async def redeliver_all(self, queue: str, reason: str = AGAIN) -> int:
        """Redeliver all dead letters of a queue to its function. Returns their number."""
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
    """Record a rewind of dead letters in the audit log as a redelivery."""
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
    trace: str = "",
) -> str:
    """Start the instance of a message, unless it exists. An empty body is no input.

    With `is_named`, the sender chose the message id. The same id with another body is rejected. `trace` is the trace
    that the message carries.

    Raises PayloadError for a body that is not JSON, InvalidInstanceId for an invalid queue name.
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
        trace=trace,
    )
    if is_named:  # the id identifies the message, not the sender
        start = bound(start, CODE)
    elif operation_id:
        start = send_named(start, queue, operation_id)
    return str(await client.gateway.accept(start))


__all__ = ["DeadLetter", "QueueStatus", "Queues", "deliver", "note_redelivery"]
