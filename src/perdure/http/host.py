"""The ASGI application: the engine's life around it, the tables of routes in it, the guard before it.

    /api/…                               client functions            api/functions
    /runtime/webhooks/durabletask/…      Azure's management API      api/management and others
    /durabletask/{credential}/…          the same for Azure's client api/azure_client
    /healthz  /readyz                    for probes                  here
    /openapi.json  /docs                 the description of all that pages/docs_pages
    /errors/{number}                     what errors mean            pages/error_pages
    /  /instances/{id}  /static/…        pages for people            pages

`asgi(app)` starts the engine in its lifespan. A web framework that mounts it does not pass lifespans on to
what it mounts; the engine then starts with the first request, and a warning tells how to start it earlier.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, Unpack
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount

from perdure.engine.client.occasions import occasion
from perdure.errors import EngineStopped, PerdureError
from perdure.http.access.gate import Access, SignedIn
from perdure.http.access.limits import RateLimits
from perdure.http.api import access as access_api
from perdure.http.api import azure_client, bulk, entities, functions, management, streams, triggers, workers
from perdure.http.api.instance_urls import MANAGEMENT, RequestLinks
from perdure.http.contract import Answer, Contract
from perdure.http.guard import Guard
from perdure.http.mounting import BASE, prefix_of
from perdure.http.pages import (
    admin_pages,
    docs_pages,
    error_pages,
    event_links,
    instance_actions,
    instances,
    signing_in,
    trigger_actions,
)
from perdure.http.pages import triggers as trigger_pages
from perdure.http.pages import workers as worker_pages
from perdure.http.pages.refused_requests import on_refused, on_signed_in
from perdure.http.pages.rendering import for_people
from perdure.http.principal import Refused
from perdure.http.problem import (
    RETRY_AFTER,
    on_disconnect,
    on_http_exception,
    on_perdure_error,
    on_surprise,
)
from perdure.http.proxies import Proxies
from perdure.http.responses import json_response
from perdure.http.routing import client_of, routes
from perdure.http.running_engine import RunningEngine, engine_of
from perdure.http.static_files import static_files
from perdure.http.table import Endpoint
from perdure.settings import SERVING, choose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from perdure.engine.client.client import Client
    from perdure.engine.functions.registry import Registry
    from perdure.settings import Chosen, EngineOverrides, HostOverrides

_SERVED = frozenset(row.name for row in SERVING)
PROBE = 2.0  # seconds that a store may take to answer a probe
log = logging.getLogger("perdure.http")


class Application(Protocol):
    """What is served: a `perdure.App`, or anything that runs as one does."""

    @property
    def name(self) -> str: ...

    def running(
        self,
        store: str | None = None,
        hub: str | None = None,
        **overrides: Unpack[EngineOverrides],
    ) -> AbstractAsyncContextManager[Client]:
        """Serve the hub while the block runs, and give its client."""


class Host:
    """An application as ASGI. `lifespan` can be given to the framework that mounts it."""

    def __init__(
        self,
        app: Application,
        *,
        store: str | None = None,
        hub: str | None = None,
        **overrides: Unpack[HostOverrides],
    ) -> None:
        given: dict[str, Any] = dict(overrides)
        self._app = app
        self._store, self._hub = store, hub
        self._serving_settings = choose(SERVING, {n: given.pop(n) for n in _SERVED & given.keys()})
        self._overrides = given
        self._serving: ASGIApp | None = None
        self._client: Client | None = None
        self._token = ""
        self._is_published = False
        self._starting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def client(self) -> Client:
        """The client of the running engine, for the routes of the site that mounts this. Raises EngineStopped.

        Ask for it in the route itself: from then on the starts of this request are known, also those in tasks of
        their own, and an anonymous caller gets no link to an instance that a start has met.
        """
        occasion()
        if self._client is None:
            raise EngineStopped(
                "this application is not running: pass lifespan=host.lifespan to the application that mounts it"
            )
        return self._client

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """The engine's life. Entering starts it and recovers what was running; leaving stops it."""
        async with self._app.running(self._store, self._hub, **self._overrides) as client:
            access = access_by(self._serving_settings, client)
            chosen = self._serving_settings
            self._serving = application(
                client,
                allowed_hosts=chosen["allowed_hosts"].value,
                access=access,
                public_url=chosen["public_url"].value,
                trusted_proxies=chosen["trusted_proxies"].value,
                host=self,
            )
            await access.signer.prepare()  # so that routes of the site around it may hand out links
            self._client, self._token, self._is_published = client, access.token or "", False
            if access.token and not access.keys.has_keys():
                _tell_of_token(access.token, is_made_up=chosen["token"].value is None)
            try:
                yield
            finally:
                self._serving = self._client = None
                await access.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Starlette(lifespan=self.lifespan)(scope, receive, send)
            return
        serving = self._serving or await self._start_late()
        if not self._is_published:
            self._publish(scope)
        await serving(scope, receive, send)

    def _publish(self, scope: Scope) -> None:
        """Tell the commands on this machine where the server is. The first request is the first to know it."""
        self._is_published = True
        address = _address_in(scope)
        if address and self._client is not None:
            engine_of(self._client).publish(address, self._token)

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


