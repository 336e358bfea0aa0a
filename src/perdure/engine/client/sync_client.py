"""The synchronous client: the same verbs, blocking, through one portal to the event loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

from perdure.engine.client.client import Client
from perdure.engine.client.occasions import occasion


class SyncClient:
    """A `Client` for plain functions on other threads: every verb blocks until it returns.

    Verbs, parameters, results and errors are those of `Client`.
    """

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._client, name)
        return self._blocking(verb) if inspect.iscoroutinefunction(verb) else verb

    def _blocking(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(verb)
        def call(*args: Any, **kwargs: Any) -> Any:
            occasion()  # the coroutine runs in a copy of this context, so the occasion must exist before it
            return asyncio.run_coroutine_threadsafe(verb(*args, **kwargs), self._loop).result()

        return call
