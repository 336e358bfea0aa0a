"""Redis Streams, through redis-py. A consumer group reads a stream and takes over entries of dead consumers."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from perdure.errors import needing
from perdure.triggers.source import Received

if TYPE_CHECKING:
    from redis.asyncio import Redis

WAIT = 2_000  # milliseconds that one `receive` waits
_TRACE = ("traceparent", "tracestate")


class RedisStream:
    """A stream of Redis, read by a consumer group.

    An entry is identified by its id in the stream. Its body is the field `field`, or else all its fields as a JSON
    object. Dead letters go to the stream `<stream>:dead`, with the reason and the id of the original entry.

    Parameters:
        url: redis://host:port/0 stream: the key of the stream.
        group: the consumer group. It is created if it does not exist, and reads from the beginning of the stream.
        field: the name of the field with the body.
        visibility: seconds after which an unacknowledged entry goes to another consumer. It is renewed while the
        entry
            is handled.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        *,
        group: str = "perdure",
        field: str = "body",
        visibility: float = 60.0,
    ) -> None:
        self.name = stream
        self._url = url
        self._group = group
        self._field = field
        self._visibility = int(visibility * 1_000)
        self._consumer = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._redis: Redis | None = None

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Hold a connection, and create the group if it does not exist."""
        with needing("queues", "a stream of Redis"):
            from redis.asyncio import Redis
            from redis.exceptions import ResponseError
        async with Redis.from_url(self._url) as redis:
            try:
                await redis.xgroup_create(self.name, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            self._redis = redis
            yield

    async def receive(self, most: int) -> list[Received]:
        """Take over entries of dead consumers first, then wait a few seconds for new ones."""
        redis = self._connection
        _, left, *_ = await redis.xautoclaim(
            self.name, self._group, self._consumer, min_idle_time=self._visibility, count=most
        )
        if left:
            return [self._received(entry, 2) for entry in left if entry[1]]
        found: Any = await redis.xreadgroup(
            self._group, self._consumer, {self.name: ">"}, count=most, block=WAIT
        )
        entries = found.values() if isinstance(found, dict) else [entries for _, entries in found or ()]
        return [self._received(entry, 1) for batch in entries for entry in _flat(batch)]

    async def acknowledge(self, message: Received) -> None:
        await self._connection.xack(self.name, self._group, message.handle)

    async def give_back(self, message: Received) -> None:
        """Make the entry available to the next consumer."""
        await self._claim(message, idle=self._visibility)

    async def bury(self, message: Received, reason: str) -> None:
        """Append the entry to the stream of dead letters and acknowledge it, in one transaction."""
        async with self._connection.pipeline(transaction=True) as both:
            both.xadd(
                f"{self.name}:dead",
                {self._field: message.body, "reason": reason, "entry": message.message_id},
            )
            both.xack(self.name, self._group, message.handle)
            await both.execute()

    async def keep(self, message: Received) -> None:
        """Reset the entry's idle time."""
        await self._claim(message, idle=0)

    async def _claim(self, message: Received, *, idle: int) -> None:
        await self._connection.xclaim(
            self.name, self._group, self._consumer, 0, [message.handle], idle=idle, justid=True
        )

    @property
    def _connection(self) -> Redis:
        assert self._redis is not None
        return self._redis

    def _received(self, entry: tuple[bytes, dict[bytes, bytes]], deliveries: int) -> Received:
        entry_id, fields = entry
        texts = {key.decode(): value for key, value in fields.items()}
        body = texts.get(self._field)
        if body is None:
            plain = {key: value.decode("utf-8", "replace") for key, value in texts.items()}
            body = json.dumps(plain).encode()
        carried = {key: texts[key].decode("utf-8", "replace") for key in _TRACE if key in texts}
        return Received(entry_id.decode(), body, deliveries, carried, entry_id)


def _flat(batch: Any) -> list[Any]:
    """Newer protocols nest the entries of a stream one level deeper."""
    return batch[0] if batch and isinstance(batch[0], list) else batch
