"""Queue triggers: the hub's own queues, or those of Azure Storage.

Azure's messages are text. In the hub a message is that text as a JSON string; what perdure's own clients
send is other JSON, and its text is what a function gets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from perdure.engine.client.client import Client
from perdure.engine.functions.registry import checked_name
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.in_process import HubDoor
from perdure.hosts.azure_functions.invoking import Callee, typed
from perdure.hosts.azure_functions.outputs import connection_of, send_outputs
from perdure.hosts.azure_functions.retrying import policy_of, time_span
from perdure.model.retry import RetryPolicy
from perdure.replay.activity_context import ActivityContext
from perdure.triggers.brokers.azure_storage import AzureStorageQueue
from perdure.triggers.definitions import Queue

if TYPE_CHECKING:
    from perdure.hosts.azure_functions.folder import Folder
    from perdure.hosts.azure_functions.indexing import AppFunction
    from perdure.triggers.source import Received

ATTEMPTS: Final = 5
TOGETHER: Final = 16
PAUSE: Final = 1.0  # seconds between two attempts where host.json says none


class TextQueue(AzureStorageQueue):
    """A queue of Azure Storage whose messages are handed on as text, whether they are JSON or not."""

    async def receive(self, most: int) -> list[Received]:
        return [replace(one, body=_as_text(one.body)) for one in await super().receive(most)]

    async def bury(self, message: Received, reason: str) -> None:
        await super().bury(replace(message, body=text_of(message.body).encode()), reason)


def _as_text(body: bytes) -> bytes:
    return json.dumps(body.decode("utf-8", "replace")).encode()


def text_of(body: bytes) -> str:
    """The text of a message as the hub keeps it."""
    value = json.loads(body) if body else ""
    return value if isinstance(value, str) else body.decode()


def queue_of(described: AppFunction, callee: Callee) -> Queue:
    """The queue of a function with a queue trigger. Raises ValueError for one that cannot be served."""
    trigger, folder = described.trigger, callee.folder
    name = checked_name(folder.resolved(str(trigger.get("queueName", ""))), callee.function)
    connection = connection_of(trigger, folder, callee.storage)
    return Queue(
        name,
        _body(callee, name),
        source=TextQueue(connection, name) if connection else None,
        retry=policy_of(described.retry) or _deliveries(folder),
        concurrency=folder.count("queues", "batchSize", TOGETHER),
    )


def _deliveries(folder: Folder) -> RetryPolicy:
    pause = time_span(folder.extension("queues").get("visibilityTimeout") or 0).total_seconds()
    return RetryPolicy(
        first_interval=pause or PAUSE, max_attempts=folder.count("queues", "maxDequeueCount", ATTEMPTS)
    )


def _body(callee: Callee, queue: str) -> Callable[..., Any]:
    make = sdk.message_maker(callee.function, callee.described.trigger.name)

    async def handle(body: Raw, call: ActivityContext, client: Client, door: HubDoor) -> None:
        message = call.instance_id.removeprefix(f"queue:{queue}:")
        given = make(message, text_of(bytes(body)), call.attempt)
        await door.prepare(client)
        arguments, outputs = callee.arguments(
            given, call.idempotency_key, door=door, client=client, attempt=call.attempt
        )
        await send_outputs(callee, outputs, await callee.call(arguments), client)

    told = {"body": Raw, "call": ActivityContext, "client": Client, "door": HubDoor, "return": None}
    return typed(handle, callee, told)


__all__ = ["TextQueue", "queue_of", "text_of"]
