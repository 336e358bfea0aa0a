"""Entities that do I/O: run like activities, one at a time, each result counted once."""

import asyncio
import threading

import pytest

from perdure import App, EntityContext, EntityId, OrchestrationContext
from perdure.engine.upkeep.verification import verify
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import until

ONE = EntityId("mailer", "one")
LOG = EntityId("log", "l")


class World:
    """What the bodies did, and the gate that holds them."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, str]] = []
        self.running = 0
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()


def mailer_of(world: World):
    class Mailer:
        def __init__(self) -> None:
            self.sent: list[str] = []

        async def send(self, letter: str, context: EntityContext) -> int:
            world.runs.append((letter, context.idempotency_key))
            world.running += 1
            world.most = max(world.most, world.running)
            while not world.gate.is_set():
                await asyncio.sleep(0)
            world.running -= 1
            self.sent.append(letter)
            context.signal_entity(LOG, "append", letter)
            if letter == "bad":
                raise ConnectionError("refused")
            return len(self.sent)

        def count(self) -> int:
            world.runs.append(("count", threading.current_thread().name))
            return len(self.sent)

    return Mailer


def log(context: EntityContext):
    context.set_state([*context.get_state(list), context.get_input()])


def send_yield(context: OrchestrationContext):
    calls = [context.call_entity(ONE, "send", letter) for letter in ("x", "y", "z")]
    numbers = yield context.task_all(calls)
    return [*numbers, (yield context.call_entity(ONE, "count"))]


async def send_async(context: OrchestrationContext):
    calls = [context.call_entity(ONE, "send", letter) for letter in ("x", "y", "z")]
    numbers = await context.task_all(calls)
    return [*numbers, await context.call_entity(ONE, "count")]


def app_with(world: World, orchestrator=None) -> App:
    app = App("mail")
    app.entity(name="mailer", offload=True)(mailer_of(world))
    app.entity(log)
    if orchestrator is not None:
        app.orchestrator(name="main")(orchestrator)
    return app


@both(send_yield, send_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_operations_run_outside_the_loop_one_at_a_time(orchestrator, store, tmp_path):
    world = World()
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(world, orchestrator), store=url) as env:
        assert (await env.run("main")).output == [1, 2, 3, 3]
        await env.settled()
        assert (await env.client.read_entity_state(ONE)).state == {"sent": ["x", "y", "z"]}
        assert (await env.client.read_entity_state(LOG)).state == ["x", "y", "z"]
        report = verify(env.store)

    assert [run[0] for run in world.runs] == ["x", "y", "z", "count"]
    assert len({run[1] for run in world.runs}) == 4
    assert world.runs[-1][1].startswith("perdure-activity")
    assert world.most == 1
    assert report.ok, report.problems


async def test_a_failed_operation_is_undone_and_the_next_goes_on():
    async def main(context: OrchestrationContext):
        await context.call_entity(ONE, "send", "good")
        return await context.call_entity(ONE, "send", "bad")

    async with environment(app_with(World(), main)) as env:
        failure = (await env.run("main")).failure
        await env.client.signal_entity(ONE, "send", "better")
        await env.settled()
        assert (await env.client.read_entity_state(ONE)).state == {"sent": ["good", "better"]}
        assert (await env.client.read_entity_state(LOG)).state == ["good", "better"]

    assert (
        "the operation 'send' of the entity @mailer@one failed: ConnectionError: refused" in failure.message
    )


@pytest.mark.parametrize("how", ["restart", "evict"])
async def test_an_operation_cut_off_runs_again_under_the_same_key_and_counts_once(how):
    world = World()
    world.gate.clear()
    async with environment(app_with(world)) as env:
        await env.client.signal_entity(ONE, "send", "x")
        await env.client.signal_entity(ONE, "send", "y")
        await until(lambda: world.running)
        if how == "restart":
            await env.restart()
            await until(lambda: len(world.runs) == 2)
        else:
            env.engine.loop.idle_before = env.clock.now() + 1
            env.engine.loop.nudge()
            await env.client.signal_entity(ONE, "send", "z")
        world.gate.set()
        await env.settled()
        state = (await env.client.read_entity_state(ONE)).state
        log_state = (await env.client.read_entity_state(LOG)).state

    expected = ["x", "y"] if how == "restart" else ["x", "y", "z"]
    assert state == {"sent": expected}
    assert log_state == expected
    keys = {letter: {key for other, key in world.runs if other == letter} for letter in expected}
    assert all(len(found) == 1 for found in keys.values())
    assert len(set.union(*keys.values())) == len(expected)


async def test_what_comes_meanwhile_waits_durably():
    world = World()
    world.gate.clear()
    async with environment(app_with(world)) as env:
        for letter in ("x", "y", "z"):
            await env.client.signal_entity(ONE, "send", letter)
        await until(lambda: world.running)
        assert len(world.runs) == 1
        assert [m.message for m in env.store.load(["@mailer@one"])[0].held] != []
        world.gate.set()
        await env.settled()
        assert (await env.client.read_entity_state(ONE)).state == {"sent": ["x", "y", "z"]}


@both(send_yield, send_async)
async def test_a_locked_entity_that_does_io(orchestrator):
    world = World()

    async def section(context: OrchestrationContext):
        async with context.lock(ONE):
            first = await context.call_entity(ONE, "count")
            await context.create_timer(5)
            return [first, await context.call_entity(ONE, "count")]

    app = app_with(world, orchestrator)
    app.orchestrator(section)
    async with environment(app) as env:
        holder = await env.client.start_new("section")
        await env.advance(seconds=1)
        main = await env.client.start_new("main")
        assert (await env.client.wait_for_completion(holder)).output == [0, 0]
        assert (await env.client.wait_for_completion(main)).output == [1, 2, 3, 3]


async def test_a_function_that_does_io():
    app = App("mail")

    async def fetch(context: EntityContext):
        await asyncio.sleep(0)
        context.set_state(context.get_input())
        return context.is_newly_constructed

    app.entity(offload=True)(fetch)

    @app.orchestrator
    async def main(context: OrchestrationContext):
        await context.call_entity("@fetch@f", "go", 5)
        return await context.call_entity("@fetch@f", "go", 6)

    async with environment(app) as env:
        assert (await env.run(main)).output is False
        assert (await env.client.read_entity_state("@fetch@f")).state == 6