def _address_in(scope: Scope) -> str:
    """Where the socket of a request listens, with the path that this host is mounted at; "" if it tells neither."""
    host, port = scope.get("server") or ("", None)
    if not port or scope["type"] != "http":
        return ""
    try:
        bare = ipaddress.ip_address(host)
    except ValueError:
        return ""  # made up, as in a test, or the path of a Unix socket
    shown = f"[{bare}]" if bare.version == 6 else str(bare)
    return f"{scope.get('scheme', 'http')}://{shown}:{port}{prefix_of({BASE: scope.get('root_path', '')})}"


def asgi(
    app: Application,
    *,
    store: str | None = None,
    hub: str | None = None,
    **overrides: Unpack[HostOverrides],
) -> Host:
    """The application over HTTP, with its engine.

    Parameters:
        app: the application.
        store, hub: as for `app.running()`.
        overrides: any setting of the engine or of the server, see `perdure settings`.
    """
    return Host(app, store=store, hub=hub, **overrides)


def access_by(chosen: Mapping[str, Chosen], client: Client, *, address: str = "") -> Access:
    """The gate that the settings ask for; `address` is where the server listens, if that is known."""
    is_open = chosen["access"].value == "open"
    rate = chosen["rate_limit"].value
    return Access(
        client,
        token=None if is_open else chosen["token"].value or secrets.token_urlsafe(24),
        admin_key=chosen["admin_key"].value,
        is_open=is_open,
        limits=RateLimits(rate=rate, burst=2 * rate),
        public_url=chosen["public_url"].value or address,
    )


def application(
    client: Client,
    *,
    allowed_hosts: Iterable[str] = (),
    access: Access | None = None,
    public_url: str = "",
    trusted_proxies: Iterable[str] = (),
    host: object = None,
) -> ASGIApp:
    """The ASGI application over a client whose engine is running.

    `access` says who may do what. Without it nobody is asked: that is for tests, and for a caller who has asked.
    Links begin with `public_url`, or else with the address that a request came by. `host` is what a site mounts.
    """
    access = access or Access(client, is_open=True)
    engine = engine_of(client)
    is_azure = engine.registry.links == "azure"
    client.links = RequestLinks(
        access.signer,
        host=host,
        public_url=public_url.rstrip("/"),
        callers=access.caller_of,
        is_azure=is_azure,
    )
    if is_azure:
        _warn_of_anonymous(engine.registry)
    starlette = Starlette(
        routes=[
            *routes(
                functions.endpoints_of(engine.registry.routes, client, engine.resources),
                engine.registry.route_prefix,
            ),
            *routes(management.ENDPOINTS, MANAGEMENT),
            *routes(entities.ENDPOINTS, MANAGEMENT),
            *routes(bulk.ENDPOINTS, MANAGEMENT),
            *routes(streams.ENDPOINTS, MANAGEMENT),
            *routes(triggers.ENDPOINTS, MANAGEMENT),
            *routes(workers.ENDPOINTS, MANAGEMENT),
            *routes(
                azure_client.endpoints_of((*management.ENDPOINTS, *entities.ENDPOINTS)), azure_client.RPC
            ),
            *routes(HEALTH),
            *routes(docs_pages.ENDPOINTS),
            *routes(error_pages.ENDPOINTS),
            *routes(instances.ENDPOINTS),
            *routes(instance_actions.ENDPOINTS),
            *routes(trigger_pages.ENDPOINTS),
            *routes(trigger_actions.ENDPOINTS),
            *routes(worker_pages.ENDPOINTS),
            *routes(access_api.ENDPOINTS, MANAGEMENT),
            *routes(signing_in.ENDPOINTS),
            *routes(admin_pages.ENDPOINTS),
            *routes(event_links.ENDPOINTS),
            Mount("/static", static_files()),
        ],
        exception_handlers={
            Refused: on_refused,
            SignedIn: on_signed_in,
            PerdureError: for_people(on_perdure_error),
            TimeoutError: for_people(on_perdure_error),
            HTTPException: for_people(on_http_exception),
            ClientDisconnect: on_disconnect,
            Exception: for_people(on_surprise),
        },
    )
    starlette.router.redirect_slashes = False
    starlette.state.client = client
    starlette.state.access = access
    names = [*allowed_hosts, *filter(None, [urlsplit(public_url).hostname])]
    return Proxies(Guard(starlette, names, access.limits.header_bytes), trusted_proxies)


