"""How a command reaches the instances: through the running server if there is one, else through the store.

One engine at a time opens a SQLite file. If a server has the file open, its address is in a file beside the database,
and the command talks HTTP to that server. Otherwise a command that only reads opens the file for reading. A command
that writes opens it as an engine for a moment. That engine stores messages and runs no user code, so the request
takes effect when the application runs again. In PostgreSQL the command is one more worker for that moment, and runs
no code either. No command creates a database, so that a wrong path is reported as an error. The exception is the
first key of a hub: a server that other machines can reach refuses to start without a key.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
import traceback
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click
import typer

from perdure.app import App
from perdure.cli.terminal import REFUSED, errors, fail, fail_with
from perdure.engine.client.client import Client
from perdure.engine.client.watching import Bell
from perdure.engine.core.audit import NOTE, AuditNote
from perdure.engine.core.placement import pulses_of
from perdure.errors import EngineStopped, InstanceNotFound, PerdureError, StoreUnusable
from perdure.http.access.keys import Keyring
from perdure.http.access.link_signer import Signer
from perdure.http.api.instance_urls import RequestLinks
from perdure.http.formatting import plain
from perdure.http.remote.client import RemoteClient
from perdure.model.instances import RuntimeStatus
from perdure.model.settings import mask
from perdure.settings import encryption_given
from perdure.store import hubs_of, is_azure, is_postgres, open_store, server_of, sqlite_path
from perdure.store.port import shared
from perdure.store.sqlite.lock import ServerInfo, read_server_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from perdure.engine.core.audit import AuditMemo
    from perdure.failure import Failure
    from perdure.model.messages import Message
    from perdure.model.waiting import Pulse
    from perdure.model.workers import Worker
    from perdure.store.port import ClientStore

T = TypeVar("T")
LATER = "It takes effect when the application runs again."
LOOK_EVERY = 0.2  # seconds between polls, while waiting for an instance that another process runs


@dataclass(frozen=True)
class HubTarget:
    """Where the options say the instances are. Opens clients for it and reports errors."""

    store: str
    hub: str | None = None
    url: str | None = None
    as_json: bool = False
    key: str | None = field(default_factory=lambda: os.environ.get("PERDURE_KEY") or None, repr=False)
    founds: bool = False  # whether `tell` creates the hub if it does not exist
    public_url: str = ""  # the beginning of links that this process makes, without a server

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise typer.BadParameter(
                f"the address must begin with http:// or https://, but is {self.url!r}", param_hint="--url"
            )

    @property
    def is_served(self) -> bool:
        """Whether a worker runs that handles the request now. Otherwise the request waits in the store."""
        if self._remote() is not None:
            return True
        if not is_postgres(self.store):
            return False
        return bool(_serving(self.ask(lambda client: client.workers())))

    def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Run `work` with a client that only reads. An error ends the command."""
        return self._perform(self.reading(), work)

    def tell(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Run `work` with a client that can write. An error ends the command."""
        return self._perform(self.accepting(), work)

    def order(self, work: Callable[[Client], Awaitable[T]], *, entity: str = "") -> T:
        """Run `work` with a client that can write, and print why the request has no effect yet, if it has none.

        Parameters:
            entity: the name of the entity that the request is for.
        """

        async def remarked(client: Client) -> T:
            done = await work(client)
            await remark(client, entity=entity)
            return done

        return self.tell(remarked)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Client]:
        """A client that reads, from the running server or else from the store."""
        remote = self._remote()
        if remote is not None:
            async with remote:
                yield remote
            return
        async with self.looking() as client:
            yield client

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[Client]:
        """A client that reads the store itself, even while a server serves it; with `--url`, one of that server."""
        if self.url:
            async with RemoteClient(self.url, hub=self.hub) as remote:
                yield remote
            return
        store = open_store(self.store, self.hub_name(), encryption_given())
        try:
            yield Client(StoreReader(store))
        finally:
            store.close_reader()

    @asynccontextmanager
    async def accepting(self) -> AsyncIterator[Client]:
        """A client that reads and writes."""
        remote = self._remote()
        if remote is not None:
            async with remote:
                yield remote
            return
        hub, is_new = self._founded() if self.founds else (self.hub_name(), False)
        async with App().running(store=self.store, hub=hub, accept_only=True) as client:
            if is_new:
                errors().print(plain(f"Created the hub {hub!r} in {self._place}."), style="dim")
            NOTE.set(AuditNote(f"{getpass.getuser()} (on this machine)", "cli"))
            client.links = self._links_of(client)
            yield client

    def _links_of(self, client: Client) -> RequestLinks:
        gateway = client.gateway
        keys = Keyring(lambda: gateway.store.keys(), gateway.now, time.monotonic)
        signer = Signer(client, keys, self.public_url, signs_all=True)
        return RequestLinks(signer, public_url=signer.public_url)

    def _perform(self, door: Any, work: Callable[[Client], Awaitable[T]]) -> T:
        async def through() -> T:
            async with door as client:
                return await work(client)

        try:
            return asyncio.run(through())
        except (PerdureError, TimeoutError) as error:
            fail_with(error, as_json=self.as_json)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get("PERDURE_DEBUG"):
                traceback.print_exc()
            told = f"{type(error).__name__}: {error} (set PERDURE_DEBUG=1 for the traceback)"
            fail(f"internal error: {told}", REFUSED, as_json=self.as_json, kind="internal")

    def _remote(self) -> RemoteClient | None:
        if self.url:
            return RemoteClient(self.url, hub=self.hub, key=self.key)
        found = self.served()
        if found is None:
            return None
        return RemoteClient(found.address, hub=self.hub, key=self.key or found.token or None)

    def served(self) -> ServerInfo | None:
        """The server on this machine that serves the file or the hub and listens on an address, or None."""
        if is_azure(self.store) and not self.url:
            found = server_of(self.store, self.hub_name())
        else:
            path = None if self.url else sqlite_path(self.store)
            found = read_server_file(path) if path else None
        return found if found is not None and found.address else None

    @property
    def _place(self) -> str:
        return mask(sqlite_path(self.store) or self.store)

    def _founded(self) -> tuple[str, bool]:
        """The hub, and whether it has to be created."""
        if not (is_postgres(self.store) or is_azure(self.store) or sqlite_path(self.store)):
            return self.hub_name(), False  # raises: a memory store belongs to its process
        try:
            names = hubs_of(self.store)
        except StoreUnusable:  # no file, or no tables: opening it for writing creates them, or raises
            names = []
        if names and self.hub is None:
            return self.hub_name(), False
        if self.hub is None:
            raise StoreUnusable(
                f"{self._place} has no hub yet. Create it with --hub NAME, where NAME is the name of the application"
            )
        return self.hub, self.hub not in names

    def hub_name(self) -> str:
        """The hub of `--hub`, or the only hub of the store. Raises StoreUnusable if there is none or several."""
        names, place = hubs_of(self.store), self._place
        if self.hub in names:
            return str(self.hub)
        if self.hub is None and len(names) == 1:
            return names[0]
        listed = ", ".join(names) or "none"
        if self.hub is not None:
            raise StoreUnusable(f"there is no hub {self.hub!r} in {place}. Its hubs: {listed}")
        if not names:
            raise StoreUnusable(
                f"{place} has no hub yet. Run an application first, with `perdure run app.py`"
            )
        raise StoreUnusable(f"{place} has several hubs. Choose one with --hub: {listed}")


async def remark(client: Client, orchestrator: str = "", *, entity: str = "") -> None:
    """Print on stderr why the accepted request has no effect yet, if it has none.

    Parameters:
        orchestrator: the name of the orchestrator that the request needs.
        entity: the name of the entity that the request needs.
    """
    if isinstance(client, RemoteClient):
        return  # the server itself rejects requests for functions that no worker has
    serving = _serving(await client.workers())
    if not serving:
        _note(
            "no worker serves this hub at present. The request takes effect when the application runs again."
        )
    elif orchestrator:
        _remark_missing("orchestrator", orchestrator, {name for one in serving for name in one.orchestrators})
    elif entity:
        _remark_missing("entity", entity, {name for one in serving for name in one.entities})


def _remark_missing(kind: str, wanted: str, known: set[str]) -> None:
    if wanted.casefold() not in map(str.casefold, known):
        _note(
            f"no worker of this hub has an {kind} {wanted!r}, so the request waits until a worker has it. "
            f"The workers have: {', '.join(sorted(known)) or 'none'}"
        )


def _serving(workers: Iterable[Worker]) -> list[Worker]:
    """The living workers that run functions."""
    return [one for one in workers if one.role == "worker" and one.state == "living"]


def _note(told: str) -> None:
    errors().print(plain(f"note: {told}"), soft_wrap=True)


class StoreReader:
    """The `Gateway` of a command that only reads."""

    def __init__(self, store: ClientStore) -> None:
        self.store = store
        self.hub = ""

    async def accept(self, message: Message) -> Any:
        raise EngineStopped("this command only reads")

    async def finished(self, instance_id: str, timeout: float | None) -> None:
        """Poll the store, because the engine that runs the instance is in another process."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            stored = self.store.get(instance_id)
            if stored is None:
                raise InstanceNotFound(f"there is no instance {instance_id!r} in this hub")
            if RuntimeStatus(stored.row.status).is_finished:
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"instance {instance_id!r} has not finished within {timeout:g} seconds")
            await asyncio.sleep(LOOK_EVERY)

    async def read(self, question: Callable[[], T], *, brief: bool = False) -> T:
        return question()

    def watching(self, instance_no: int | None) -> AbstractContextManager[Bell]:
        """A bell that polls, because the engine in the other process cannot ring it."""
        return nullcontext(PollingBell())

    async def record(self, memo: AuditMemo) -> None:
        raise EngineStopped("this command only reads")

    def pulses(self, executions: Mapping[str, str]) -> dict[tuple[str, int], Pulse]:
        """The heartbeats that workers have stored. Newer ones are known only to the engine that runs the activity."""
        several = shared(self.store)
        if several is None or not executions:
            return {}
        return pulses_of(several.placed(list(executions.values())), several.census())

    def now(self) -> int:
        return time.time_ns() // 1_000

    def new_instance_id(self) -> str:
        raise EngineStopped("this command only reads")

    def salt_at_hand(self, instance_id: str) -> bytes | None:
        return None

    @property
    def replaces_running(self) -> bool:
        return False

    def output_of_failure(self, name: str, failure: Failure) -> str:
        """The exception: this process has not loaded the application, which may say it otherwise."""
        return str(failure)

    def has_orchestrator(self, name: str) -> None:
        """Unknown: this process has not loaded the application."""

    def has_entity(self, name: str) -> None:
        """Unknown: this process has not loaded the application."""

    def operation_guard(self, entity: str, operation: str) -> None:
        """None: this process has not loaded the application and its types."""


class PollingBell(Bell):
    """A bell that rings at a fixed interval, for a reader that polls."""

    async def rung(self, seconds: float) -> bool:
        await asyncio.sleep(LOOK_EVERY)
        return True
