"""The application: what users decorate, and where the parts are put together.

app = App("claims")

@app.orchestrator
async def approval(context: OrchestrationContext, request: Request) -> str: ...

async with app.running(store="sqlite:///claims.db") as client:
    await client.start_new(approval, None, request)
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar, overload

from perdure.engine.client import Client
from perdure.engine.clock import Clock
from perdure.engine.loop import Waiter
from perdure.engine.registry import (
    Activity,
    Definition,
    Orchestrator,
    Registry,
    Route,
    activity_timeout,
    caller_locals,
    checked_name,
    orchestrator_parameters,
    where,
)
from perdure.engine.worker import Engine, Settings
from perdure.errors import RegistrationError
from perdure.model.retry import RetryPolicy
from perdure.model.times import Seconds
from perdure.store import open_store
from perdure.store.port import Store

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_STORE = "sqlite:///perdure.db"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class App:
    """A set of durable functions, and the hub they live in.

    Parameters:
        name: the hub's default name; 1 to 100 letters, digits, dots, dashes and underscores.
        settings: how the engine runs; the defaults suit one machine.
    """

    def __init__(self, name: str = "default", *, settings: Settings | None = None) -> None:
        if (
            not name
            or len(name) > 100
            or not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        ):
            raise RegistrationError(
                f"App name {name!r}: 1 to 100 letters, digits, dots, dashes and underscores"
            )
        self.name = name
        self.settings = settings or Settings()
        self.registry = Registry()

    # -------------------------------------------------------------------------------------------- functions

    @overload
    def activity(self, function: F, /) -> F: ...
    @overload
    def activity(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: Seconds | None = None,
        concurrency: int | None = None,
    ) -> Callable[[F], F]: ...
    def activity(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        retry: RetryPolicy | None = None,
        timeout: Seconds | None = None,
        concurrency: int | None = None,
    ) -> Any:
        """Register a function that does the I/O. It is returned unchanged.

        It takes its input, its `ActivityContext`, both, or neither, and lifespan resources by their type.
        `async def` ones run on the event loop, `def` ones on threads. The body may run more than once (after a
        crash, or by retry): use `context.idempotency_key` towards the outside. Its result counts once.

        Parameters:
            name: the registered name; default the function's own.
            retry: how failures are tried again; default not at all. A call may override it.
            timeout: seconds one attempt may take; then it fails with TimeoutError. A call may override it.
            concurrency: how many of this activity run at a time on one worker; default no limit of its own.

        Raises:
            RegistrationError for a name that is taken, or a function that cannot be an activity.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            _refuse(found, generators=True)
            if concurrency is not None and concurrency < 1:
                raise RegistrationError(f"{where(found)}: concurrency is 1 or more")
            self.registry.add(
                Activity(
                    _name(found, name),
                    found,
                    localns,
                    retry=retry,
                    timeout=activity_timeout(timeout),
                    concurrency=concurrency or 0,
                )
            )
            return found

        return register if function is None else register(function)

    @overload
    def orchestrator(self, function: F, /) -> F: ...
    @overload
    def orchestrator(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        version: str = "",
        events: Mapping[str, Any] | None = None,
    ) -> Callable[[F], F]: ...
    def orchestrator(
        self,
        function: Any = None,
        /,
        *,
        name: str | None = None,
        version: str = "",
        events: Mapping[str, Any] | None = None,
    ) -> Any:
        """Register an orchestrator: `def` with `yield`, or `async def` with `await`. It is returned unchanged.

        It takes the context alone (`context.get_input()`) or the context and a typed input. Its code must do the
        same again when it is replayed: time, ids and randomness come from the context, I/O from activities.

        Parameters:
            name: the registered name; default the function's own.
            version: what `context.version` says of instances started from now on.
            events: the door: names of external events and their types. Other names, and bodies that do not
                fit, are refused when they are raised (400 over HTTP). A trailing `*` admits every name that
                begins so. Without it every event is admitted.

        Raises:
            RegistrationError for a name that is taken, or a function that cannot be an orchestrator.
        """
        localns = caller_locals()

        def register(found: F) -> F:
            if inspect.isasyncgenfunction(inspect.unwrap(found)):
                raise RegistrationError(
                    f"{where(found)} is an async generator: use await, or yield, not both"
                )
            definition = Orchestrator(
                _name(found, name), found, localns, version=version, events=_events(events, found)
            )
            orchestrator_parameters(found)
            self.registry.add(definition)
            return found

        return register if function is None else register(function)

    def route(
        self, path: str, methods: list[str] | tuple[str, ...] = ("GET",), *, auth: str = "function"
    ) -> Callable[[F], F]:
        """Register a client function behind HTTP: `/api` + `path`. It is returned unchanged.

        It receives by type what it asks for: the Starlette `Request`, the `Client`, lifespan resources.
        `auth` is anonymous, function or admin.
        """
        localns = caller_locals()
        verbs = tuple(method.upper() for method in methods)
        if not path.startswith("/") or not verbs or not METHODS.issuperset(verbs):
            raise RegistrationError(
                f"route {path!r}: a path begins with / and methods are HTTP's, not {verbs}"
            )
        if auth not in ("anonymous", "function", "admin"):
            raise RegistrationError(f"route {path!r}: auth is anonymous, function or admin, not {auth!r}")

        def register(found: F) -> F:
            _refuse(found, generators=True)
            self.registry.add(Route(found.__name__, found, localns, path=path, methods=verbs, auth=auth))
            return found

        return register

    def lifespan(self, function: F, /) -> F:
        """Register an async generator that yields resources (one, or a tuple) and cleans them up afterwards.

        Activities and client functions receive a resource by annotating a parameter with its type.
        """
        if not inspect.isasyncgenfunction(function):
            raise RegistrationError(
                f"{where(function)}: a lifespan is an async generator: `yield` the resources"
            )
        self.registry.add(Definition(function.__name__, function))
        return function

    # ---------------------------------------------------------------------------------------------- running

    @asynccontextmanager
    async def running(
        self,
        store: str | Store | None = None,
        hub: str | None = None,
        *,
        accept_only: bool = False,
        drain: float | None = None,
        clock: Clock | None = None,
        waiter: Waiter | None = None,
    ) -> AsyncIterator[Client]:
        """Serve this application's hub while the block runs, and give its client.

        Parameters:
            store: `sqlite:///file.db`, `memory:`, or an open store; default `PERDURE_STORE`, else
                sqlite:///perdure.db.
            hub: default `PERDURE_HUB`, else the application's name.
            accept_only: take messages durably and run nothing.
            drain: seconds to wait for running activities when the block ends.

        Raises:
            StoreInUse, StoreTooNew, StoreUnusable, RegistrationError.
        """
        chosen_hub = hub or os.environ.get("PERDURE_HUB") or self.name
        url = store if store is not None else os.environ.get("PERDURE_STORE") or DEFAULT_STORE
        opened = open_store(url, chosen_hub) if isinstance(url, str) else url
        settings = replace(
            self.settings,
            accept_only=accept_only or self.settings.accept_only,
            drain=self.settings.drain if drain is None else drain,
        )
        async with AsyncExitStack() as stack:
            resources = [] if accept_only else await _enter(stack, self.registry.lifespans)
            engine = Engine(
                Registry() if accept_only else self.registry,
                opened,
                chosen_hub,
                settings=settings,
                clock=clock,
                waiter=waiter,
                resources=resources,
            )
            client = await engine.start()
            try:
                yield client
            finally:
                await asyncio.shield(engine.stop())

    def asgi(
        self,
        *,
        store: str | None = None,
        hub: str | None = None,
        allowed_hosts: Sequence[str] = (),
    ) -> Any:
        """This application as an ASGI app, to serve alone or to mount in another one.

        `allowed_hosts` are the names it answers to besides localhost; requests for others are refused.
        """
        # The host is a layer above; only this call reaches up, and only when it is used.
        host = importlib.import_module("perdure.http.host")
        return host.asgi(self, store=store, hub=hub, allowed_hosts=allowed_hosts)


async def _enter(stack: AsyncExitStack, lifespans: list[Definition]) -> list[object]:
    resources: list[object] = []
    for lifespan in lifespans:
        yielded = await stack.enter_async_context(asynccontextmanager(lifespan.function)())
        resources.extend(yielded if isinstance(yielded, tuple | list) else [yielded])
    return [resource for resource in resources if resource is not None]


def _name(function: Callable[..., Any], name: str | None) -> str:
    return checked_name(function.__name__ if name is None else name, function)


def _refuse(function: Callable[..., Any], *, generators: bool) -> None:
    plain = inspect.unwrap(function)
    if not callable(function):
        raise RegistrationError(f"{function!r} is not a function")
    if generators and (inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)):
        raise RegistrationError(
            f"{where(function)} is a generator: only orchestrators yield; an activity returns its result"
        )


def _events(events: Mapping[str, Any] | None, function: object) -> Mapping[str, Any] | None:
    if events is None:
        return None
    for name in events:
        if not isinstance(name, str) or not name.strip("*") or "*" in name[:-1]:
            raise RegistrationError(
                f"{where(function)}: event name {name!r}: a non-empty string, with * only at its end"
            )
    return dict(events)
