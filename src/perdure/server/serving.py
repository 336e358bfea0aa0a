"""Serving an application in this process: as a server with API and pages, or as a worker that only runs functions."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from perdure.http.host import access_by, application, hindrance
from perdure.http.running_engine import engine_of
from perdure.server.child import ReadyReport
from perdure.server.forced_exit import LastResort
from perdure.server.sockets import address_of, allow_open_files, is_loopback
from perdure.server.store_opening import open_client
from perdure.server.uvicorn_server import UvicornServer, config_of, loop_factory

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

READY_EVERY = 0.5  # seconds between two looks whether a worker can be sent requests
Facts = list[tuple[str, str]]
"""What people are told of a server, as names and values."""


@dataclass(frozen=True)
class Reached:
    """Where a server is reached, its start-up token, and whether people need that to get in."""

    address: str
    token: str
    needs_token: bool


class Announcer(Protocol):
    """Tells people what becomes of a server."""

    def serving(self, facts: Facts) -> None:
        """The server serves."""

    def say(self, line: str) -> None:
        """What the supervisor of several workers has to tell."""


class AppAnnouncer(Announcer, Protocol):
    """The same in a process that runs the application."""

    def waiting(self, error: StoreError) -> None:
        """The database does not answer yet."""

    async def facts(self, client: Client, reached: Reached | None) -> Facts:
        """What there is to tell of a server that is about to serve; `reached` is None for one without an API."""

    def stopped(self) -> None:
        """The server has stopped."""


@dataclass(frozen=True)
class ServedApp:
    """One application being served in this process.

    Parameters:
        app: the application.
        options: the settings.
        announcer: tells people; a child of a supervisor tells the supervisor instead, once it is ready.
        tether: ties a child to its supervisor; None without one.
    """

    app: Application
    options: ServeOptions
    announcer: AppAnnouncer
    tether: Tether | None = None

    def run(self, listener: socket.socket | None) -> None:
        """Serve until told to stop: an API on `listener`, or without one the functions alone."""
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

    async def _listen(self, client: Client, listener: socket.socket) -> None:
        """Serve the API until told to stop."""
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
        )

    async def _work(self, client: Client) -> None:
        """Run functions, without an API, until told to stop."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        last_resort = LastResort(engine_of(client).settings.drain)

        def told(*_: object) -> None:  # not as a handler of the event loop's: an activity may block that
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
        """Gives what is to be called when this process serves: people are told, or the supervisor once it is true."""
        tether = self.tether
        if tether is None:
            yield lambda: self.announcer.serving(facts)
            return
        tether.when_cut(stop)
        telling: list[asyncio.Task[None]] = []
        yield lambda: telling.append(asyncio.create_task(_report(client, facts, tether)))
        for task in telling:
            task.cancel()


async def _report(client: Client, facts: Facts, tether: Tether) -> None:
    """Tell the supervisor as soon as this process can be sent requests."""
    engine = engine_of(client)
    while await hindrance(engine):  # noqa: ASYNC110 (nothing tells when it is back)
        await asyncio.sleep(READY_EVERY)
    settings = engine.settings
    tether.tell(ReadyReport(settings.drain, settings.belonging.lease, facts))


__all__ = ["Announcer", "AppAnnouncer", "Facts", "Reached", "ServedApp"]
