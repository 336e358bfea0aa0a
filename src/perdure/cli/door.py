"""How a command reaches the instances: through the living server if there is one, else through the store.

A SQLite file has one engine at a time. When a server has it, its address is in the file beside the database,
and the command talks HTTP to it. Otherwise a command that only asks reads the file, and one that tells takes
the file over for a moment, in a way that keeps messages durably and runs nobody's code: what it asked for
happens when the application is served again. In PostgreSQL it is one more worker for that moment, beside those that
serve the hub, and runs nothing either. Neither creates a database: a wrong path is said to be wrong.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.app import App
from perdure.cli.terminal import fail_with
from perdure.engine.client import Client
from perdure.engine.notes import NOTE, Note
from perdure.engine.watching import Bell
from perdure.errors import EngineStopped, InstanceNotFound, PerdureError, StoreUnusable
from perdure.http.remote import RemoteClient
from perdure.model.instances import RuntimeStatus
from perdure.model.settings import mask
from perdure.settings import encryption_given
from perdure.store import hubs_of, is_postgres, open_store, sqlite_path
from perdure.store.sqlite.lock import read_server_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from perdure.engine.notes import Memo
    from perdure.model.messages import Message
    from perdure.model.waiting import Pulse
    from perdure.store.port import ClientStore

T = TypeVar("T")
LOOK_EVERY = 0.2  # seconds, while waiting for an instance in a file that another process serves


@dataclass(frozen=True)
class Door:
    """What the options say about where the instances are, and how to report what goes wrong."""

    store: str
    hub: str | None = None
    url: str | None = None
    as_json: bool = False
    key: str | None = field(default_factory=lambda: os.environ.get("PERDURE_KEY") or None, repr=False)

    @property
    def is_served(self) -> bool:
        """Whether somebody lives who does what is told; else it waits in the store until there is one."""
        if self._remote() is not None:
            return True
        if not is_postgres(self.store):
            return False
        return any(one.role == "worker" and one.state == "living" for one in self.ask(lambda c: c.workers()))

    def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something that changes nothing; end the command if perdure refuses."""
        return self._perform(self.reading(), work)

    def tell(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something that may change instances; end the command if perdure refuses."""
        return self._perform(self.accepting(), work)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Client]:
        """A client that asks."""
        remote = self._remote()
        if remote is not None:
            async with remote:
                yield remote
            return
        async with self.looking() as client:
            yield client

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Client]:
        """A client that reads the store itself, also beside a server that serves it; or that of `--url`."""
        if self.url:
            async with RemoteClient(self.url, hub=self.hub) as remote:
                yield remote
            return
        store = open_store(self.store, self._hub(), encryption_given())
        try:
            yield Client(StoreReader(store))
        finally:
            store.close_reader()

    @asynccontextmanager
    async def accepting(self) -> AsyncIterator[Client]:
        """A client that asks and tells."""
        remote = self._remote()
        if remote is not None:
            async with remote:
                yield remote
            return
        async with App().running(store=self.store, hub=self._hub(), accept_only=True) as client:
            NOTE.set(Note(f"{getpass.getuser()} (on this machine)", "cli"))
            yield client

    def _perform(self, door: Any, work: Callable[[Client], Awaitable[T]]) -> T:
        async def through() -> T:
            async with door as client:
                return await work(client)

        try:
            return asyncio.run(through())
        except (PerdureError, TimeoutError) as error:
            fail_with(error, as_json=self.as_json)

    def _remote(self) -> RemoteClient | None:
        if self.url:
            return RemoteClient(self.url, hub=self.hub, key=self.key)
        path = sqlite_path(self.store)
        found = read_server_file(path) if path else None
        if found is None or not found.address:
            return None
        return RemoteClient(found.address, hub=self.hub, key=self.key or found.token or None)

    def _hub(self) -> str:
        """The hub that was named, or the only one there is."""
        names, place = hubs_of(self.store), mask(sqlite_path(self.store) or self.store)
        if self.hub in names:
            return str(self.hub)
        if self.hub is None and len(names) == 1:
            return names[0]
        listed = ", ".join(names) or "none"
        if self.hub is not None:
            raise StoreUnusable(f"there is no hub {self.hub!r} in {place}; it has {listed}")
        if not names:
            raise StoreUnusable(
                f"{place} has no hub yet: serve an application first, with `perdure run app.py`"
            )
        raise StoreUnusable(f"{place} has several hubs, so say which: --hub with one of {listed}")


class StoreReader:
    """The `Gateway` of a command that only asks."""

    def __init__(self, store: ClientStore) -> None:
        self.store = store
        self.hub = ""

    async def accept(self, message: Message) -> Any:
        raise EngineStopped("this command only reads")

    async def finished(self, instance_id: str, timeout: float | None) -> None:
        """Look again and again: the engine that finishes it is in another process."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            stored = self.store.get(instance_id)
            if stored is None:
                raise InstanceNotFound(f"no instance {instance_id!r} in this hub")
            if RuntimeStatus(stored.row.status).is_finished:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"instance {instance_id!r} has not finished within {timeout:g} seconds")
            await asyncio.sleep(LOOK_EVERY)

    async def read(self, question: Callable[[], T], *, brief: bool = False) -> T:
        return question()

    def watching(self, instance_no: int | None) -> AbstractContextManager[Bell]:
        """Nobody rings: the engine is in another process. So it is looked at again and again."""
        return nullcontext(Patience())

    async def record(self, memo: Memo) -> None:
        raise EngineStopped("this command only reads")

    def pulses(self, executions: Mapping[str, str]) -> dict[tuple[str, int], Pulse]:
        """Only the engine that runs activities knows how they are."""
        return {}

    def now(self) -> int:
        return time.time_ns() // 1_000

    def new_instance_id(self) -> str:
        raise EngineStopped("this command only reads")

    def salt_at_hand(self, instance_id: str) -> bytes | None:
        return None

    def has_orchestrator(self, name: str) -> None:
        """Nobody here knows."""


class Patience(Bell):
    """A bell that nobody rings, for whoever looks every now and then."""

    async def rung(self, seconds: float) -> bool:
        await asyncio.sleep(LOOK_EVERY)
        return True
