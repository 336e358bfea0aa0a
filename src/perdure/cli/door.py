"""How a command reaches the instances: through the living server if there is one, else through the store.

A SQLite file has one engine at a time. When a server has it, its address is in the file beside the database,
and the command talks HTTP to it. Otherwise the command opens the store itself, in a way that takes messages
durably and runs nobody's code; what it asked for happens when the application is served again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from perdure.app import App
from perdure.cli.terminal import fail_with
from perdure.engine.client import Client
from perdure.errors import PerdureError
from perdure.http.remote import RemoteClient
from perdure.store.sqlite.lock import read_server_file

T = TypeVar("T")


@dataclass(frozen=True)
class Door:
    """What the options say about where the instances are."""

    store: str
    hub: str | None = None
    url: str | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """The client behind this door."""
        address, token = (self.url, None) if self.url else self._server()
        if address:
            async with RemoteClient(address, hub=self.hub, key=token) as client:
                yield client
            return
        async with App().running(store=self.store, hub=self.hub, accept_only=True) as local:
            yield local

    def _server(self) -> tuple[str | None, str | None]:
        path = database_path(self.store)
        found = read_server_file(path) if path else None
        return (found.address, found.token) if found is not None else (None, None)

    def perform(self, work: Callable[[Client], Awaitable[T]], *, as_json: bool = False) -> T:
        """Do something with the client, and end the command if perdure refuses."""
        try:
            return asyncio.run(self._perform(work))
        except (PerdureError, TimeoutError) as error:
            fail_with(error, as_json=as_json)

    async def _perform(self, work: Callable[[Client], Awaitable[T]]) -> T:
        async with self.client() as client:
            return await work(client)


def database_path(store: str) -> str:
    """The file of a SQLite store, "" for any other."""
    if store.startswith("sqlite:///"):
        return store.removeprefix("sqlite:///")
    return "" if "://" in store or store.endswith(":") else str(Path(store))
