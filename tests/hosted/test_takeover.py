"""The traps on PostgreSQL: in each step the worker dies, and another one takes over what it ran.

The workers are in this process, on one clock that a test sets ahead: a timer of days fires when the test says so. A
worker dies without a word to the others, and the door, which runs nothing, reports it as a supervisor would.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest

from perdure.app import App
from perdure.engine.client.client import Client
from perdure.engine.clock import SharedClock
from perdure.engine.engine import Engine
from perdure.hosts.azure_functions import self_check
from perdure.hosts.azure_functions.application import load
from perdure.model.instances import OrchestrationStatus, RuntimeStatus
from perdure.store.postgres.store import PostgresStore
from tests.hosted.programs import APPS, COMPLETED, Program
from tests.hosted.test_fallback import ITS_OWN_WAY
from tests.hosted.test_killed import as_told
from tests.hosted.test_surviving import BY_THE_CLOCK, ONE_AT_A_TIME

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.timeout(300)]
LEASE = 600.0  # seconds: no lease runs out by itself
PATIENCE = 120  # seconds, against a test that hangs
FEW = BY_THE_CLOCK | ONE_AT_A_TIME
"""The programs that two processes do not run in `test_surviving`."""
EACH = [
    pytest.param(one, marks=() if one.name in FEW else pytest.mark.long, id=one.name) for one in COMPLETED
]


class AheadClock(SharedClock):
    """The database's time, and what a test adds."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0

    def now(self) -> int:
        return super().now() + self.ahead


class Relay:
    """A hub on PostgreSQL with one worker at a time, and a door that stays."""

    def __init__(self, app: App, url: str) -> None:
        self._app, self._url = app, url
        self._ahead = 0
        self._opened: list[tuple[Engine, AheadClock]] = []
        self._stack = AsyncExitStack()
        self.taken_over = 0

    async def __aenter__(self) -> Relay:
        self.door = await self._open("door", accept_only=True)
        await self._open("worker-0")
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._stack.aclose()

    async def _open(self, name: str, **settings: Any) -> Client:
        clock = AheadClock()
        clock.ahead = self._ahead
        running = self._app.running(self._url, clock=clock, lease=LEASE, worker_name=name, **settings)
        client = await self._stack.enter_async_context(running)
        assert isinstance(client.gateway, Engine) and isinstance(client.gateway.store, PostgresStore)
        self._opened.append((client.gateway, clock))
        return client

    async def pass_on(self) -> None:
        """The worker dies, and the next one takes over."""
        engine, _ = self._opened[-1]
        store: Any = engine.store
        assert engine._territory is not None and engine._thread is not None
        incarnation = engine._territory.incarnation
        store._leave = lambda: None
        engine.loop.stopping = True
        engine.loop.nudge()
        await asyncio.to_thread(engine._thread.join)
        await asyncio.to_thread(self._expire, incarnation)
        self.taken_over += 1
        await self._open(f"worker-{self.taken_over}")

    def _expire(self, incarnation: int) -> None:
        """End the lease of a worker that is dead."""
        with psycopg.connect(self._url) as database:
            database.execute(
                "update perdure.workers set lease_until = 1 where incarnation = %s", [incarnation]
            )

    async def outcome(self, program: Program) -> OrchestrationStatus:
        """The status at the end. The worker dies before each timer of the instance fires."""
        async with asyncio.timeout(PATIENCE):
            while True:
                status = await self.door.get_status(program.name, show_history=True)
                assert status is not None
                if status.is_finished:
                    return status
                if waits_for_time_alone(status, program) and (due := await self._due(program.name)):
                    await self.pass_on()
                    self._move(due)
                else:
                    await asyncio.sleep(0.01)

    async def _due(self, instance_id: str) -> int:
        """When the next timer of an instance fires; 0 if that is now."""
        engine, clock = self._opened[0]
        stored = await engine.read(lambda: engine.store.get(instance_id))
        at = 0 if stored is None else stored.row.due_at or 0
        return at if at > clock.now() else 0

    def _move(self, to: int) -> None:
        self._ahead += max(to - self._opened[0][1].now(), 0)
        for engine, clock in self._opened:
            clock.ahead = self._ahead
            engine.loop.nudge()


def waits_for_time_alone(status: OrchestrationStatus, program: Program) -> bool:
    """Whether an instance has nothing more to come than its timers."""
    history, waiting = status.history or [], status.waiting
    delivered = sum(event["type"] == "EventRaised" for event in history)
    if waiting is None or delivered < len(program.events):
        return False
    return not (waiting.activities or waiting.children or waiting.operations)


async def passed_on(program: Program, url: str) -> tuple[RuntimeStatus, Any]:
    """Run a program, with another worker after its start, after each of its events, and before each of its timers."""
    async with Relay(load(APPS / "traps").app, url) as relay:
        await relay.door.start_new(program.name, program.name, program.input)
        await relay.pass_on()
        for name, data in program.events:
            await relay.door.raise_event(program.name, name, data)
            await relay.pass_on()
        status = await relay.outcome(program)
        assert relay.taken_over > len(program.events)
    return status.runtime_status, told_of(program, status.output)


def told_of(program: Program, output: Any) -> Any:
    """The output, for the clock of a program that measures time goes on while workers start."""
    if program.name == "retried":
        runs, told, waited = as_told(program, output)
        return [runs, told, min(waited, 6.0)]
    return output


@pytest.mark.parametrize("program", EACH)
async def test_it_comes_to_the_same(program: Program, newest_url: str) -> None:
    assert await passed_on(program, newest_url) == (RuntimeStatus.Completed, program.output)


@pytest.mark.long
@pytest.mark.parametrize(
    "program", [one for one in COMPLETED if one.name not in ITS_OWN_WAY], ids=lambda one: one.name
)
async def test_so_it_does_by_the_protocol(
    program: Program, newest_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_check, "finding", lambda: "it is from the future")
    assert await passed_on(program, newest_url) == (RuntimeStatus.Completed, program.output)
