"""A whole engine for one test: in memory or on a file, with a virtual clock.

async with environment(app, activities={process_payment: lambda claim: {"id": 7}}) as env:
    claim = await env.client.start_new(claims, None, {"amount": 5})
    await env.advance(hours=72)
    status = await env.client.wait_for_completion(claim)
    assert [call.input for call in env.calls(process_payment)] == []
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from perdure.engine.engine import Engine, Settings
from perdure.engine.functions.registry import name_of
from perdure.model.durations import instant, micros
from perdure.replay.inputs import NO_INPUT
from perdure.store import open_store
from perdure.testing.clock import START, SkippingWaiter, VirtualClock
from perdure.testing.idleness import Idleness
from perdure.testing.stubs import Call, Stubs, observed
from perdure.triggers import with_built_ins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from perdure.app import App
    from perdure.engine.client.client import Client
    from perdure.model.instances import OrchestrationStatus
    from perdure.store.port import Store

ACTIVITIES_WITHIN = 30.0  # real seconds that `advance` waits for running activities


class DurableEnvironment:
    """An engine on a virtual clock, created by `environment`."""

    def __init__(
        self, app: App, store: str | Store, stubs: Stubs, settings: Settings | None, start: datetime
    ) -> None:
        self.clock = VirtualClock(start)
        self._app = app
        self._stubs = stubs
        self._settings = settings
        self._url = store if isinstance(store, str) else ""
        self._store = open_store(store, app.name, app.encryption) if isinstance(store, str) else store
        self._calls: list[Call] = []
        self._waiter = SkippingWaiter(self.clock)
        self._client: Client | None = None
        self._running: AbstractAsyncContextManager[Client] | None = None

    @property
    def client(self) -> Client:
        """The client of the current engine; a new one after `restart`."""
        if self._client is None:
            raise RuntimeError("this environment is not running: use it inside `async with environment(...)`")
        return self._client

    @property
    def engine(self) -> Engine:
        """The current engine."""
        gateway = self.client.gateway
        assert isinstance(gateway, Engine)
        return gateway

    @property
    def store(self) -> Store:
        """The engine's store."""
        return self._store

    @property
    def now(self) -> datetime:
        """The current time of the virtual clock."""
        return self.clock.datetime

    # ------------------------------------------------------------------------------------------------ time

    async def advance(
        self,
        delta: timedelta | None = None,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        to: datetime | None = None,
    ) -> None:
        """Advance the clock, and fire every timer on the way. Returns when the engine is idle at that time.

        Raises TimeoutError when an activity still runs after half a minute of real time: the clock does not
        move while an activity runs.
        """
        step = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds) + (delta or timedelta())
        goal = self.clock.now() + micros(step) if to is None else instant(to, "to")
        try:
            await asyncio.wait_for(self._waiter.advance(goal), ACTIVITIES_WITHIN)
        except TimeoutError:
            raise TimeoutError(
                f"the clock is stopped at {self.now:%Y-%m-%d %H:%M:%S}: activities are still running after "
                f"{ACTIVITIES_WITHIN:g} s ({self.engine.health()})"
            ) from None

    async def settled(self) -> None:
        """Return when the engine is idle at the current time."""
        await self.advance()

    # ------------------------------------------------------------------------------------------- the engine

    async def run(
        self,
        orchestrator: str | Callable[..., Any],
        client_input: Any = NO_INPUT,
        instance_id: str | None = None,
    ) -> OrchestrationStatus:
        """Start an orchestration and wait until it has finished, however long it sleeps in between.

        Raises NothingCanHappen, a TimeoutError that names the open waits, when the instance can never finish:
        no timer is left, no activity runs, and no other task of the test can act.
        """
        started = await self.client.start_new(orchestrator, instance_id, client_input)
        return await self.client.wait_for_completion(started)

    async def restart(self, app: App | None = None, *, activities: Stubs | None = None) -> Client:
        """Stop the engine and start a new one on the same store, as after a deployment or a crash.

        Parameters:
            app: the newly deployed code; default is the same.
            activities: the stubs from now on; default the same.
        """
        await self._leave()
        self._app = app or self._app
        self._stubs = self._stubs if activities is None else activities
        if self._url and self._store.location:
            self._store = open_store(self._url, self._store_hub(), self._app.encryption)
        await self._enter()
        return self.client

    async def evict(self) -> None:
        """Evict every execution from memory: the next arrival replays its history."""
        loop = self.engine.loop
        loop.idle_before = self.clock.now() + 1
        await self.settled()

    # --------------------------------------------------------------------------------------------- activities

    def calls(self, activity: str | Callable[..., Any] | None = None) -> list[Call]:
        """Every run of an activity's body so far, stubbed or real, in order; also from before a restart."""
        wanted = None if activity is None else name_of(activity)
        return [call for call in list(self._calls) if wanted in (None, call.activity)]

    # --------------------------------------------------------------------------------------------- inside

    def _store_hub(self) -> str:
        return str(getattr(self._store, "hub", self._app.name))

    async def _enter(self) -> None:
        double = copy(self._app)  # with everything else its user configured
        double.settings = self._settings or self._app.settings
        double.registry = observed(with_built_ins(self._app.registry), self._stubs, self._calls)
        self._running = double.running(store=self._store, clock=self.clock, waiter=self._waiter)
        self._client = await self._running.__aenter__()
        idleness = Idleness(self._client, self._waiter)
        self._waiter.attach(self.engine.loop, asyncio.get_running_loop(), idleness.look)

    async def _leave(self) -> None:
        running, self._running, self._client = self._running, None, None
        if running is not None:
            await running.__aexit__(None, None, None)


@asynccontextmanager
async def environment(
    app: App,
    *,
    store: str | Store = "memory:",
    activities: Stubs | None = None,
    settings: Settings | None = None,
    start: datetime = START,
) -> AsyncIterator[DurableEnvironment]:
    """Run an application with a virtual clock.

    Parameters:
        app: the application; it stays unchanged. Activities with an `executor` also run in this process, so
            that their calls are recorded.
        store: `memory:`, `sqlite:///file.db`, or a store of your own.
        activities: stubs by activity (function or name). A stub takes the same parameters as an activity: the
            input, an `ActivityContext`, both or neither; `def` or `async def`.
        settings: replace the application's own settings.
        start: the initial time of the clock.
    """
    env = DurableEnvironment(app, store, activities or {}, settings, start)
    await env._enter()
    try:
        yield env
    finally:
        await env._leave()