def _warn_of_anonymous(registry: Registry) -> None:
    anonymous = {route.name: route for route in reversed(registry.routes) if route.auth == "anonymous"}
    for route in reversed(anonymous.values()):
        log.warning(
            "the route %s %s is open to everyone, and hands each caller links that also raise events, terminate and "
            "purge. To hand out what the caller may do, leave App(links='azure') out; for an Azure app, set "
            "--azure-links status",
            "/".join(route.methods),
            registry.route_prefix + route.path,
        )


def _tell_of_token(token: str, *, is_made_up: bool) -> None:
    """How this machine gets in. The token is for a person at a terminal; it is not for a log."""
    log.warning(
        "there are no access keys yet: until there are, only this machine gets in, with the start-up token. "
        "`perdure keys create` makes a key; PERDURE_TOKEN sets the token"
    )
    if is_made_up and sys.stderr.isatty():
        sys.stderr.write(f"start-up token: {token}\n")


async def health(request: Request) -> Response:
    """GET healthz: 200 while this process works as it should, else 503. It tells no more than that.

    A store that is away is nothing that a start anew would bring back: `/readyz` tells of that.
    """
    healthy = bool(engine_of(client_of(request)).health()["alive"])
    return json_response({"healthy": healthy}, 200 if healthy else 503)


async def ready(request: Request) -> Response:
    """GET readyz: 200 when this server should be sent requests, else 503 and in one word why not.

    It is stricter than `/healthz`: a full queue or a store that cannot be asked is no reason to start the server
    anew, but one to send requests elsewhere for a while.
    """
    reason = await hindrance(engine_of(client_of(request)))
    headers = {"Retry-After": RETRY_AFTER[503]} if reason else {}
    return json_response({"ready": not reason, "reason": reason}, 503 if reason else 200, headers)


async def hindrance(engine: RunningEngine) -> str:
    """In one word why requests should be sent elsewhere; "" when they may be sent here."""
    health = engine.health()
    if not health["healthy"]:
        return "store" if health["store"] != "ok" else "engine"
    if health["queued"] >= engine.settings.queued_requests:
        return "busy"
    try:
        async with asyncio.timeout(PROBE):
            await engine.read(
                lambda: engine.store.executions(0)
            )  # one look into an index, and nothing counted
    except (PerdureError, TimeoutError):
        return "store"
    return ""


class Health(TypedDict):
    """Whether the process is."""

    healthy: bool


class Readiness(TypedDict):
    """Whether work is taken, and what is in the way."""

    ready: bool
    reason: str


HEALTH = (
    Endpoint(
        "/healthz",
        ("GET",),
        health,
        "open",
        contract=Contract(answers=(Answer(200, Health, "It works."), Answer(503, Health, "Start it anew."))),
    ),
    Endpoint(
        "/readyz",
        ("GET",),
        ready,
        "open",
        contract=Contract(
            answers=(Answer(200, Readiness, "Work is taken."), Answer(503, Readiness, "Not now."))
        ),
    ),
)

__all__ = ["Host", "access_by", "application", "asgi", "hindrance"]
