"""The application: what users decorate, and where the parts are put together.

app = App("claims")

@app.orchestrator
async def approval(context: OrchestrationContext, request: Request) -> str: ...

async with app.running(store="sqlite:///claims.db") as client:
    await client.start_new(approval, None, request)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar, Unpack, cast, get_args

from perdure.blueprint import LEVELS, Blueprint, level_of
from perdure.engine.client.client import Client
from perdure.engine.clock import Clock
from perdure.engine.engine import Engine, Settings
from perdure.engine.functions.registry import Definition, LinksFor, Registry
from perdure.engine.functions.versions import FailureStrategy, MatchStrategy
from perdure.engine.loop.inbox import InboxWaiter
from perdure.engine.upkeep.retention import Retention
from perdure.errors import RegistrationError, needing
from perdure.model.durations import Seconds
from perdure.outbound import HttpPolicy, Sender
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
from perdure.triggers import serving, with_built_ins

S = TypeVar("S")


class App(Blueprint):
    """A set of durable functions, and the hub they live in.

    Parameters:
        name: the hub's default name; 1 to 100 letters, digits, dots, dashes and underscores.
        settings: how the engine runs; the defaults suit one machine.
        http: what `context.call_http` may reach; default the public internet.
        retention: how long finished instances are kept before the engine purges them: a duration for all, or
            a `Retention`; default for ever.
        default_version: the version of starts that name none (Azure's `defaultVersion`).
        version_match_strategy: which instances this worker takes, when there is a default version: those of
            every version ("None"), of the default one ("Strict"), or of this and older ones ("CurrentOrOlder").
        version_failure_strategy: instances that are not taken wait for another worker ("Reject") or "Fail".
        keep_executions: how many executions of an instance keep their history across continue-as-new.
        encryption: keys that what is stored is encrypted with; `PERDURE_ENCRYPTION_KEYS` comes before it.
        links: who is handed the links to an instance: with "caller" each caller those for what they may do; with
            "azure" every caller all of them, also to terminate and purge, as in Azure.

    Raises:
        RegistrationError for a name or a setting that is not one of these.
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
    ) -> None:
        if links not in get_args(LinksFor):
            raise RegistrationError(f"App links {links!r}: one of {', '.join(get_args(LinksFor))}")
        if (
            not name
            or len(name) > 100
            or not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        ):
            raise RegistrationError(
                f"App name {name!r}: 1 to 100 letters, digits, dots, dashes and underscores"
            )
        super().__init__()
        self.name = name
        self.registry.links = links
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
        )
        self.http = http or HttpPolicy()
        self.encryption = encryption
        if retention is not None:
            self.settings = replace(self.settings, retention=Retention.of(retention))
        self._blueprints: list[Blueprint] = []

    # ------------------------------------------------------------------------------------------ composition

    def register_functions(self, blueprint: Blueprint) -> None:
        """Take over everything a blueprint holds; do it once, after its functions are decorated.

        Raises RegistrationError for a name or a route that is taken (it tells both places), and for a
        blueprint that is registered already.
        """
        if isinstance(blueprint, App) or not isinstance(blueprint, Blueprint):
            raise RegistrationError(
                f"register_functions takes a Blueprint, not {type(blueprint).__name__}: two applications are "
                "run side by side, they do not contain each other"
            )
        if blueprint in self._blueprints:
            raise RegistrationError(f"this blueprint is registered in the application {self.name!r} already")
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
        clock: Clock | None = None,
        waiter: InboxWaiter | None = None,
        **overrides: Unpack[EngineOverrides],
    ) -> AsyncIterator[Client]:
        """Serve this application's hub while the block runs, and give its client.

        Parameters:
            store: `sqlite:///file.db`, `memory:`, or an open store; default `PERDURE_STORE`, else
                sqlite:///perdure.db.
            hub: default `PERDURE_HUB`, else the application's name.
            encryption_keys: what payloads are encrypted with at rest; default `PERDURE_ENCRYPTION_KEYS`, else
                what the application says. A store that is handed over open has its own.
            file_access: "refuse" raises for a SQLite file that other users may read, instead of changing its mode
                to 0600; default `PERDURE_FILE_ACCESS`, else "narrow".
            overrides: any other setting by name, such as `drain` or `threads`; each is also an environment
                variable and a flag of `perdure run`, and `perdure settings` shows them all.

        Raises:
            StoreInUse, StoreTooNew, StoreUnusable, WrongEncryptionKey, RegistrationError, SettingError.
        """
        place = choose(PLACE, {"hub": hub, "store": store if isinstance(store, str) else None})
        chosen_hub = place["hub"].value or self.name
        if store is None or isinstance(store, str):
            keys = encryption_given(encryption_keys, self.encryption)
            store = open_store(
                place["store"].value, chosen_hub, keys, refuse_open_files=refuses_open_files(file_access)
            )
        chosen = choose(ENGINE, cast("dict[str, Any]", overrides), coded=coded_in(self.settings))
        settings = engine_settings(self.settings, chosen)
        async with AsyncExitStack() as stack:
            resources = [] if settings.accept_only else await _enter(stack, self.registry.lifespans)
            resources.append(await stack.enter_async_context(Sender(self.http)))
            engine = Engine(
                Registry() if settings.accept_only else with_built_ins(self.registry),
                store,
                chosen_hub,
                settings=settings,
                clock=clock,
                waiter=waiter,
                resources=resources,
            )
            client = await engine.start()
            try:
                async with serving(self.registry, client, accept_only=settings.runs_nothing):
                    yield client
            finally:
                await asyncio.shield(engine.stop())

    def asgi(
        self,
        *,
        store: str | None = None,
        hub: str | None = None,
        **overrides: Unpack[HostOverrides],
    ) -> Any:
        """This application as an ASGI app, to serve alone or to mount in another one.

        Parameters:
            store, hub: as for `running`.
            overrides: any setting of the engine, as for `running`, and those of the server: `allowed_hosts`,
                the names it answers to besides localhost; `access="open"` to ask nobody for a key, for an
                application behind somebody else's access control; `public_url`, `rate_limit` and the like.
        """
        with needing("server", "an application over HTTP"):  # so the host is imported when it is used
            from perdure.http.host import asgi
        return asgi(self, store=store, hub=hub, **overrides)


class DFApp(App):
    """An `App` as Azure's programs make it: nothing but who may call its routes.

    Parameters:
        http_auth_level: who may call a route that does not say: anonymous, function or admin, as text or as
            `azure.functions.AuthLevel`.
        name: the hub's default name.
        options: as for `App`.

    Raises:
        RegistrationError for a level that there is not.
    """

    def __init__(self, http_auth_level: Any = "function", *, name: str = "default", **options: Any) -> None:
        super().__init__(name, **options)
        self._auth = level_of(http_auth_level, "function")
        if self._auth not in LEVELS:
            raise RegistrationError(
                f"DFApp http_auth_level is one of {', '.join(LEVELS)}, not {self._auth!r}"
            )


def _given(settings: S, **values: Any) -> S:
    """The settings with those values that are not None."""
    given = {name: value for name, value in values.items() if value is not None}
    return replace(settings, **given) if given else settings  # type: ignore[type-var]


async def _enter(stack: AsyncExitStack, lifespans: list[Definition]) -> list[object]:
    resources: list[object] = []
    for lifespan in lifespans:
        yielded = await stack.enter_async_context(asynccontextmanager(lifespan.function)())
        resources.extend(yielded if isinstance(yielded, tuple | list) else [yielded])
    return [resource for resource in resources if resource is not None]
