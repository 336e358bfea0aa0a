"""Wide fan-outs: what they cost grows as they do, and others are served meanwhile.

Cost is counted in lines of the engine that run, which is the same on any machine. Limits are small, so that the
fan-outs here are as wide for their batches as a hundred thousand calls are for those of a real engine.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from msgspec import Raw

import perdure
from perdure import App, OrchestrationContext
from perdure.engine.core.ports import Limits
from perdure.engine.interrupting import Interruptions
from perdure.model.messages import RaiseEvent
from perdure.store.memory import MemoryStore
from tests.crash.checks import verify
from tests.crash.world import World, event, run_until_reply, start

SMALL = Limits(episodes=8, feeds=2, buffered_events=10_000)
PARTS = [str(Path(perdure.__file__).parent / part) for part in ("engine", "replay", "model")]
Context = OrchestrationContext


def make_app() -> App:
    app = App("wide")

    @app.activity
    def echo(value: int) -> int:
        return value

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> int:
            self.value += amount
            return self.value

    @app.orchestrator
    def leaf(context: Context, value: int) -> int:
        return value

    @app.orchestrator
    async def activities(context: Context, count: int) -> int:
        return len(await context.task_all([context.call_activity(echo, n) for n in range(count)]))

    @app.orchestrator
    def children(context: Context, count: int) -> Any:
        found = yield context.task_all([context.call_sub_orchestrator(leaf, n) for n in range(count)])
        return len(found)

    @app.orchestrator
    async def calls(context: Context, count: int) -> int:
        answers = await context.task_all(
            [context.call_entity("@counter@one", "add", 1) for _ in range(count)]
        )
        return max(answers)

    @app.orchestrator
    def signals(context: Context, count: int) -> Any:
        for number in range(count):
            context.signal_entity(f"@counter@{number % 3}", "add", 1)
        yield context.create_timer(0)
        return count

    @app.orchestrator
    async def timers(context: Context, count: int) -> int:
        return len(await context.task_all([context.create_timer(5) for _ in range(count)]))

    @app.orchestrator
    async def waits(context: Context, count: int) -> int:
        heard = await context.task_all([context.wait_for_external_event("Go") for _ in range(count)])
        assert heard == [*range(count)], "events are taken in the order of their acceptance"
        return len(heard)

    @app.orchestrator
    def one_by_one(context: Context, count: int) -> Any:
        for number in range(count):
            heard = yield context.wait_for_external_event("Go")
            assert heard == number
        return count

    return app


def fan_out(world: World, name: str, count: int) -> None:
    world.start(name, "wide", count)
    if name in ("waits", "one_by_one"):
        for first in range(0, count, 20):  # each twenty while some of those before stand in line
            for number in range(first, first + 20):
                run_until_reply(event("wide", "Go", number).make(world.client, f"event-{number}"))
            world.turn()
    world.pass_time(10)


def suspended(world: World, name: str, count: int) -> None:
    """Its results come while it is suspended, and are delivered on resume."""
    world.paused = True
    world.start(name, "wide", count)
    world.manage("suspend", "wide")
    world.paused = False
    world.settle()
    world.manage("resume", "wide")
    world.pass_time(10)


def restarted(world: World, name: str, count: int) -> None:
    """The process dies when half of the results have come."""
    world.paused = True
    world.start(name, "wide", count)
    world.run_bodies(count // 2)
    for _ in range(count // 8):
        world.turn()
    world.paused = False
    world.kill()
    world.pass_time(10)


def lines_run(work: Callable[[], None]) -> int:
    """How many lines of the engine run meanwhile."""
    count = 0

    def line(frame: FrameType, what: str, _: object) -> Any:
        nonlocal count
        count += what == "line"
        return line

    def call(frame: FrameType, what: str, _: object) -> Any:
        return line if frame.f_code.co_filename.startswith(tuple(PARTS)) else None

    Interruptions(threading.get_ident()).calm()  # whatever other tests have left in this process
    before = sys.gettrace()
    sys.settrace(call)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


SHAPES: dict[str, tuple[Callable[[World, str, int], None], str]] = {
    **{
        name: (fan_out, name)
        for name in ("activities", "children", "calls", "signals", "timers", "waits", "one_by_one")
    },
    "suspended": (suspended, "activities"),
    "restarted": (restarted, "activities"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_fan_out_four_times_as_wide_costs_four_times_as_much(shape: str) -> None:
    play, name = SHAPES[shape]

    def cost(count: int) -> int:
        world = World(make_app(), MemoryStore("h"), limits=SMALL)
        lines = lines_run(lambda: play(world, name, count))
        assert world.status("wide").output == count
        verify(world)
        return lines

    assert cost(320) < 5.5 * cost(80)


@pytest.mark.parametrize("name", ["activities", "children", "calls", "signals", "timers"])
def test_others_are_served_while_a_fan_out_waits_in_line(name: str) -> None:
    """A start that comes in the middle of it is answered by the batch that takes it up."""
    world = World(make_app(), MemoryStore("h"), limits=SMALL)
    run_until_reply(start(name, "wide", 200).make(world.client, "op-wide"))
    world.turn()
    world.run_bodies(200)
    world.clock.move(world.clock.now() + 6_000_000)
    world.turn()
    assert world.loop.dispatcher.lines, "nothing waits in line"
    for number in range(5):
        waiting = run_until_reply(start("leaf", f"other-{number}", number).make(world.client, f"op-{number}"))
        world.turn()
        assert waiting.finish() == f"other-{number}"
        assert world.status(f"other-{number}").output == number
    assert world.loop.dispatcher.lines, "the fan-out was over before the others"
    world.pass_time(10)
    assert world.status("wide").output == 200


def test_a_batch_that_fails_leaves_a_line_in_its_order() -> None:
    """Events that stood in line, and those taken from it, are taken in the order of their acceptance."""
    world = World(make_app(), MemoryStore("h"), limits=SMALL)
    world.start("one_by_one", "wide", 60)
    for number in range(60):
        message = RaiseEvent(instance_id="wide", name="Go", input=Raw(b"%d" % number))
        world.loop.post(message)
    world.turn()
    assert len(list(world.loop.dispatcher.lines.of("wide"))) > 40
    world.store.plan.full = True
    world.turn()
    world.store.plan.full = False
    world.pass_time(5)
    assert world.status("wide").output == 60, "an event was taken before its turn"
    verify(world)
