"""RabbitMQ, through aio-pika."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from perdure.errors import needing
from perdure.triggers.source import Received

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

WAIT = 5.0  # seconds that one `receive` waits

log = logging.getLogger("perdure.triggers")


class RabbitMQ:
    """A queue of RabbitMQ.

    The queue is declared durable unless it exists. A message is identified by its property `message_id`, which the
    publisher sets and a redelivery keeps. Dead letters go to `<queue>.dead` with the reason in the header `x-reason`.

    Parameters:
        url: amqp://user:password@host:port/vhost queue: the name of the queue.
        prefetch: the number of messages that the broker delivers before one is acknowledged. identify: how to
        identify a message without a `message_id` at a redelivery: not at all (`none`, so it can start
            twice), or by its `body`, for queues in which no two messages are equal.
        dead_letters: the name of the queue for dead letters. Default: `<queue>.dead`.
    """

    def __init__(
        self,
        url: str,
        queue: str,
        *,
        prefetch: int = 64,
        identify: Literal["none", "body"] = "none",
        dead_letters: str | None = None,
    ) -> None:
        self.name = queue
        self._url = url
        self._prefetch = prefetch
        self._identify = identify
        self._dead_letters = dead_letters or f"{queue}.dead"
        self._channel: AbstractChannel | None = None
        self._arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self._warned = False

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Hold a connection and consume. Closing it returns unacknowledged messages to the queue."""
        with needing("queues", "a queue of RabbitMQ"):
            import aio_pika
        connection = await aio_pika.connect(self._url)
        async with connection:
            self._channel = await connection.channel(publisher_confirms=True)
            await self._channel.set_qos(prefetch_count=self._prefetch)
            queue = await self._declared(self.name)
            self._arrived = asyncio.Queue()
            await queue.consume(self._arrived.put)
            yield

    async def receive(self, most: int) -> list[Received]:
        """Wait a few seconds for messages. Raises ConnectionError if the broker has closed the channel."""
        assert self._channel is not None
        try:
            taken = [await asyncio.wait_for(self._arrived.get(), WAIT)]
        except TimeoutError:
            taken = []
        while len(taken) < most and not self._arrived.empty():
            taken.append(self._arrived.get_nowait())
        if self._channel.is_closed:
            raise ConnectionError("the broker closed the channel")
        return [self._received(message) for message in taken]

    async def acknowledge(self, message: Received) -> None:
        await message.handle.ack()

    async def give_back(self, message: Received) -> None:
        await message.handle.nack(requeue=True)

    async def bury(self, message: Received, reason: str) -> None:
        """Publish the message to the queue of dead letters, wait for the broker's confirmation, and acknowledge."""
        import aio_pika

        assert self._channel is not None
        await self._declared(self._dead_letters)
        original: AbstractIncomingMessage = message.handle
        letter = aio_pika.Message(
            message.body,
            message_id=message.message_id,
            content_type=original.content_type,
            headers={**original.headers, "x-reason": reason, "x-queue": self.name},
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._channel.default_exchange.publish(letter, routing_key=self._dead_letters)
        await original.ack()

    async def keep(self, message: Received) -> None:
        """Do nothing: the broker waits for the acknowledgement (by default 30 minutes)."""

    async def _declared(self, name: str) -> AbstractQueue:
        assert self._channel is not None
        return await self._channel.declare_queue(name, durable=True)

    def _received(self, message: AbstractIncomingMessage) -> Received:
        headers = {key: str(value) for key, value in message.headers.items()}
        deliveries = 2 if message.redelivered else 1
        return Received(self._id_of(message), message.body, deliveries, headers, message)

    def _id_of(self, message: AbstractIncomingMessage) -> str:
        if message.message_id:
            return message.message_id
        if self._identify == "body":
            return hashlib.sha256(message.body).hexdigest()[:32]
        if not self._warned:
            self._warned = True
            log.warning(
                "queue %r: a message without a message_id can start twice when the broker redelivers it. Let the "
                "publisher set message_id, or use identify='body'",
                self.name,
            )
        return uuid.uuid4().hex
