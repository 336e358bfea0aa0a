"""Opening a hub whose database may only be starting: a database that does not answer is waited for."""

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
"""What waiting does not help against."""
LOOK_EVERY = 0.5  # seconds between two looks at a database that does not answer


class _Wait:
    """One wait for a database: until when, and what people were told of it last."""

    def __init__(self, until: float, tell: Callable[[StoreError], None]) -> None:
        self._until, self._tell, self._told = until, tell, ""

    def failed(self, error: StoreError) -> float:
        """Returns the seconds until the next attempt. Raises the error when the time is up."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise error
        if str(error) != self._told:
            self._told = str(error)
            self._tell(error)
        return min(LOOK_EVERY, left)


def await_store(store: str, seconds: float, tell: Callable[[StoreError], None]) -> None:
    """Return when the database answers; `tell` is called for each new reason to wait.

    Raises StoreError when it does not within `seconds`, StoreUnusable at once.
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
    """Start the engine; a database that goes away while it is being opened is waited for like one that is away."""
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
