"""The interface between a pump and a broker's queue. Each broker's adapter is a module of `brokers`.

An adapter waits for messages, acknowledges a message, gives it back for later, and moves it to the dead letters with
a reason. It does not know about instances. The pump does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Received:
    """One delivery of a message.

    `message_id` is the same at each delivery of a message. `handle` belongs to the adapter.
    """

    message_id: str
    body: bytes
    deliveries: int = 1
    attributes: Mapping[str, str] = field(default_factory=dict)
    handle: Any = None


class QueueSource(Protocol):
    """A queue of a broker, such as RabbitMQ, Redis Streams or Azure Storage."""

    @property
    def name(self) -> str:
        """The name of the queue. The instance id of a message consists of this name and the message id."""

    def connected(self) -> AbstractAsyncContextManager[None]:
        """Hold a connection during the block. The broker's errors are raised unchanged, and the pump reconnects."""

    async def receive(self, most: int) -> list[Received]:
        """Wait a few seconds for messages and return up to `most` of them."""

    async def acknowledge(self, message: Received) -> None:
        """Acknowledge a message, so that the broker does not deliver it again."""

    async def give_back(self, message: Received) -> None:
        """Return a message to the broker, which delivers it again to this pump or another."""

    async def bury(self, message: Received, reason: str) -> None:
        """Move a message to the dead letters with the reason, and acknowledge it."""

    async def keep(self, message: Received) -> None:
        """Tell the broker that a message is still being handled, so that no other pump gets it."""


__all__ = ["QueueSource", "Received"]
