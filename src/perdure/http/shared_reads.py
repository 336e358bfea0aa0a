"""Shared reads: watchers of the same data share one read, and all reads together take a limited part of the time.

A commit wakes many watchers. Watchers that read the same data share one read, if it has not begun when they ask. Each
read is followed by a pause several times as long as the read. So watchers, however many there are, leave most of the
time to other requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar, cast

PAUSE: Final = 4.0  # times the duration of the read
T = TypeVar("T")


class SharedReads:
    """The reads of one server's watchers.

    Parameters:
        monotonic: a clock, in seconds.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self, monotonic: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._monotonic, self._sleep = monotonic, sleep
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}

    async def look(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """The result of `ask`, which begins after this call. Calls with the same `key` share one `ask`."""
        pending = self._waiting.get(key)
        if pending is None:
            pending = self._waiting[key] = asyncio.create_task(self._perform(key, ask))
            pending.add_done_callback(_heard)  # every waiter can leave before it fails
        return cast(T, await asyncio.shield(pending))

    async def _perform(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._turn:
                pause = self._free_at - self._monotonic()
                if pause > 0:
                    await self._sleep(pause)
                del self._waiting[key]  # a later caller gets a new read
                began = self._monotonic()
                try:
                    return await ask()
                finally:
                    ended = self._monotonic()
                    self._free_at = ended + PAUSE * (ended - began)
        finally:
            if self._waiting.get(key) is asyncio.current_task():
                del self._waiting[key]


def _heard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


__all__ = ["SharedReads"]
