"""Shared reads: what many watchers want to see is looked at once, and all looking together takes a part of the time.

Watchers are called by commits, many of them by the same one. Those that want to see the same thing share one look,
as long as it has not begun when they ask. After a look there is a pause several times as long as the look has
taken, so that watchers, however many they are, leave most of the time to those who start and decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, Final, TypeVar, cast

PAUSE: Final = 4.0  # times what a look has taken
T = TypeVar("T")


class SharedReads:
    """The looks of one server's watchers.

    Parameters:
        monotonic: seconds.
        sleep: waits for so many.
    """

    def __init__(
        self, monotonic: Callable[[], float], sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._monotonic, self._sleep = monotonic, sleep
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        self._waiting: dict[Hashable, asyncio.Task[Any]] = {}

    async def look(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` tells, asked after this call; `key` is the same for those that would be told the same."""
        pending = self._waiting.get(key)
        if pending is None:
            pending = self._waiting[key] = asyncio.create_task(self._perform(key, ask))
            pending.add_done_callback(_heard)  # all who wait may go away before it fails
        return cast(T, await asyncio.shield(pending))

    async def _perform(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            async with self._turn:
                pause = self._free_at - self._monotonic()
                if pause > 0:
                    await self._sleep(pause)
                del self._waiting[key]  # who asks from here on gets a look of its own
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
