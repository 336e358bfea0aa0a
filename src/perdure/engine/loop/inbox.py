"""The loop's inbox: how messages reach the loop's thread, and how it waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from perdure.engine.clock import Clock
from perdure.engine.core.envelope import Envelope

Item = Envelope | list[Envelope] | None
"""An item of the loop's inbox: a message, several messages, or None to check the clock."""


class InboxWaiter(Protocol):
    """How the loop waits for the next message."""

    def wait(self, inbox: SimpleQueue[Item], until: int | None, busy: Callable[[], bool]) -> Item:
        """The next message or messages, or None when `until` (microseconds) has come or the loop was nudged."""


class LoopOutbox:
    """Collects messages from an event loop and sends them together at the end of its turn.

    Otherwise the loop's thread would wake at the first message and compete for the interpreter with the thread
    that creates the others.
    """

    def __init__(self, event_loop: asyncio.AbstractEventLoop, inbox: SimpleQueue[Any]) -> None:
        self.event_loop = event_loop
        self._inbox = inbox
        self._waiting: list[Envelope] = []

    def put(self, envelope: Envelope) -> None:
        """Send a message; from another thread than the event loop's it is sent at once."""
        if asyncio._get_running_loop() is not self.event_loop:
            self._inbox.put(envelope)
            return
        if not self._waiting:
            self.event_loop.call_soon(self._flush)
        self._waiting.append(envelope)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._inbox.put(waiting)


class SystemWaiter:
    """Blocks on the queue until the time of the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def wait(self, inbox: SimpleQueue[Item], until: int | None, busy: Callable[[], bool]) -> Item:
        timeout = 60.0 if until is None else min(max(until - self._clock.now(), 0) / 1e6, 60.0)
        try:
            return inbox.get(timeout=timeout) if timeout else inbox.get_nowait()
        except Empty:
            return None


def take_into(taken: list[Envelope], item: Item) -> None:
    if isinstance(item, list):
        taken.extend(item)
    elif item is not None:
        taken.append(item)


__all__ = ["Item", "LoopOutbox", "SystemWaiter", "InboxWaiter", "take_into"]
