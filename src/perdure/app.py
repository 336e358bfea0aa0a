"""The application: it registers durable functions and runs them.

app = App("claims")

@app.orchestrator
async def approval(context: OrchestrationContext, request: Request) -> str: ...

async with app.running(store="sqlite:///claims.db") as client:
    await client.start_new(approval, None, request)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast, get_args

from perdure.blueprint import LEVELS, Blueprint, level_of
from perdure.engine.client.client import Client
from perdure.engine.clock import Clock
from perdure.engine.core.telemetry import together
from perdure.engine.engine import Engine, Settings
from perdure.engine.functions.registry import Definition, LinksFor, Registry
from perdure.engine.functions.versions import FailureStrategy, MatchStrategy
from perdure.engine.loop.inbox import InboxWaiter
from perdure.engine.upkeep.retention import Retention
from perdure.errors import RegistrationError, needing
from perdure.model.access import Identify
from perdure.model.durations import Seconds
from perdure.outbound import HttpPolicy, Sender, Webhook
from perdure.outbound.webhooks import checked_webhooks
from perdure.settings import (
    ENGINE,
    PLACE,
    EngineOverrides,
    HostOverrides,
    choose,
    coded_in,
    encryption_given,
    engine_settings,
    refuses_open_files,
)
from perdure.store import open_store
from perdure.store.encryption import Encryption
from perdure.store.port import Store
from perdure.telemetry.composition import telling
from perdure.telemetry.metrics import metrics_of
from perdure.telemetry.switch import tracer_for
from perdure.triggers import serving, with_built_ins

if TYPE_CHECKING:
    from perdure.telemetry.tracing import Tracer

S = TypeVar("S")


class App(Blueprint):
    """A set of durable functions and their hub.

    Parameters:
        name: the default name of the hub: 1 to 100 letters, digits, dots, dashes and underscores.
        settings: the settings of the engine. The defaults suit one machine.
        http: the policy for `context.call_http`. Default: the public internet only.
        retention: how long the engine keeps finished instances before it purges them: one duration for all, or a
            `Retention`. Default: for ever.
        default_version: the version of instances that are started without one (Azure's `defaultVersion`).
        version_match_strategy: the instances that this worker runs, if it has a default version: those of every
            version ("None"), of the default version ("Strict"), or of this and older versions ("CurrentOrOlder").
        version_failure_strategy: whether other instances wait for another worker ("Reject") or fail ("Fail").
        keep_executions: the number of executions of an instance whose history is kept across continue-as-new.
        encryption: the keys that encrypt stored payloads. `PERDURE_ENCRYPTION_KEYS` overrides it.
        links: the links that a caller gets in the response to a start. With "caller", those that the caller's key
            allows. With "azure", all of them, including terminate and purge, as in Azure.
        telemetry: whether the engine counts what it does for `/metrics`, and tells OpenTelemetry. With "auto", the
            default, it counts if the extra `telemetry` is installed, and tells OpenTelemetry if the program has set a
            provider.
        identify: the application's own sign-in, for people who decide tasks: a function, `async` or not, from a
            request (starlette.requests.Request) to an `Identity`, or to None for a request without a signed-in
            person. It is asked about requests without a key or a signed link. If it raises an exception, the
            request is rejected. `proxy_identity` makes one for a reverse proxy.
        webhooks: the receivers of signed requests about tasks and instances.

    Raises:
        RegistrationError for an invalid name or setting.
    """

    def __init__(
        self,
        name: str = "default",
        *,
        settings: Settings | None = None,
        http: HttpPolicy | None = None,
        retention: Retention | Seconds | None = None,
        default_version: str | None = None,
        version_match_strategy: MatchStrategy | None = None,
        version_failure_strategy: FailureStrategy | None = None,
        keep_executions: int | None = None,
        encryption: Encryption | None = None,
        links: LinksFor = "caller",
        telemetry: Literal["auto", "off", "on"] | None = None,
        identify: Identify | None = None,
        webhooks: Collection[Webhook] = (),
    ) -> None:
        if links not in get_args(LinksFor):
            raise RegistrationError(
                f"App(links={links!r}) is invalid: links must be one of {', '.join(get_args(LinksFor))}"
            )
        if (
            not name
            or len(name) > 100
            or not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        ):
            raise RegistrationError(
                f"App name {name!r} is invalid: it must have 1 to 100 letters, digits, dots, dashes and underscores"
            )
        super().__init__()
        self.name = name
        self.registry.links = links
        self.registry.identify = identify
        self.registry.webhooks = checked_webhooks(webhooks)
        chosen = settings or Settings()
        self.settings = replace(
            chosen,
            versioning=_given(
                chosen.versioning,
                default=default_version,
                match=version_match_strategy,
                failure=version_failure_strategy,
            ),
            limits=_given(chosen.limits, keep_executions=keep_executions),
            telemetry=_given(chosen.telemetry, mode=telemetry),
        )
        self.http = http or HttpPolicy()
        self.encryption = encryption
        if retention is not None:
            self.settings = replace(self.settings, retention=Retention.of(retention))
        self._blueprints: list[Blueprint] = []

    # ------------------------------------------------------------------------------------------ composition

    def register_functions(self, blueprint: Blueprint) -> None:
        """Add all functions of a blueprint to this application. Call it once, after the functions are decorated.

        Raises RegistrationError for a name or route that is already registered (with both places), and for a
        blueprint that is already registered.
        """
        if isinstance(blueprint, App) or not isinstance(blueprint, Blueprint):
            raise RegistrationError(
                f"register_functions takes a Blueprint, not {type(blueprint).__name__}. An application cannot "
                "contain another application"
            )
        if blueprint in self._blueprints:
            raise RegistrationError(f"this blueprint is already registered in the application {self.name!r}")
        self.registry.include(blueprint.registry)
        self._blueprints.append(blueprint)
        blueprint.close(self.name)

    register_blueprint = register_functions

    # ---------------------------------------------------------------------------------------------- running

    @asynccontextmanager
    async def running(
        self,
        store: str | Store | None = None,
        hub: str | None = None,
        *,
        encryption_keys: Encryption | str | None = None,
        file_access: Literal["narrow", "refuse"] | None = None,
        partitions: int | None = None,
        replica_dir: str | None = None,
        standby: bool | None = None,
        keep_log: float | str | None = None,
        clock: Clock | None = None,
        waiter: InboxWaiter | None = None,
        **overrides: Unpack[EngineOverrides],
    ) -> AsyncIterator[Client]:
        """Run the engine for this application's hub during the block. Gives the engine's client.

        Parameters:
            store: `sqlite:///file.db`, `postgresql://user@host/database`, `azure:`, `memory:`, or an open store.
                Default: `PERDURE_STORE`, or else sqlite:///perdure.db.
            hub: the name of the hub. Default: `PERDURE_HUB`, or else the application's name.
            encryption_keys: the keys that encrypt payloads at rest. Default: `PERDURE_ENCRYPTION_KEYS`, or else the
                application's own. An open store has its own keys.
            file_access: "refuse" raises StoreUnusable for a SQLite file that other users can read. "narrow" changes
                its mode to 0600. Default: `PERDURE_FILE_ACCESS`, or else "narrow".
            partitions: how many partitions a new hub in PostgreSQL has, 1 to 4096. A hub keeps its number. Default:
                `PERDURE_PARTITIONS`, or else 256.
            replica_dir: the folder for the replica of a hub in Azure Storage. Default: `PERDURE_REPLICA_DIR`, or else
                a folder in the user's cache directory.
            standby: whether to wait for as long as another engine holds the hub in Azure Storage. Default:
                `PERDURE_STANDBY`, or else false.
            keep_log: how long a hub in Azure Storage can be restored to any moment, in seconds or as `7d`. Default:
                `PERDURE_KEEP_LOG`, or else 0.
            overrides: any other setting by name, such as `drain` or `threads`. Each is also an environment variable
                and a flag of `perdure run`. `perdure settings` lists them all.

        Raises:
            StoreInUse, StoreTooNew, StoreUnusable, WrongEncryptionKey, RegistrationError, SettingError.
        """
        given = {
            "hub": hub,
            "partitions": partitions,
            "replica_dir": replica_dir,
            "standby": standby,
            "keep_log": keep_log,
        }
        place = choose(PLACE, {**given, "store": store if isinstance(store, str) else None})
        chosen_hub = place["hub"].value or self.name
        if store is None or isinstance(store, str):
            keys = encryption_given(encryption_keys, self.encryption)
            store = open_store(
                place["store"].value,
                chosen_hub,
                keys,
                refuse_open_files=refuses_open_files(file_access),
                partitions=place["partitions"].value,
                replica_dir=place["replica_dir"].value,
                standby=place["standby"].value,
                keep_log=place["keep_log"].value,
            )
        chosen = choose(ENGINE, cast("dict[str, Any]", overrides), coded=coded_in(self.settings))
        settings = engine_settings(self.settings, chosen)
        async with AsyncExitStack() as stack:
            resources = [] if settings.accept_only else await _enter(stack, self.registry.lifespans)
            registry = Registry() if settings.accept_only else with_built_ins(self.registry)
            telemetry = await stack.enter_async_context(
                telling(settings, chosen_hub, self.name, clock, with_built_ins(self.registry), store)
            )
            sender = await stack.enter_async_context(Sender(self.http))
            resources.append(sender)
            tracer = tracer_for(settings, store, chosen_hub)
            if tracer is not None:
                sender.trace_headers = tracer.headers_out
            engine = Engine(
                registry,
                store,
                chosen_hub,
                settings=settings,
                clock=clock,
                waiter=waiter,
                resources=resources,
                telemetry=telemetry if tracer is None else together([telemetry, tracer]),
                tracing=tracer,
            )
            metrics = metrics_of(telemetry)
            if metrics is not None:
                metrics.watch(engine)
                if tracer is not None:
                    metrics.spans_dropped = tracer.dropped
            client = await _started(engine, tracer)
            try:
                async with serving(self.registry, client, accept_only=settings.runs_nothing):
                    yield client
            finally:
                await asyncio.shield(_stop(engine, tracer))

    def asgi(
        self,
        *,
        store: str | None = None,
        hub: str | None = None,
        **overrides: Unpack[HostOverrides],
    ) -> Any:
        """This application as an ASGI application, to serve alone or to mount in another one.

        Parameters:
            store, hub: as for `running`.
            overrides: any setting of the engine, as for `running`, or of the server, such as `public_url` and
                `rate_limit`. `allowed_hosts` are the host names that requests can have besides localhost.
                `access="open"` accepts requests without a key, for an application behind another access control.
        """
        with needing("server", "an application over HTTP"):  # imported only when it is used
            from perdure.http.host import asgi
        return asgi(self, store=store, hub=hub, **overrides)


class DFApp(App):
    """An `App` with the arguments of Azure's `DFApp`.

    Parameters:
        http_auth_level: the `auth` of routes that set none: anonymous, function or admin, as text or as
            `azure.functions.AuthLevel`.
        name: the name of the hub, unless the settings give another.
        options: as for `App`.

    Raises:
        RegistrationError for an unknown level.
    """

    def __init__(self, http_auth_level: Any = "function", *, name: str = "default", **options: Any) -> None:
        super().__init__(name, **options)
        self._auth = level_of(http_auth_level, "function")
        if self._auth not in LEVELS:
            raise RegistrationError(
                f"DFApp http_auth_level is one of {', '.join(LEVELS)}, not {self._auth!r}"
            )


def _given(settings: S, **values: Any) -> S:
    """The settings, changed by the values that are not None."""
    given = {name: value for name, value in values.items() if value is not None}
    return replace(settings, **given) if given else settings  # type: ignore[type-var]


async def _started(engine: Engine, tracer: Tracer | None) -> Client:
    """Start the engine. Its bodies inherit the present context variables."""
    if tracer is None:
        return await engine.start()
    with tracer.for_bodies():
        return await engine.start()


async def _stop(engine: Engine, tracer: Tracer | None) -> None:
    try:
        await engine.stop()
    finally:
        if tracer is not None:
            await tracer.close()


async def _enter(stack: AsyncExitStack, lifespans: list[Definition]) -> list[object]:
    resources: list[object] = []
    for lifespan in lifespans:
        yielded = await stack.enter_async_context(asynccontextmanager(lifespan.function)())
        resources.extend(yielded if isinstance(yielded, tuple | list) else [yielded])
    return [resource for resource in resources if resource is not None]
