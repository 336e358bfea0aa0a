"""The ASGI application: the engine's life around it, the tables of routes in it, the guard before it.

    /api/…                               client functions            functions
    /runtime/webhooks/durabletask/…      Azure's management API      management
    /healthz                             for probes                  here
    /  /instances/{id}  /static/…        pages for people            pages

`asgi(app)` starts the engine in its lifespan. A web framework that mounts it does not pass lifespans on to
what it mounts; the engine then starts with the first request, and a warning tells how to start it earlier.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from perdure.errors import PerdureError
from perdure.http import bulk, entities, functions, management, pages, submissions
from perdure.http.endpoint import Endpoint, client_of, routes
from perdure.http.guard import Guard
from perdure.http.links import MANAGEMENT, RequestLinks, json_response
from perdure.http.problem import on_http_exception, on_perdure_error, on_surprise
from perdure.settings import SERVING, choose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from perdure.app import App
    from perdure.engine.client import Client
    from perdure.settings import EngineOverrides

log = logging.getLogger("perdure.http")


class Host:
    """An application as ASGI. `lifespan` can be given to the framework that mounts it."""

    def __init__(
        self,
        app: App,
        *,
        store: str | None = None,
        hub: str | None = None,
        allowed_hosts: Iterable[str] | None = None,
        **overrides: Unpack[EngineOverrides],
    ) -> None:
        self._app = app
        self._store, self._hub, self._overrides = store, hub, overrides
        self._allowed_hosts = choose(SERVING, {"allowed_hosts": allowed_hosts})["allowed_hosts"].value
        self._serving: ASGIApp | None = None
        self._starting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """The engine's life. Entering starts it and recovers what was running; leaving stops it."""
        async with self._app.running(self._store, self._hub, **self._overrides) as client:
            self._serving = application(client, allowed_hosts=self._allowed_hosts)
            try:
                yield
            finally:
                self._serving = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Starlette(lifespan=self.lifespan)(scope, receive, send)
            return
        serving = self._serving or await self._start_late()
        await serving(scope, receive, send)

    async def _start_late(self) -> ASGIApp:
        """Start at the first request; the task that keeps the engine is cancelled when the loop is closed."""
        async with self._starting:
            if self._serving is None:
                log.warning(
                    "perdure starts with this first request: mounted applications get no lifespan. Pass "
                    "lifespan=host.lifespan to the outer application, so that timers go on after a restart"
                )
                started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._keeper = asyncio.create_task(self._keep(started))
                await started
        assert self._serving is not None
        return self._serving

    async def _keep(self, started: asyncio.Future[None]) -> None:
        try:
            async with self.lifespan():
                started.set_result(None)
                await asyncio.Event().wait()
        except Exception as error:
            if started.done():
                raise
            started.set_exception(error)


def asgi(
    app: App,
    *,
    store: str | None = None,
    hub: str | None = None,
    allowed_hosts: Sequence[str] | None = None,
    **overrides: Unpack[EngineOverrides],
) -> Host:
    """The application over HTTP, with its engine.

    Parameters:
        app: the application.
        store, hub, overrides: as for `app.running()`.
        allowed_hosts: names besides localhost by which this server may be addressed.
    """
    return Host(app, store=store, hub=hub, allowed_hosts=allowed_hosts, **overrides)


def application(client: Client, *, allowed_hosts: Iterable[str] = ()) -> ASGIApp:
    """The ASGI application over a client whose engine is running."""
    client.links = RequestLinks()
    engine: Any = client.gateway
    starlette = Starlette(
        routes=[
            *routes(
                functions.endpoints_of(engine.registry.routes, client, engine.resources), functions.PREFIX
            ),
            *routes(management.ENDPOINTS, MANAGEMENT),
            *routes(entities.ENDPOINTS, MANAGEMENT),
            *routes(bulk.ENDPOINTS, MANAGEMENT),
            *routes(HEALTH),
            *routes(pages.ENDPOINTS),
            *routes(submissions.ENDPOINTS),
            Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        ],
        exception_handlers={
            PerdureError: on_perdure_error,
            TimeoutError: on_perdure_error,
            HTTPException: on_http_exception,
            Exception: on_surprise,
        },
    )
    starlette.router.redirect_slashes = False
    starlette.state.client = client
    return Guard(starlette, allowed_hosts)


async def health(request: Request) -> Response:
    """GET healthz: 200 when the engine takes work, else 503. It tells no more than that."""
    engine: Any = client_of(request).gateway
    healthy = bool(engine.health()["healthy"])
    return json_response({"healthy": healthy}, 200 if healthy else 503)


HEALTH = (Endpoint("/healthz", ("GET",), health, "open"),)

__all__ = ["Host", "application", "asgi"]
