"""What a pump needs of a queue; each broker's adapter is a module beside this one.

An adapter knows how to wait for messages, to acknowledge one, to give one back for later, and to bury one with
its reason. It knows nothing of instances: what a message means is the pump's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Received:
    """One delivery of a message.

    `message_id` is the same at each delivery of the same message; `handle` is the adapter's own.
    """

    message_id: str
    body: bytes
    deliveries: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    handle: Any = None


class QueueSource(Protocol):
    """A queue outside of the hub, such as RabbitMQ, Redis Streams or Azure Storage."""

    @property
    def name(self) -> str:
        """The queue's name; with the message's id it names the instance that handles it."""

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Hold a connection. Errors of the broker come out as they are; the pump connects anew, with patience."""

    async def receive(self, most: int) -> list[Received]:
        """Wait for messages, some seconds at most, and return up to `most` of them."""

    async def acknowledge(self, message: Received) -> None:
        """The message has been dealt with: it never comes again."""

    async def give_back(self, message: Received) -> None:
        """The message comes again, to this pump or another."""

    async def bury(self, message: Received, reason: str) -> None:
        """Put the message where dead letters go, with the reason, and acknowledge it."""

    async def keep(self, message: Received) -> None:
        """The message is still being handled: do not deliver it to anybody else yet."""


__all__ = ["QueueSource", "Received"]
