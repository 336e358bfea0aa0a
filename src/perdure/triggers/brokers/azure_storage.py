"""Azure Storage Queues, through azure-storage-queue. Azurite implements the same protocol for local use."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from perdure.errors import needing
from perdure.triggers.source import Received

if TYPE_CHECKING:
    from azure.storage.queue.aio import QueueClient

IDLE = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between polls of an empty queue
PAGE = 32  # the most messages that the service returns at once


class AzureStorageQueue:
    """A queue of Azure Storage.

    A message keeps its id at each delivery. Text in base64, as Azure Functions writes it, is decoded. Dead letters go
    to `<queue>-poison`, as in Azure, as JSON `{"reason": …, "message": …}`.

    Parameters:
        connection_string: the connection string of the storage account.
        queue: the name of the queue, 3 to 63 characters. The queue is created if it does not exist.
        visibility: seconds for which a message is hidden from other pumps. It is renewed while the message is
            handled.
    """

    def __init__(self, connection_string: str, queue: str, *, visibility: int = 60) -> None:
        self.name = queue
        self._connection_string = connection_string
        self._visibility = visibility
        self._receipts: dict[str, str] = {}
        self._looks = 0
        self._queue: QueueClient | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Hold a client, and create the queue if it does not exist."""
        async with self._client(self.name) as queue:
            await _create(queue)
            self._receipts.clear()
            self._queue = queue
            yield

    async def receive(self, most: int) -> list[Received]:
        """Poll once. An empty queue is polled less and less often."""
        assert self._queue is not None
        pages = self._queue.receive_messages(
            messages_per_page=min(most, PAGE), max_messages=most, visibility_timeout=self._visibility
        )
        found = [self._received(message) async for message in pages]
        if found:
            self._looks = 0
        else:
            await asyncio.sleep(IDLE[min(self._looks, len(IDLE) - 1)])
            self._looks += 1
        return found

    async def acknowledge(self, message: Received) -> None:
        assert self._queue is not None
        await self._queue.delete_message(message.message_id, self._receipts.pop(message.message_id))

    async def give_back(self, message: Received) -> None:
        await self._hide(message, 0)
        self._receipts.pop(message.message_id, None)

    async def bury(self, message: Received, reason: str) -> None:
        """Put the message into the poison queue, and then delete it here."""
        letter = {"reason": reason, "message": message.body.decode("utf-8", "replace")}
        async with self._client(f"{self.name}-poison") as poison:
            await _put(poison, json.dumps(letter))
        await self.acknowledge(message)

    async def keep(self, message: Received) -> None:
        """Renew the time for which the message is hidden."""
        await self._hide(message, self._visibility)

    async def _hide(self, message: Received, seconds: int) -> None:
        assert self._queue is not None
        updated = await self._queue.update_message(
            message.message_id, self._receipts[message.message_id], visibility_timeout=seconds
        )
        self._receipts[message.message_id] = str(updated.pop_receipt)

    def _received(self, message: Any) -> Received:
        self._receipts[message.id] = message.pop_receipt
        body = _body_of(message.content)
        return Received(message.id, body, message.dequeue_count or 1, _trace_in(body))

    def _client(self, queue: str) -> QueueClient:
        # The library's default retries take 15 seconds and more. The pump retries too, and logs it.
        return _client_class().from_connection_string(
            self._connection_string,
            queue,
            initial_backoff=0.5,
            increment_base=2,
            random_jitter_range=0.5,
            retry_total=2,
        )


async def send_text(connection_string: str, queue: str, text: str) -> None:
    """Put a message into a queue of Azure Storage, in base64, as Azure Functions writes it."""
    async with _client_class().from_connection_string(connection_string, queue) as client:
        await _put(client, text)


def _client_class() -> type[QueueClient]:
    """The client of azure-storage-queue. Raises ExtraMissing if the package is not installed."""
    with needing("azure", "a queue of Azure Storage"):
        from azure.storage.queue.aio import QueueClient
    return QueueClient


async def _put(queue: QueueClient, text: str) -> None:
    """Create the queue if it does not exist, and put a message into it."""
    await _create(queue)
    await queue.send_message(base64.b64encode(text.encode()).decode())


async def _create(queue: QueueClient) -> None:
    from azure.core.exceptions import ResourceExistsError

    try:
        await queue.create_queue()
    except ResourceExistsError:
        pass


def _trace_in(body: bytes) -> dict[str, str]:
    """The trace in a CloudEvent, as Event Grid puts one into a queue: messages of the service have no headers."""
    if b'"specversion"' not in body or b'"traceparent"' not in body:
        return {}
    try:
        event = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(event, dict) or "specversion" not in event:
        return {}
    found = {name: event.get(name) for name in ("traceparent", "tracestate")}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _body_of(content: str) -> bytes:
    """The text itself if it is JSON, else the text decoded from base64."""
    try:
        json.loads(content)
    except ValueError:
        try:
            return base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            pass
    return content.encode()
