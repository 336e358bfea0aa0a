"""Redis Streams, through redis-py: a consumer group reads, and takes over what a dead consumer left."""

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


class RedisStream:
    """A stream of Redis, read by a consumer group.

    An entry is known by its id in the stream. Its body is the field `field`, or else all its fields as a JSON
    object. Dead letters go to the stream `<stream>:dead`, with the reason and the first entry's id.

    Parameters:
        url: redis://host:port/0
        stream: the stream's key.
        group: the consumer group; it is created if need be, from the beginning of the stream.
        field: the field that holds the body.
        visibility: seconds after which an entry that nobody acknowledged or kept goes to another consumer.
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
        """Hold a connection, and see to it that the group exists."""
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
        """Entries that others left behind come first, then new ones, waited for some seconds."""
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
        """Whoever looks next may take it."""
        await self._claim(message, idle=self._visibility)

    async def bury(self, message: Received, reason: str) -> None:
        """Append to the stream of dead letters, and acknowledge, in one transaction."""
        async with self._connection.pipeline(transaction=True) as both:
            both.xadd(
                f"{self.name}:dead",
                {self._field: message.body, "reason": reason, "entry": message.message_id},
            )
            both.xack(self.name, self._group, message.handle)
            await both.execute()

    async def keep(self, message: Received) -> None:
        """It is still ours: its idle time begins anew."""
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
        return Received(entry_id.decode(), body, deliveries, {}, entry_id)


def _flat(batch: Any) -> list[Any]:
    """Newer protocols nest the entries of a stream one level deeper."""
    return batch[0] if batch and isinstance(batch[0], list) else batch
