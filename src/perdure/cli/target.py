"""How a command reaches the instances: through the living server if there is one, else through the store.

A SQLite file has one engine at a time. When a server has it, its address is in the file beside the database,
and the command talks HTTP to it. Otherwise a command that only asks reads the file, and one that tells takes
the file over for a moment, in a way that keeps messages durably and runs nobody's code: what it asked for
happens when the application is served again. In PostgreSQL it is one more worker for that moment, beside those that
serve the hub, and runs nothing either. Neither creates a database: a wrong path is said to be wrong. Only the first
key of a hub comes before whoever serves it: an address that others reach is not served without one.
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
from perdure.store import hubs_of, is_postgres, open_store, sqlite_path
from perdure.store.port import shared
from perdure.store.sqlite.lock import ServerInfo, read_server_file

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from perdure.engine.core.audit import AuditMemo
    from perdure.model.messages import Message
    from perdure.model.waiting import Pulse
    from perdure.model.workers import Worker
    from perdure.store.port import ClientStore

T = TypeVar("T")
LATER = "It is obeyed when the application is served again."
LOOK_EVERY = 0.2  # seconds, while waiting for an instance in a file that another process serves


@dataclass(frozen=True)
class HubTarget:
    """What the options say about where the instances are, and how to report what goes wrong."""

    store: str
    hub: str | None = None
    url: str | None = None
    as_json: bool = False
    key: str | None = field(default_factory=lambda: os.environ.get("PERDURE_KEY") or None, repr=False)
    founds: bool = False  # whether telling makes the hub that was named, when there is none
    public_url: str = ""  # what links begin with where no server is asked for them

    def __post_init__(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise typer.BadParameter(
                f"an address begins with http:// or https://, not {self.url!r}", param_hint="--url"
            )

    @property
    def is_served(self) -> bool:
        """Whether somebody lives who does what is told; else it waits in the store until there is one."""
        if self._remote() is not None:
            return True
        if not is_postgres(self.store):
            return False
        return bool(_serving(self.ask(lambda client: client.workers())))

    def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something that changes nothing; end the command if perdure refuses."""
        return self._perform(self.reading(), work)

    def tell(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Do something that may change instances; end the command if perdure refuses."""
        return self._perform(self.accepting(), work)

    def order(self, work: Callable[[Client], Awaitable[T]], *, entity: str = "") -> T:
        """Tell what workers are to do; say, too, why it is not being done yet. `entity` is whom it needs."""

        async def remarked(client: Client) -> T:
            done = await work(client)
            await remark(client, entity=entity)
            return done

        return self.tell(remarked)

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
        store = open_store(self.store, self.hub_name(), encryption_given())
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
        hub, is_new = self._founded() if self.founds else (self.hub_name(), False)
        async with App().running(store=self.store, hub=hub, accept_only=True) as client:
            if is_new:
                errors().print(plain(f"The hub {hub!r} was made in {self._place}."), style="dim")
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
            fail(f"nobody foresaw this: {told}", REFUSED, as_json=self.as_json, kind="internal")

    def _remote(self) -> RemoteClient | None:
        if self.url:
            return RemoteClient(self.url, hub=self.hub, key=self.key)
        found = self.served()
        if found is None:
            return None
        return RemoteClient(found.address, hub=self.hub, key=self.key or found.token or None)

    def served(self) -> ServerInfo | None:
        """The server on this machine that has the file, and is reached at an address; None without one."""
        path = None if self.url else sqlite_path(self.store)
        found = read_server_file(path) if path else None
        return found if found is not None and found.address else None

    @property
    def _place(self) -> str:
        return mask(sqlite_path(self.store) or self.store)

    def _founded(self) -> tuple[str, bool]:
        """The hub, and whether it is still to be made."""
        if not (is_postgres(self.store) or sqlite_path(self.store)):
            return self.hub_name(), False  # which says that nobody else can look in there
        try:
            names = hubs_of(self.store)
        except StoreUnusable:  # no file, or no tables: whoever opens it for writing says whether there can be
            names = []
        if names and self.hub is None:
            return self.hub_name(), False
        if self.hub is None:
            raise StoreUnusable(
                f"{self._place} has no hub yet: name the one to be made, as the application is named, with --hub NAME"
            )
        return self.hub, self.hub not in names

    def hub_name(self) -> str:
        """The hub that was named, or the only one there is. Raises StoreUnusable when that is none."""
        names, place = hubs_of(self.store), self._place
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


async def remark(client: Client, orchestrator: str = "", *, entity: str = "") -> None:
    """Say, beside the results, why what was just accepted is not being done yet.

    `orchestrator` or `entity` is the name of what it needs.
    """
    if isinstance(client, RemoteClient):
        return  # a server is there, and refuses what nobody has
    serving = _serving(await client.workers())
    if not serving:
        _note(f"nobody serves this hub at present. {LATER}")
    elif orchestrator:
        _remark_missing("orchestrator", orchestrator, {name for one in serving for name in one.orchestrators})
    elif entity:
        _remark_missing("entity", entity, {name for one in serving for name in one.entities})


def _remark_missing(kind: str, wanted: str, known: set[str]) -> None:
    if wanted.casefold() not in map(str.casefold, known):
        _note(
            f"no worker that serves this hub has an {kind} {wanted!r}, so it waits until one has; "
            f"they have {', '.join(sorted(known)) or 'none'}"
        )


def _serving(workers: Iterable[Worker]) -> list[Worker]:
    """Those who do what is told."""
    return [one for one in workers if one.role == "worker" and one.state == "living"]


def _note(told: str) -> None:
    errors().print(plain(f"note: {told}"), soft_wrap=True)


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
        return nullcontext(PollingBell())

    async def record(self, memo: AuditMemo) -> None:
        raise EngineStopped("this command only reads")

    def pulses(self, executions: Mapping[str, str]) -> dict[tuple[str, int], Pulse]:
        """What workers have put into the store; only the engine that runs an activity knows more."""
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

    def has_orchestrator(self, name: str) -> None:
        """Nobody here knows."""

    def has_entity(self, name: str) -> None:
        """Nobody here knows."""

    def operation_guard(self, entity: str, operation: str) -> None:
        """The application's types are not known here."""


class PollingBell(Bell):
    """A bell that nobody rings, for whoever looks every now and then."""

    async def rung(self, seconds: float) -> bool:
        await asyncio.sleep(LOOK_EVERY)
        return True
