"""Serves an application in this process: with API and pages, or as a worker that only runs functions."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from perdure.http.host import access_by, application, hindrance, links_without_api
from perdure.http.running_engine import engine_of
from perdure.server.child import ReadyReport
from perdure.server.event_loop import loop_factory
from perdure.server.forced_exit import LastResort
from perdure.server.sockets import address_of, allow_open_files, is_loopback
from perdure.server.store_opening import open_client
from perdure.server.uvicorn_server import UvicornServer, config_of
from perdure.telemetry.metrics import metrics_of

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp

    from perdure.engine.client.client import Client
    from perdure.errors import StoreError
    from perdure.http.access.gate import Access
    from perdure.http.host import Application
    from perdure.server.child import Tether
    from perdure.server.options import ServeOptions

READY_EVERY = 0.5  # seconds between two checks whether a worker is ready for requests
Facts = list[tuple[str, str]]
"""The start-up lines about a server, as names and values."""


@dataclass(frozen=True)
class Reached:
    """The address of a server, its start-up token, and whether people need the token to sign in."""

    address: str
    token: str
    needs_token: bool


class Announcer(Protocol):
    """Prints the progress of a server."""

    def serving(self, facts: Facts) -> None:
        """Called when the server is ready."""

    def say(self, line: str) -> None:
        """Called with each message of the supervisor."""


class AppAnnouncer(Announcer, Protocol):
    """An `Announcer` in a process that runs the application."""

    def waiting(self, error: StoreError) -> None:
        """Called while the database does not answer."""

    async def facts(self, client: Client, reached: Reached | None) -> Facts:
        """The start-up lines of a server. `reached` is None for a worker without an API."""

    def stopped(self) -> None:
        """Called when the server has stopped."""


@dataclass(frozen=True)
class ServedApp:
    """One application being served in this process.

    Parameters:
        app: the application.
        options: the settings.
        announcer: prints the progress. A supervised child reports to its supervisor instead.
        tether: the child's connection to its supervisor, or None.
    """

    app: Application
    options: ServeOptions
    announcer: AppAnnouncer
    tether: Tether | None = None

    def run(self, listener: socket.socket | None) -> None:
        """Serve until a signal stops the process: the API on `listener`, or only functions without a listener."""
        allow_open_files()
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve(listener))

    async def _serve(self, listener: socket.socket | None) -> None:
        async with AsyncExitStack() as stack:
            client = await open_client(stack, self.app, self.options, self.announcer.waiting)
            if listener is None:
                await self._work(client)
            else:
                await self._listen(client, listener)
        if self.tether is None:
            self.announcer.stopped()
        else:
            await self.tether.tell_last()

    async def _listen(self, client: Client, listener: socket.socket) -> None:
        """Serve the API until a signal stops the process."""
        host, port = self.options.host, listener.getsockname()[1]
        shown = address_of("localhost" if host == "127.0.0.1" else host, port)
        access = access_by(self.options.chosen, client, address=shown)
        config = config_of(self._application(client, access))
        engine, token = engine_of(client), access.token or ""
        engine.publish(address_of(host, port), token)
        needs_token = is_loopback(host) and not access.keys.has_keys() and access.token is not None
        facts = await self.announcer.facts(client, Reached(shown, token, needs_token))
        async with self._ready(client, facts, lambda: setattr(server, "should_exit", True)) as announce:
            server = UvicornServer(config, announce, LastResort(engine.settings.drain))
            await server.serve(sockets=[listener])
        await access.close()

    def _application(self, client: Client, access: Access) -> ASGIApp:
        chosen = self.options.chosen
        return application(
            client,
            allowed_hosts=self.options.allowed_hosts,
            access=access,
            public_url=chosen["public_url"].value,
            trusted_proxies=chosen["trusted_proxies"].value,
            warns=self.tether is None or self.tether.is_first,
        )

    async def _work(self, client: Client) -> None:
        """Run functions, without an API, until a signal stops the process."""
        client.links = links_without_api(client, access_by(self.options.chosen, client))
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        last_resort = LastResort(engine_of(client).settings.drain)

        def told(*_: object) -> None:  # a plain signal handler, because an activity can block the event loop
            last_resort.begin()
            loop.call_soon_threadsafe(stop.set)

        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, told)
        facts = await self.announcer.facts(client, None)
        async with self._ready(client, facts, stop.set) as announce:
            announce()
            await stop.wait()

    @asynccontextmanager
    async def _ready(
        self, client: Client, facts: Facts, stop: Callable[[], object]
    ) -> AsyncIterator[Callable[[], None]]:
        """A context with a function to call when this process serves. It prints, or reports to the supervisor."""
        tether = self.tether
        if tether is None:
            yield lambda: self.announcer.serving(facts)
            return
        tether.listen(stop)
        tether.serve(metrics_of(engine_of(client).telemetry))
        telling: list[asyncio.Task[None]] = []
        yield lambda: telling.append(asyncio.create_task(_report(client, facts, tether)))
        for task in telling:
            task.cancel()


async def _report(client: Client, facts: Facts, tether: Tether) -> None:
    """Report to the supervisor as soon as this process is ready for requests."""
    engine = engine_of(client)
    while await hindrance(engine):  # noqa: ASYNC110 (no event signals the end of a hindrance)
        await asyncio.sleep(READY_EVERY)
    settings = engine.settings
    await tether.tell(ReadyReport(settings.drain, settings.belonging.lease, facts))


__all__ = ["Announcer", "AppAnnouncer", "Facts", "Reached", "ServedApp"]
