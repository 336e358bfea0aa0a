"""Rewind: a failed instance goes on, with what failed tried again and what was done left done."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from perdure import (
    ActivityContext,
    App,
    IllegalTransition,
    InstanceFinished,
    InstanceNotFound,
    OrchestrationContext,
    RetryPolicy,
    RuntimeStatus,
    TaskFailedError,
)
from perdure.engine.upkeep.verification import verify
from perdure.testing import environment
from tests.core.styles import both

S = RuntimeStatus
STORES = pytest.mark.parametrize("store", ["memory:", "sqlite"])
RETRY = RetryPolicy(first_interval=10, max_attempts=3)


def url_of(store: str, tmp_path) -> str:
    return store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"


class World:
    """Activities that work or do not, and a note of every run."""

    def __init__(self) -> None:
        self.broken = {"pay"}
        self.runs: list[tuple[str, str]] = []

    def app(self, **orchestrators: Callable[..., object]) -> App:
        app = App("claims")
        for name, function in orchestrators.items():
            app.orchestrator(name=name)(function)
        for name in ("assess", "pay", "refund", "ship"):
            app.activity(name=name)(self.activity(name))
        return app

    def activity(self, name: str) -> Callable[..., str]:
        def run(context: ActivityContext) -> str:
            self.runs.append((name, context.idempotency_key.rpartition(":")[2]))
            if name in self.broken:
                raise ConnectionError(f"{name} is down")
            return f"{name} done"

        return run

    def names(self) -> list[str]:
        return [name for name, _ in self.runs]


async def failed(env, instance: str) -> None:
    status = await env.client.wait_for_completion(instance)
    assert status.runtime_status is S.Failed


# -------------------------------------------------------------------------------------------- a failed activity


def payment_yield(context: OrchestrationContext):
    a = yield context.call_activity("assess")
    b = yield context.call_activity("pay")
    c = yield context.call_activity("ship")
    return [a, b, c]


async def payment_async(context: OrchestrationContext):
    a = await context.call_activity("assess")
    b = await context.call_activity("pay")
    c = await context.call_activity("ship")
    return [a, b, c]


@both(payment_yield, payment_async)
@STORES
async def test_the_failed_call_runs_again_under_its_key_and_what_was_done_stays_done(
    orchestrator, store, tmp_path
):
    world = World()
    async with environment(world.app(main=orchestrator), store=url_of(store, tmp_path)) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        world.broken.clear()
        await env.client.rewind(instance, "the gateway is back")
        status = await env.client.wait_for_completion(instance)
        history = (await env.client.get_status(instance, True)).history
        report = verify(env.store)

    assert status.output == ["assess done", "pay done", "ship done"]
    assert world.runs == [("assess", "0"), ("pay", "1"), ("pay", "1"), ("ship", "2")]
    assert [e["type"] for e in history][4:] == [
        "TaskFailed",
        "ExecutionFailed",
        "ExecutionRewound",
        "TaskCompleted",
        "TaskScheduled",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    assert report.ok, report.problems


@both(payment_yield, payment_async)
@STORES
async def test_it_works_twice_in_a_row_and_after_evictions_and_restarts(orchestrator, store, tmp_path):
    world = World()
    app = world.app(main=orchestrator)
    async with environment(app, store=url_of(store, tmp_path)) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        for _ in range(2):
            await env.client.rewind(instance)
            await failed(env, instance)
            await env.evict()
        world.broken = {"ship"}
        await env.restart(app)
        await env.client.rewind(instance)
        await failed(env, instance)
        world.broken.clear()
        await env.restart(app)
        await env.client.rewind(instance)
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert status.output == ["assess done", "pay done", "ship done"]
    assert world.runs == [("assess", "0"), *[("pay", "1")] * 4, *[("ship", "2")] * 2]
    assert report.ok, report.problems


# ----------------------------------------------------------------------------------------------------- retries


def retrying_yield(context: OrchestrationContext):
    return (yield context.call_activity("pay", retry=RETRY))


async def retrying_async(context: OrchestrationContext):
    return await context.call_activity("pay", retry=RETRY)


@both(retrying_yield, retrying_async)
async def test_an_exhausted_retry_policy_starts_afresh_under_the_same_key(orchestrator):
    world = World()
    app = world.app(main=orchestrator)
    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        await env.client.rewind(instance)
        await env.evict()
        await failed(env, instance)
        runs = len(world.runs)
        await env.restart(app)
        await env.client.rewind(instance)
        await env.advance(seconds=15)
        world.broken.clear()
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert runs == 6
    assert status.output == "pay done"
    assert {key for _, key in world.runs} == {"0"}
    assert report.ok, report.problems


# ------------------------------------------------------------------------------------ what was decided about it


def saga_yield(context: OrchestrationContext):
    yield context.call_activity("assess")
    try:
        paid = yield context.call_activity("pay")
    except TaskFailedError:
        yield context.call_activity("refund")
        raise
    return [paid, (yield context.call_activity("ship"))]


async def saga_async(context: OrchestrationContext):
    await context.call_activity("assess")
    try:
        paid = await context.call_activity("pay")
    except TaskFailedError:
        await context.call_activity("refund")
        raise
    return [paid, await context.call_activity("ship")]


@both(saga_yield, saga_async)
@STORES
async def test_what_was_done_about_the_failure_no_longer_counts_and_its_ids_are_not_used_again(
    orchestrator, store, tmp_path
):
    world = World()
    async with environment(world.app(main=orchestrator), store=url_of(store, tmp_path)) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        world.broken.clear()
        await env.client.rewind(instance)
        await env.evict()
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert status.output == ["pay done", "ship done"]
    assert world.runs == [("assess", "0"), ("pay", "1"), ("refund", "2"), ("pay", "1"), ("ship", "3")]
    assert report.ok, report.problems


@both(saga_yield, saga_async)
async def test_when_the_handling_itself_failed_only_that_is_tried_again(orchestrator):
    world = World()
    world.broken = {"pay", "refund"}
    async with environment(world.app(main=orchestrator)) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        world.broken = {"pay"}
        await env.client.rewind(instance)
        await failed(env, instance)

    assert world.names() == ["assess", "pay", "refund", "refund"]


def late_yield(context: OrchestrationContext):
    pay = context.call_activity("pay")
    done = []
    for _ in range(3):
        done.append((yield context.call_activity("assess")))
        yield context.create_timer(1)
    return [len(done), (yield pay)]


async def late_async(context: OrchestrationContext):
    pay = context.call_activity("pay")
    done = []
    for _ in range(3):
        done.append(await context.call_activity("assess"))
        await context.create_timer(1)
    return [len(done), await pay]


@both(late_yield, late_async)
async def test_a_failure_seen_late_costs_nothing_that_was_done_in_between(orchestrator):
    world = World()
    async with environment(world.app(main=orchestrator)) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        world.broken.clear()
        await env.client.rewind(instance)
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert status.output == [3, "pay done"]
    assert sorted(world.names()) == ["assess"] * 3 + ["pay"] * 2
    assert report.ok, report.problems


def race_yield(context: OrchestrationContext):
    """The failure decides something only at the next arrival."""
    pay = context.call_activity("pay")
    go = context.wait_for_external_event("Go")
    yield context.task_any(pay, go)
    told = yield go
    if pay.is_faulted:
        yield context.call_activity("refund")
    return [told, (yield pay), (yield context.call_activity("ship"))]


async def race_async(context: OrchestrationContext):
    pay = context.call_activity("pay")
    go = context.wait_for_external_event("Go")
    await context.task_any(pay, go)
    told = await go
    if pay.is_faulted:
        await context.call_activity("refund")
    return [told, await pay, await context.call_activity("ship")]


@both(race_yield, race_async)
@STORES
async def test_where_the_code_would_have_gone_another_way_it_goes_that_way(orchestrator, store, tmp_path):
    world = World()
    async with environment(world.app(main=orchestrator), store=url_of(store, tmp_path)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.client.raise_event(instance, "Go", "told")
        await failed(env, instance)
        world.broken.clear()
        await env.client.rewind(instance)
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert status.output == ["told", "pay done", "ship done"]
    assert world.runs == [("pay", "0"), ("refund", "2"), ("pay", "0"), ("ship", "3")]
    assert report.ok, report.problems


# ------------------------------------------------------------------------------- code that fails by itself


def strict_yield(context: OrchestrationContext):
    told = yield context.wait_for_external_event("Go", timeout=100)
    if told != "well":
        raise ValueError(told)
    return (yield context.call_activity("assess"))


async def strict_async(context: OrchestrationContext):
    told = await context.wait_for_external_event("Go", timeout=100)
    if told != "well":
        raise ValueError(told)
    return await context.call_activity("assess")


def lenient_yield(context: OrchestrationContext):
    yield context.wait_for_external_event("Go", timeout=100)
    begun = context.current_utc_datetime
    yield context.create_timer(50)
    waited = context.current_utc_datetime - begun
    return [(yield context.call_activity("assess")), waited == timedelta(seconds=50)]


async def lenient_async(context: OrchestrationContext):
    await context.wait_for_external_event("Go", timeout=100)
    begun = context.current_utc_datetime
    await context.create_timer(50)
    waited = context.current_utc_datetime - begun
    return [await context.call_activity("assess"), waited == timedelta(seconds=50)]


@pytest.mark.parametrize(
    ("strict", "lenient"),
    [
        pytest.param(strict_yield, lenient_yield, id="yield"),
        pytest.param(strict_async, lenient_async, id="async"),
    ],
)
@STORES
async def test_repaired_code_goes_on_behind_what_it_was_told_last_at_the_present_time(
    strict, lenient, store, tmp_path
):
    world = World()
    async with environment(world.app(main=strict), store=url_of(store, tmp_path)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go", "ill")
        await failed(env, instance)
        await env.client.rewind(instance)
        await failed(env, instance)  # nothing has changed: it fails in the same way
        await env.advance(seconds=1_000)
        await env.restart(world.app(main=lenient))
        await env.client.rewind(instance)
        await env.settled()
        waiting = await env.client.get_status(instance)
        await env.evict()
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert "timer" in waiting.waiting_for
    assert status.output == ["assess done", True]
    assert report.ok, report.problems


@both(strict_yield, strict_async)
async def test_an_instance_whose_code_is_gone_is_rewound_when_it_is_back(orchestrator):
    world = World()
    async with environment(world.app(main=orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go", "ill")
        await failed(env, instance)
        await env.restart(world.app())
        await env.client.rewind(instance)
        await env.settled()
        parked = await env.client.get_status(instance)
        await env.restart(world.app(main=lenient_async))
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert (parked.runtime_status, parked.reason.partition(":")[0]) == (S.Suspended, "no_worker")
    assert status.runtime_status in (S.Completed, S.Suspended)
    assert report.ok, report.problems


# ------------------------------------------------------------------------------------- waits, timers, events


def busy_yield(context: OrchestrationContext):
    timer = context.create_timer(500)
    wait = context.wait_for_external_event("Go")
    yield context.call_activity("pay")
    yield timer
    return [(yield wait), (yield context.wait_for_external_event("More"))]


async def busy_async(context: OrchestrationContext):
    timer = context.create_timer(500)
    wait = context.wait_for_external_event("Go")
    await context.call_activity("pay")
    await timer
    return [await wait, await context.wait_for_external_event("More")]


@both(busy_yield, busy_async)
@STORES
async def test_waits_and_timers_are_there_again(orchestrator, store, tmp_path):
    world = World()
    async with environment(world.app(main=orchestrator), store=url_of(store, tmp_path)) as env:
        started = env.now
        instance = await env.client.start_new("main")
        await failed(env, instance)
        refused = await asyncio.gather(env.client.raise_event(instance, "Go"), return_exceptions=True)
        world.broken.clear()
        await env.client.rewind(instance)
        await env.settled()
        found = await env.client.query(waiting_for="Go")
        await env.client.raise_event(instance, "Go", 1)
        await env.client.raise_event(instance, "More", 2)
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert isinstance(refused[0], InstanceFinished)
    assert [one.instance_id for one in found.instances] == [instance]
    assert status.output == [1, 2]
    assert status.completed_time - started == timedelta(seconds=500)
    assert report.ok, report.problems


# ------------------------------------------------------------------------------------------------- families


def parent_yield(context: OrchestrationContext):
    mine = context.call_sub_orchestrator("child", None, context.get_input())
    other = context.call_sub_orchestrator("slow")
    results = yield context.task_all(mine, other)
    return list(results)


async def parent_async(context: OrchestrationContext):
    mine = context.call_sub_orchestrator("child", None, context.get_input())
    other = context.call_sub_orchestrator("slow")
    results = await context.task_all(mine, other)
    return list(results)


async def child(context: OrchestrationContext):
    await context.call_activity("assess")
    return await context.call_activity("pay")


async def slow(context: OrchestrationContext):
    await context.create_timer(30)
    return "slow"


@both(parent_yield, parent_async)
@pytest.mark.parametrize("wait", [0, 60])
@pytest.mark.parametrize("child_id", [None, "mine"])
@STORES
async def test_failed_children_are_rewound_with_their_parent_and_others_report_again(
    orchestrator, store, wait, child_id, tmp_path
):
    world = World()
    app = world.app(main=orchestrator, child=child, slow=slow)
    async with environment(app, store=url_of(store, tmp_path)) as env:
        instance = await env.client.start_new("main", None, child_id)
        await failed(env, instance)
        await env.advance(seconds=wait)
        before = {one.instance_id for one in (await env.client.query()).instances}
        world.broken.clear()
        await env.client.rewind(instance)
        status = await env.client.wait_for_completion(instance)
        after = {one.instance_id for one in (await env.client.query()).instances}
        report = verify(env.store)

    assert status.output == ["pay done", "slow"]
    assert world.names() == ["assess", "pay", "pay"]
    assert before == after
    assert report.ok, report.problems


@both(parent_yield, parent_async)
@pytest.mark.parametrize("done", ["purge", "rewind", "terminate"])
async def test_a_child_that_is_gone_done_or_terminated_meanwhile(orchestrator, done):
    world = World()
    async with environment(world.app(main=orchestrator, child=child, slow=slow)) as env:
        instance = await env.client.start_new("main", None, "mine")
        await failed(env, instance)
        world.broken.clear()
        match done:
            case "purge":
                await env.client.purge_instance_history("mine")
            case "rewind":
                await env.client.rewind("mine")
                assert (await env.client.wait_for_completion("mine")).output == "pay done"
            case "terminate":
                await asyncio.gather(env.client.rewind("mine"), env.client.terminate("mine"))
        await env.client.rewind(instance)
        status = await env.client.wait_for_completion(instance)

    assert status.output == ["pay done", "slow"]


@both(parent_yield, parent_async)
async def test_a_child_rewound_alone_changes_nothing_for_a_parent_that_went_on(orchestrator):
    async def careful(context: OrchestrationContext):
        try:
            await context.call_sub_orchestrator("child", None, "mine")
        except TaskFailedError:
            return await context.wait_for_external_event("Go")

    world = World()
    async with environment(world.app(main=careful, child=child, slow=slow)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        world.broken.clear()
        await env.client.rewind("mine")
        assert (await env.client.wait_for_completion("mine")).output == "pay done"
        assert (await env.client.get_status(instance)).runtime_status is S.Running
        await env.client.raise_event(instance, "Go", "well")
        assert (await env.client.wait_for_completion(instance)).output == "well"
        assert verify(env.store).ok


# ---------------------------------------------------------------------------------------- continue-as-new


def generations_yield(context: OrchestrationContext):
    n = context.get_input() or 0
    yield context.call_activity("assess" if n < 2 else "pay")
    if n == 2:
        return n
    context.continue_as_new(n + 1)


async def generations_async(context: OrchestrationContext):
    n = context.get_input() or 0
    await context.call_activity("assess" if n < 2 else "pay")
    if n == 2:
        return n
    context.continue_as_new(n + 1)


@both(generations_yield, generations_async)
@STORES
async def test_after_continue_as_new_the_latest_execution_goes_on(orchestrator, store, tmp_path):
    world = World()
    async with environment(world.app(main=orchestrator), store=url_of(store, tmp_path)) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        world.broken.clear()
        await env.client.rewind(instance)
        status = await env.client.wait_for_completion(instance)
        report = verify(env.store)

    assert status.output == 2
    assert world.names() == ["assess", "assess", "pay", "pay"]
    assert report.ok, report.problems


# ----------------------------------------------------------------------------------------------------- refusals


@both(payment_yield, payment_async)
async def test_only_what_has_failed_can_be_rewound(orchestrator):
    world = World()
    world.broken.clear()
    async with environment(world.app(main=orchestrator, slow=slow)) as env:
        done = (await env.run("main")).instance_id
        running = await env.client.start_new("slow")
        with pytest.raises(InstanceFinished, match="has finished and is Completed"):
            await env.client.rewind(done)
        with pytest.raises(IllegalTransition, match="while it is Running"):
            await env.client.rewind(running)
        with pytest.raises(InstanceNotFound):
            await env.client.rewind("nobody")


async def test_a_repeat_with_the_same_operation_id_rewinds_once():
    world = World()
    async with environment(world.app(main=payment_async)) as env:
        instance = await env.client.start_new("main")
        await failed(env, instance)
        for _ in range(2):
            await env.client.rewind(instance, operation_id="once")
            await failed(env, instance)

    assert world.names() == ["assess", "pay", "pay"]
