"""Opens a hub. Waits for a database that does not answer, because it may still be starting."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from perdure.errors import StoreError, StoreFull, StoreInUse, StoreTooNew, StoreUnusable, WrongEncryptionKey
from perdure.store import reach

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AsyncExitStack

    from perdure.engine.client.client import Client
    from perdure.http.host import Application
    from perdure.server.options import ServeOptions

FINAL = (StoreUnusable, StoreInUse, StoreTooNew, StoreFull, WrongEncryptionKey)
"""Errors that waiting does not resolve."""
LOOK_EVERY = 0.5  # seconds between two attempts to reach a database


class _Wait:
    """One wait for a database: its deadline and the last printed reason."""

    def __init__(self, until: float, tell: Callable[[StoreError], None]) -> None:
        self._until, self._tell, self._told = until, tell, ""

    def failed(self, error: StoreError) -> float:
        """Return the seconds until the next attempt. Raises the error after the deadline."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise error
        if str(error) != self._told:
            self._told = str(error)
            self._tell(error)
        return min(LOOK_EVERY, left)


def await_store(store: str, seconds: float, tell: Callable[[StoreError], None]) -> None:
    """Return when the database answers. Calls `tell` with each new reason to wait.

    Raises StoreError if the database does not answer within `seconds`, and StoreUnusable immediately.
    """
    wait = _Wait(time.monotonic() + seconds, tell)
    while True:
        try:
            reach(store)
            return
        except StoreUnusable:
            raise
        except StoreError as error:
            pause = wait.failed(error)
        time.sleep(pause)


async def open_client(
    stack: AsyncExitStack, app: Application, options: ServeOptions, tell: Callable[[StoreError], None]
) -> Client:
    """Start the engine. Waits for the database too if it goes away while the engine opens it."""
    wait = _Wait(options.patient_until, tell)
    while True:
        try:
            return await stack.enter_async_context(app.running(**options.engine))
        except FINAL:
            raise
        except StoreError as error:
            pause = wait.failed(error)
        await asyncio.sleep(pause)


__all__ = ["await_store", "open_client"]
