"""The ASGI application: it starts and stops the engine, contains the tables of routes, and is wrapped by the guard.

    /api/…                               client functions            api/functions
    /runtime/webhooks/durabletask/…      Azure's management API      api/management and others
    /durabletask/{credential}/…          the same for Azure's client api/azure_client
    /healthz  /readyz                    probes                      here
    /openapi.json  /docs                 the API's description       pages/docs_pages
    /errors/{number}                     explanations of errors      pages/error_pages
    /  /instances  /instances/{id}  …    pages for people            pages

`asgi(app)` starts the engine in its lifespan. A web framework does not pass its lifespan on to mounted applications.
Then the engine starts with the first request, and a warning explains how to start it earlier.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import sys
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, Unpack
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
from perdure.http.api import (
    azure_client,
    bulk,
    entities,
    functions,
    management,
    metrics,
    statistics,
    streams,
    task_streams,
    tasks,
    traces,
    triggers,
    workers,
)
from perdure.http.api.instance_urls import MANAGEMENT, RequestLinks
from perdure.http.contract import Answer, Contract
from perdure.http.cross_origin import CrossOrigin
from perdure.http.guard import Guard
from perdure.http.mounting import BASE, prefix_of
from perdure.http.pages import (
    admin_pages,
    bulk_actions,
    docs_pages,
    error_pages,
    event_links,
    inbox,
    instance_actions,
    instance_list,
    instances,
    looks,
    overview,
    signing_in,
    starting,
    trigger_actions,
)
from perdure.http.pages import entities as entity_pages
from perdure.http.pages import functions as function_pages
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
from perdure.telemetry.metrics import metrics_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    from perdure.engine.client.client import Client
    from perdure.engine.functions.registry import Origins, Registry
    from perdure.http.routing import GatedRoute
    from perdure.settings import Chosen, EngineOverrides, HostOverrides

_SERVED = frozenset(row.name for row in SERVING)
PROBE = 2.0  # seconds that a store has to answer a probe
log = logging.getLogger("perdure.http")


class Application(Protocol):
    """The served application: a `perdure.App`, or an object that runs like one."""

    @property
    def name(self) -> str: ...

    def running(
        self,
        store: str | None = None,
        hub: str | None = None,
        **overrides: Unpack[EngineOverrides],
    ) -> AbstractAsyncContextManager[Client]:
        """Run the engine during the block. Gives its client."""


class Host:
    """An application as ASGI. Pass `lifespan` to the framework that mounts it."""

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
        """The client of the running engine, for routes of the site that mounts this host. Raises EngineStopped.

        Read it in the route itself. From then on the host knows which instances this request starts, also in tasks of
        their own, and gives an anonymous caller no link to an existing instance that a start found.
        """
        occasion()
        if self._client is None:
            raise EngineStopped(
                "this application is not running. Pass lifespan=host.lifespan to the application that mounts it"
            )
        return self._client

    @asynccontextmanager
    async def lifespan(self, _: Any = None) -> AsyncIterator[None]:
        """Run the engine. Entering starts it and recovers unfinished instances. Leaving stops it."""
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
            await access.signer.prepare()  # so that routes of the surrounding site can make links
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
        """Publish the server's address to commands on this machine. Only a request contains the address."""
        self._is_published = True
        address = _address_in(scope)
        if address and self._client is not None:
            engine_of(self._client).publish(address, self._token)

    async def _start_late(self) -> ASGIApp:
        """Start with the first request. The task that runs the engine is cancelled when the event loop closes."""
        async with self._starting:
            if self._serving is None:
                log.warning(
                    "perdure starts with this first request, because mounted applications get no lifespan. Pass "
                    "lifespan=host.lifespan to the outer application, so that timers fire after a restart without "
                    "a request"
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
    """The URL of the socket that a request arrived at, with the path of this host; "" if the request has none."""
    host, port = scope.get("server") or ("", None)
    if not port or scope["type"] != "http":
        return ""
    try:
        bare = ipaddress.ip_address(host)
    except ValueError:
        return ""  # an invented name, as in a test, or the path of a Unix socket
    shown = f"[{bare}]" if bare.version == 6 else str(bare)
    return f"{scope.get('scheme', 'http')}://{shown}:{port}{prefix_of({BASE: scope.get('root_path', '')})}"


def asgi(
    app: Application,
    *,
    store: str | None = None,
    hub: str | None = None,
    **overrides: Unpack[HostOverrides],
) -> Host:
    """The application and its engine as an ASGI application.

    Parameters:
        app: the application.
        store, hub: as for `app.running()`.
        overrides: any setting of the engine or the server, see `perdure settings`.
    """
    return Host(app, store=store, hub=hub, **overrides)


def access_by(chosen: Mapping[str, Chosen], client: Client, *, address: str = "") -> Access:
    """The access control that the settings describe. `address` is the server's own address, if it is known."""
    is_open = chosen["access"].value == "open"
    rate = chosen["rate_limit"].value
    return Access(
        client,
        token=None if is_open else chosen["token"].value or secrets.token_urlsafe(24),
        admin_key=chosen["admin_key"].value,
        is_open=is_open,
        limits=RateLimits(rate=rate, burst=2 * rate),
        public_url=chosen["public_url"].value or address,
        trust_traceparent=chosen["trust_traceparent"].value,
    )


def links_without_api(client: Client, access: Access) -> RequestLinks:
    """The links that functions make in a process that serves no API, and so needs PERDURE_PUBLIC_URL for them."""
    return RequestLinks(
        access.signer,
        public_url=access.signer.public_url,
        is_azure=engine_of(client).registry.links == "azure",
    )


_MANAGED = (
    management.ENDPOINTS,
    entities.ENDPOINTS,
    task_streams.ENDPOINTS,
    tasks.ENDPOINTS,
    bulk.ENDPOINTS,
    streams.ENDPOINTS,
    traces.ENDPOINTS,
    triggers.ENDPOINTS,
    workers.ENDPOINTS,
    statistics.ENDPOINTS,
    access_api.ENDPOINTS,
)
"""The API for programs, below the management prefix. A literal path comes before the path with a parameter."""
_PAGES = (
    docs_pages.ENDPOINTS,
    error_pages.ENDPOINTS,
    overview.ENDPOINTS,
    instance_list.ENDPOINTS,
    bulk_actions.ENDPOINTS,
    starting.ENDPOINTS,
    instances.ENDPOINTS,
    instance_actions.ENDPOINTS,
    inbox.ENDPOINTS,
    trigger_pages.ENDPOINTS,
    trigger_actions.ENDPOINTS,
    entity_pages.ENDPOINTS,
    function_pages.ENDPOINTS,
    worker_pages.ENDPOINTS,
    signing_in.ENDPOINTS,
    admin_pages.ENDPOINTS,
    event_links.ENDPOINTS,
    looks.ENDPOINTS,
)
_ON_ERROR: Mapping[Any, Any] = {
    Refused: on_refused,
    SignedIn: on_signed_in,
    PerdureError: for_people(on_perdure_error),
    TimeoutError: for_people(on_perdure_error),
    HTTPException: for_people(on_http_exception),
    ClientDisconnect: on_disconnect,
    Exception: for_people(on_surprise),
}


def application(
    client: Client,
    *,
    allowed_hosts: Iterable[str] = (),
    access: Access | None = None,
    public_url: str = "",
    trusted_proxies: Iterable[str] = (),
    host: object = None,
    warns: bool = True,
) -> ASGIApp:
    """The ASGI application for the client of a running engine.

    `access` checks callers. Without it every caller is let in, for tests and for callers that were checked before.
    Links begin with `public_url`, or else with the address of the request. `host` is the object that a site mounts.
    With `warns`, routes that are open to everyone are logged, if they give out all links.
    """
    access = access or Access(client, is_open=True)
    engine = engine_of(client)
    _let_in(access, engine)
    is_azure = engine.registry.links == "azure"
    client.links = RequestLinks(
        access.signer,
        host=host,
        public_url=public_url.rstrip("/"),
        callers=access.caller_of,
        is_azure=is_azure,
    )
    if is_azure and warns:
        _warn_of_anonymous(engine.registry)
    of_app = routes(
        functions.endpoints_of(engine.registry.routes, client, engine.resources), engine.registry.route_prefix
    )
    starlette = Starlette(routes=_routes(of_app, engine.registry.route_prefix), exception_handlers=_ON_ERROR)
    starlette.router.redirect_slashes = False
    starlette.state.client = client
    starlette.state.access = access
    names = [*allowed_hosts, *filter(None, [urlsplit(public_url).hostname])]
    for_programs = [*of_app, *routes(management.ENDPOINTS, MANAGEMENT)]
    guarded = _guarded(starlette, names, access, engine.registry.origins, for_programs)
    return Proxies(guarded, trusted_proxies)


def _let_in(access: Access, engine: RunningEngine) -> None:
    """Give the checks of callers what the engine knows: traces, the application's sign-in, the counters."""
    access.tracing = engine.tracing
    access.identify = engine.registry.identify
    counted = metrics_of(engine.telemetry)
    if counted is not None:
        counted.denied = access.denied


def _routes(of_app: list[GatedRoute], prefix: str) -> list[BaseRoute]:
    api = [
        *(route for endpoints in _MANAGED for route in routes(endpoints, MANAGEMENT)),
        *routes(azure_client.endpoints_of((*management.ENDPOINTS, *entities.ENDPOINTS)), azure_client.RPC),
        *routes(HEALTH),
        *routes(metrics.ENDPOINTS),
    ]
    return [
        # Without a prefix, a route of the application can be as wide as {*path}. The API keeps its paths.
        *([*of_app, *api] if prefix else [*api, *of_app]),
        *(route for endpoints in _PAGES for route in routes(endpoints)),
        Mount("/static", static_files()),
    ]


def _guarded(
    starlette: ASGIApp, names: list[str], access: Access, origins: Origins, for_programs: list[GatedRoute]
) -> Guard:
    limit = access.limits.header_bytes
    if not origins.named:
        return Guard(starlette, names, limit, denied=access.count_denied)
    shared = CrossOrigin(starlette, origins, [route.path_regex for route in for_programs])
    return Guard(shared, names, limit, shared.admits, access.count_denied)


def _warn_of_anonymous(registry: Registry) -> None:
    anonymous = {route.name: route for route in reversed(registry.routes) if route.auth == "anonymous"}
    for route in reversed(anonymous.values()):
        log.warning(
            "the route %s %s is open to everyone%s",
            "/".join(route.methods),
            registry.route_prefix + route.path,
            _LINKS_FOR_EVERYONE if route.has_client else "",
        )


_LINKS_FOR_EVERYONE: Final = (
    " and gives each caller links that also raise events, terminate and purge. To give each caller only the links "
    "for their key, remove App(links='azure'), or for an Azure app set --azure-links status"
)


def _tell_of_token(token: str, *, is_made_up: bool) -> None:
    """Log how to get access. The token itself is printed on a terminal only, not in a log."""
    log.warning(
        "the hub has no access keys yet, so only requests from this machine with the start-up token are accepted. "
        "Create a key with `perdure keys create`, or set the token with PERDURE_TOKEN"
    )
    if is_made_up and sys.stderr.isatty():
        sys.stderr.write(f"start-up token: {token}\n")


async def health(request: Request) -> Response:
    """GET healthz: 200 while this process works, 503 if it should be restarted.

    An unreachable store does not count, because a restart of this process would not help. `/readyz` reports it.
    """
    healthy = bool(engine_of(client_of(request)).health()["alive"])
    return json_response({"healthy": healthy}, 200 if healthy else 503)


async def ready(request: Request) -> Response:
    """GET readyz: 200 if this server is ready for requests, else 503 with the reason in one word.

    It is stricter than `/healthz`. With a full queue or an unreachable store, a restart does not help, but requests
    should go to another server for a while.
    """
    reason = await hindrance(engine_of(client_of(request)))
    headers = {"Retry-After": RETRY_AFTER[503]} if reason else {}
    return json_response({"ready": not reason, "reason": reason}, 503 if reason else 200, headers)


async def hindrance(engine: RunningEngine) -> str:
    """In one word, why this server is not ready for requests; "" if it is ready."""
    health = engine.health()
    if not health["healthy"]:
        return "store" if health["store"] != "ok" else "engine"
    if health["queued"] >= engine.settings.queued_requests:
        return "busy"
    try:
        async with asyncio.timeout(PROBE):
            await engine.read(lambda: engine.store.executions(0))  # one lookup in an index
    except (PerdureError, TimeoutError):
        return "store"
    return ""


class Health(TypedDict):
    """Whether the process works."""

    healthy: bool


class Readiness(TypedDict):
    """Whether the server is ready for requests, and if not, why."""

    ready: bool
    reason: str


HEALTH = (
    Endpoint(
        "/healthz",
        ("GET",),
        health,
        "open",
        contract=Contract(
            answers=(
                Answer(200, Health, "The process works."),
                Answer(503, Health, "The process should be restarted."),
            )
        ),
    ),
    Endpoint(
        "/readyz",
        ("GET",),
        ready,
        "open",
        contract=Contract(
            answers=(
                Answer(200, Readiness, "The server is ready."),
                Answer(503, Readiness, "The server is not ready."),
            )
        ),
    ),
)

__all__ = ["Host", "access_by", "application", "asgi", "hindrance"]
