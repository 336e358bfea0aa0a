"""Starts that arrive in the middle of a long step are accepted before it is over, and none of them is lost.

The step asks for thousands of things, and the code under test moves the clock in its middle, as if it had taken a
second so far. What a client sends at that moment is in the loop's inbox while the batch is still being made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from perdure import App, OrchestrationContext
from perdure.errors import InstanceExists, OutcomeUnknown, StoreError
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.faults import Fault, FaultPlan
from tests.crash.checks import verify
from tests.crash.world import (
    NoAnswer,
    Pending,
    Step,
    World,
    event,
    manage,
    run_until_reply,
    start,
    start_without_id,
)

Context = OrchestrationContext
WIDTH = 2_100  # what the step asks for: a pause follows each 1,024
OTHER = start("leaf", "other", 7)


class LongStep:
    """An orchestrator with one long step, and what happens in its middle. `work` runs there the first time."""

    def __init__(self, style: str = "async") -> None:
        self.app = app = App("long")
        self.middle: Callable[[], None] = lambda: None
        self.seen: list[Any] = []  # what `look` has found, near the end of each run of the step
        self.look: Callable[[], Any] = lambda: None
        self.runs = 0

        @app.activity
        def echo(value: int) -> int:
            return value

        @app.orchestrator
        def leaf(context: Context, value: int) -> int:
            return value

        def asked(context: Context) -> list[Any]:
            self.runs += 1
            tasks = [context.call_activity(echo, 0)]
            for number in range(1, WIDTH):
                if number == 500 and self.runs == 1:
                    self.middle()
                tasks.append(context.create_timer(1 + number))
                if number == 2_000:
                    self.seen.append(self.look())
            return tasks[:1]

        if style == "async":

            @app.orchestrator(name="long")
            async def long_async(context: Context, value: int) -> int:
                await context.task_all(asked(context))
                return value

        else:

            @app.orchestrator(name="long")
            def long_yield(context: Context, value: int) -> Generator[Any, Any, int]:
                yield context.task_all(asked(context))
                return value

    def world(self, *plans: FaultPlan, store: Store | None = None) -> World:
        return World(self.app, store or MemoryStore("h"), list(plans))


def sends(world: World, *steps: Step) -> tuple[Callable[[], None], list[Pending]]:
    """What makes these requests in the middle of a step that has taken a second, and what becomes of them."""
    sent: list[Pending] = []

    def middle() -> None:
        world.clock.move(world.clock.now() + 1_000_000)
        sent.extend(run_until_reply(one.make(world.client, f"op-{90 + n}")) for n, one in enumerate(steps))

    return middle, sent


def answered(world: World, sent: list[Pending]) -> Callable[[], Any]:
    """Whose requests have an answer, while the code runs: the last ones that were made."""
    return lambda: [reply.is_done for reply in world.waiting[-len(sent) :]] if sent else []


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("style", ["async", "yield"])
@pytest.mark.parametrize(
    "step",
    [OTHER, start("leaf", None, 7), start_without_id("leaf", "other", 7)],
    ids=["named", "of a fresh id", "without an operation id"],
)
def test_a_start_is_accepted_in_the_middle_of_a_long_step(
    step: Step, style: str, kind: str, tmp_path: Path
) -> None:
    long = LongStep(style)
    world = long.world(store=SqliteStore(str(tmp_path / "h.db"), "h") if kind == "sqlite" else None)
    long.middle, sent = sends(world, step)
    long.look = answered(world, sent)

    world.start("long", "long", 1)
    other = sent[0].finish()
    world.pass_time(5)

    assert long.seen == [[True]], "the start waited for the end of the step"
    assert (world.status(other).output, world.status("long").output) == (7, 1)
    verify(world)


def test_what_is_accepted_early_is_stored_and_begins_with_the_step() -> None:
    long = LongStep()
    world = long.world()
    long.middle, _ = sends(world, OTHER)
    long.look = lambda: [
        row and row.row.status for row in (world.inner.get("other"), world.inner.get("long"))
    ]

    world.start("long", "long", 1)

    assert long.seen == [["Pending", None]], "the start is durable, and the step is not"
    assert world.status("other").output == 7
    verify(world)


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        (start("leaf", "long", 7), InstanceExists),
        (event("waiting", "Go", 1), None),
        (manage("terminate", "waiting", "enough"), None),
    ],
    ids=["a start of its own id", "an event", "a termination"],
)
def test_everything_else_waits_for_the_next_batch(step: Step, answer: Any) -> None:
    long = LongStep()

    @long.app.orchestrator
    async def waits(context: Context) -> Any:
        return await context.wait_for_external_event("Go")

    world = long.world()
    world.start("waits", "waiting")
    long.middle, sent = sends(world, step)
    long.look = answered(world, sent)

    world.start("long", "long", 1)

    assert long.seen == [[False]]
    found = sent[0].finish()
    assert found is None if answer is None else isinstance(found, answer)
    verify(world)


def test_a_start_behind_another_message_for_its_id_waits_for_that() -> None:
    """An event, and then the start of its instance: neither passes the other."""
    long = LongStep()
    world = long.world()
    long.middle, sent = sends(world, event("other", "Go", 1), OTHER, start("leaf", "third", 3))
    long.look = lambda: [reply.is_done for reply in world.waiting[-3:]]

    world.start("long", "long", 1)

    assert long.seen == [[False, False, True]]
    assert sent[1].finish() == "other"
    verify(world)


def test_a_repeat_in_the_middle_of_a_step_gets_the_first_answer() -> None:
    long = LongStep()
    world = long.world()
    assert world.start("leaf", "other", 7) == "other"

    def middle() -> None:
        world.clock.move(world.clock.now() + 1_000_000)
        sent.append(run_until_reply(OTHER.make(world.client, "op-1")))

    sent: list[Pending] = []
    long.middle = middle
    world.start("long", "long", 1)

    assert sent[0].finish() == "other"
    assert world.status("other").output == 7
    verify(world)


def calls_of_a_good_run() -> list[str]:
    long = LongStep()
    world = long.world()
    long.middle, _ = sends(world, OTHER)
    world.start("long", "long", 1)
    world.pass_time(5)
    return list(world.calls)


@pytest.mark.parametrize("step", [OTHER, start_without_id("leaf", "other", 7)], ids=["named", "without id"])
@pytest.mark.parametrize("fault", list(Fault))
def test_no_start_is_lost_or_done_twice_whatever_call_of_the_store_fails(fault: Fault, step: Step) -> None:
    calls = calls_of_a_good_run()
    assert calls.count("commit") == 3, "the early start, the long step, its end"
    for number, verb in enumerate(calls, 1):
        if fault is Fault.FULL and verb != "commit":
            continue
        long = LongStep()
        world = long.world(FaultPlan({number: fault}))
        long.middle, sent = sends(world, step)
        world.start("long", "long", 1)
        world.pass_time(5)

        told = [one.finish() for one in sent]
        if told != ["other"]:
            assert all(isinstance(one, NoAnswer | OutcomeUnknown | StoreError) for one in told), told
            assert world.repeat("op-90", step) == "other", (number, verb, told)
        world.pass_time(5)
        assert (world.status("other").output, world.status("long").output) == (7, 1), (number, verb)
        verify(world)


def test_a_start_stays_accepted_when_the_batch_in_the_making_is_refused() -> None:
    long = LongStep()
    world = long.world(FaultPlan(refused=["long"]))
    long.middle, sent = sends(world, OTHER)

    world.start("long", "long", 1)

    assert sent[0].finish() == "other"
    assert world.status("other").output == 7
    assert world.status("long").reason.startswith("poison")
    verify(world)


# ------------------------------------------------------------------------------- others in the same batch


@pytest.mark.parametrize("style", ["async", "yield"])
@pytest.mark.parametrize("order", ["before", "behind"])
def test_a_long_step_leaves_a_batch_that_others_wait_for(order: str, style: str) -> None:
    """It runs again in a batch of its own, and theirs is committed first."""
    long = LongStep(style)
    world = long.world()
    long.middle = lambda: world.clock.move(world.clock.now() + 1_000_000)
    long.look = lambda: world.inner.get("other") is not None
    steps = [OTHER, start("long", "long", 1)]

    world.ask(*(steps if order == "before" else reversed(steps)))
    world.pass_time(5)

    assert (long.runs, long.seen) == (2, [True])
    assert (world.status("other").output, world.status("long").output) == (7, 1)
    verify(world)


def test_code_that_swallows_what_is_to_end_it_leaves_the_batch_all_the_same() -> None:
    app = App("stubborn")
    runs = []

    @app.orchestrator
    def leaf(context: Context, value: int) -> int:
        return value

    @app.orchestrator
    async def long(context: Context) -> int:
        runs.append(1)
        for number in range(1, WIDTH):
            if number == 500 and len(runs) == 1:
                world.clock.move(world.clock.now() + 1_000_000)
            try:
                context.create_timer(number)
            except:  # noqa: E722  (what some code does)
                pass
        await context.create_timer(1)
        return 1

    world = World(app, MemoryStore("h"))
    world.ask(OTHER, start("long", "long"))
    world.pass_time(5)

    assert len(runs) == 2
    assert (world.status("other").output, world.status("long").output) == (7, 1)
    verify(world)


def test_a_long_step_that_nobody_shares_runs_once() -> None:
    long = LongStep()
    world = long.world()
    long.middle = lambda: world.clock.move(world.clock.now() + 1_000_000)

    world.start("long", "long", 1)

    assert long.runs == 1


def test_a_batch_that_is_only_full_accepts_nothing_early() -> None:
    """Under load every batch lasts until its time is over; what waits then comes with the next one, in one commit."""
    long = LongStep()

    @long.app.orchestrator
    async def slow(context: Context, value: int) -> int:
        world.clock.move(world.clock.now() + 1_000_000)
        other.append(run_until_reply(OTHER.make(world.client, "op-90")))
        return value

    world, other = long.world(), []
    run_until_reply(start("slow", "slow", 1).make(world.client, "op-1"))
    world.turn()

    assert world.calls.count("commit") == 1
    world.settle()
    assert world.status("other").output == 7
