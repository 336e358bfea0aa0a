"""Cancelling activities: who does it, how bodies notice, and what becomes of their results."""

import asyncio
import threading

import pytest

from perdure import (
    ActivityCancelled,
    ActivityContext,
    Concurrency,
    OrchestrationContext,
    Settings,
    TaskCancelled,
)
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with, until


def stop_yield(context: OrchestrationContext):
    task = context.call_activity("work")
    yield context.wait_for_external_event("Stop")
    task.cancel()
    try:
        yield task
    except TaskCancelled:
        return "stopped"


async def stop_async(context: OrchestrationContext):
    task = context.call_activity("work")
    await context.wait_for_external_event("Stop")
    task.cancel()
    try:
        await task
    except TaskCancelled:
        return "stopped"


@both(stop_yield, stop_async)
async def test_an_async_activity_gets_cancelled_error_once_its_call_is_cancelled(orchestrator):
    seen = []

    async def work(context: ActivityContext):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append((context.is_cancelled, context.cancel_reason))
            raise

    async with environment(app_with(orchestrator, work)) as env:
        instance = await env.client.start_new("main")
        await until(lambda: env.calls("work"))
        await env.client.raise_event(instance, "Stop")
        status = await env.client.wait_for_completion(instance)
        await until(lambda: seen)
        await until(lambda: env.engine.health()["activities_dropped_results"] == 1)

    assert status.output == "stopped"
    assert seen == [(True, "the orchestrator cancelled the call")]


@both(stop_yield, stop_async)
async def test_a_thread_sees_that_its_call_is_cancelled_and_its_late_result_is_dropped_and_counted(
    orchestrator,
):
    seen = []

    def work(context: ActivityContext):
        context.cancelled.wait(30)
        seen.append(context.is_cancelled)
        context.raise_if_cancelled()

    async with environment(app_with(orchestrator, work)) as env:
        instance = await env.client.start_new("main")
        await until(lambda: env.calls("work"))
        await env.client.raise_event(instance, "Stop")
        status = await env.client.wait_for_completion(instance)
        await until(lambda: env.engine.health()["activities_dropped_results"] == 1)
        health = env.engine.health()

    assert (status.output, seen) == ("stopped", [True])
    assert health["activities_abandoned_threads"] == 0


async def test_raise_if_cancelled_names_the_call_and_the_reason():
    raised = []

    def work(context: ActivityContext):
        context.raise_if_cancelled()
        context.cancelled.wait(30)
        try:
            context.raise_if_cancelled()
        except ActivityCancelled as error:
            raised.append(str(error))

    async with environment(app_with(stop_async, work)) as env:
        await env.client.start_new("main", "claim-7")
        await until(lambda: env.calls("work"))
        await env.client.raise_event("claim-7", "Stop")
        await until(lambda: raised)

    assert "'work' of instance 'claim-7' (attempt 1) was cancelled: the orchestrator" in raised[0]


async def test_an_async_body_that_swallows_its_cancellation_changes_nothing():
    async def work():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "I go on"

    async def quick() -> str:
        await asyncio.sleep(0)
        return "as usual"

    app = app_with(stop_async, work, quick)

    @app.orchestrator
    async def other(context: OrchestrationContext):
        return [await context.call_activity("quick") for _ in range(3)]

    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await until(lambda: env.calls("work"))
        await env.client.raise_event(instance, "Stop")
        assert (await env.client.wait_for_completion(instance)).output == "stopped"
        await until(lambda: env.engine.health()["activities_dropped_results"] == 1)
        assert (await env.run("other")).output == ["as usual"] * 3


def hasty_yield(context: OrchestrationContext):
    first, second = context.call_activity("work", 1), context.call_activity("work", 2)
    second.cancel()
    return (yield first)


async def hasty_async(context: OrchestrationContext):
    first, second = context.call_activity("work", 1), context.call_activity("work", 2)
    second.cancel()
    return await first


@both(hasty_yield, hasty_async)
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_what_is_scheduled_and_cancelled_at_once_never_starts(orchestrator, kind):
    def work(n: int) -> int:
        return n

    async def work_async(n: int) -> int:
        return n

    app = app_with(orchestrator)
    app.activity(name="work")(work if kind == "def" else work_async)
    async with environment(app) as env:
        status = await env.run("main")
        await env.settled()
        inputs = [call.input for call in env.calls("work")]

    assert (status.output, inputs) == (1, [1])


def queued_yield(context: OrchestrationContext):
    first, second = context.call_activity("work", 1), context.call_activity("work", 2)
    third = context.call_activity("work", 3)
    yield context.wait_for_external_event("Stop")
    second.cancel()
    yield context.wait_for_external_event("Go on")
    return (yield context.task_all([first, third]))


async def queued_async(context: OrchestrationContext):
    first, second = context.call_activity("work", 1), context.call_activity("work", 2)
    third = context.call_activity("work", 3)
    await context.wait_for_external_event("Stop")
    second.cancel()
    await context.wait_for_external_event("Go on")
    return await context.task_all([first, third])


@both(queued_yield, queued_async)
@pytest.mark.parametrize("limit", ["activity", "worker"])
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_queued_call_that_is_cancelled_never_starts_and_the_next_one_does(orchestrator, limit, kind):
    may_end = threading.Event()

    def work(n: int) -> int:
        may_end.wait(30)
        return n

    async def work_async(n: int) -> int:
        while not may_end.is_set():
            await asyncio.sleep(0)
        return n

    settings = Settings(concurrency=Concurrency(threads=1, tasks=1)) if limit == "worker" else None
    app = app_with(orchestrator, settings=settings)
    app.activity(name="work", concurrency=1 if limit == "activity" else None)(
        work if kind == "def" else work_async
    )
    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await until(lambda: env.calls("work"))
        await env.client.raise_event(instance, "Stop")
        await until_event_taken(env, instance)
        may_end.set()
        await env.client.raise_event(instance, "Go on")
        status = await env.client.wait_for_completion(instance)
        inputs = [call.input for call in env.calls("work")]

    assert (status.output, inputs) == ([1, 3], [1, 3])


async def until_event_taken(env, instance):
    while "Go on" not in (await env.client.get_status(instance)).waiting_for:
        await asyncio.sleep(0)


def race_yield(context: OrchestrationContext):
    winner = yield context.task_any([context.call_activity("slow"), context.call_activity("quick")])
    yield context.wait_for_external_event("End")
    return winner.result


async def race_async(context: OrchestrationContext):
    winner = await context.task_any([context.call_activity("slow"), context.call_activity("quick")])
    await context.wait_for_external_event("End")
    return winner.result


@both(race_yield, race_async)
async def test_losing_a_race_is_no_cancellation(orchestrator):
    may_end, cancelled = threading.Event(), []

    def slow(context: ActivityContext) -> str:
        may_end.wait(30)
        cancelled.append(context.is_cancelled)
        return "slow"

    def quick() -> str:
        return "quick"

    async with environment(app_with(orchestrator, slow, quick)) as env:
        instance = await env.client.start_new("main")
        while "End" not in (await env.client.get_status(instance)).waiting_for:
            await asyncio.sleep(0)
        may_end.set()
        await until(lambda: cancelled)
        await env.client.raise_event(instance, "End")
        status = await env.client.wait_for_completion(instance)

    assert (status.output, cancelled) == ("quick", [False])


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("evicted", [False, True])
async def test_terminating_an_instance_cancels_what_runs_of_it_and_nothing_else(kind, evicted):
    reasons = {}

    def work(context: ActivityContext):
        context.cancelled.wait(30)
        reasons[context.instance_id] = context.cancel_reason

    async def work_async(context: ActivityContext):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            reasons[context.instance_id] = context.cancel_reason
            raise

    app = app_with(stop_async)
    app.activity(name="work")(work if kind == "def" else work_async)
    async with environment(app) as env:
        for instance in ("one", "two"):
            await env.client.start_new("main", instance)
        await until(lambda: len(env.calls("work")) == 2)
        if evicted:
            env.engine.loop.idle_before = env.clock.now() + 1
            env.engine.loop.nudge()
            await until(lambda: not env.engine.health()["warm"])
        await env.client.terminate("one", "enough")
        await until(lambda: reasons)
        assert reasons == {"one": "the instance was terminated or purged"}
        await env.client.raise_event("two", "Stop")
        assert (await env.client.wait_for_completion("two")).output == "stopped"
        await until(lambda: "two" in reasons)


async def test_purging_a_finished_instance_cancels_what_nobody_waited_for():
    reasons = []

    def work(context: ActivityContext):
        context.cancelled.wait(30)
        reasons.append(context.cancel_reason)

    async def main(context: OrchestrationContext):
        context.call_activity("work")

    async with environment(app_with(main, work)) as env:
        instance = await env.client.start_new("main")
        await env.client.wait_for_completion(instance)
        await until(lambda: env.calls("work"))
        assert reasons == []
        await env.client.purge_instance_history(instance)
        await until(lambda: reasons)

    assert reasons == ["the instance was terminated or purged"]


async def test_an_engine_that_stops_tells_what_runs_and_runs_it_again():
    begun, seen = [], []

    def work(context: ActivityContext) -> str:
        # The engine waits for no thread: the second attempt may begin before the first has heard.
        begun.append(context)
        if len(begun) > 1:
            return "second time"
        context.cancelled.wait(30)
        seen.append(context.cancel_reason)
        return "nobody hears this"

    async def main(context: OrchestrationContext):
        return await context.call_activity("work")

    async with environment(app_with(main, work)) as env:
        instance = await env.client.start_new("main")
        await until(lambda: begun)
        await env.restart()
        status = await env.client.wait_for_completion(instance)
        await until(lambda: seen)

    assert status.output == "second time"
    assert "the engine is stopping" in seen[0]


def timed_yield(context: OrchestrationContext):
    try:
        yield context.call_activity("work", timeout=0.02)
    except Exception as error:
        return error.failure.type


async def timed_async(context: OrchestrationContext):
    try:
        await context.call_activity("work", timeout=0.02)
    except Exception as error:
        return error.failure.type


@both(timed_yield, timed_async)
async def test_a_thread_that_takes_too_long_is_told(orchestrator):
    reasons = []

    def work(context: ActivityContext):
        context.cancelled.wait(30)
        reasons.append(context.cancel_reason)

    async with environment(app_with(orchestrator, work)) as env:
        status = await env.run("main")
        await until(lambda: reasons)

    assert status.output == "TimeoutError"
    assert "exceeded its timeout of 0.02 s" in reasons[0]


@both(stop_yield, stop_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_after_a_crash_a_cancelled_call_is_not_run_again(orchestrator, store, tmp_path):
    """The commit is durable, the engine goes down before or after the body was told: no difference."""

    async def work():
        await asyncio.Event().wait()

    def then_yield(context: OrchestrationContext):
        yield from orchestrator(context)
        yield context.wait_for_external_event("End")

    async def then_async(context: OrchestrationContext):
        await orchestrator(context)
        await context.wait_for_external_event("End")

    then = then_yield if orchestrator is stop_yield else then_async
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(then, work), store=url) as env:
        instance = await env.client.start_new("main")
        await until(lambda: env.calls("work"))
        env.engine.loop.pool.cancel = lambda calls, executions=(): []  # it never gets that far
        await env.client.raise_event(instance, "Stop")
        before = (await env.client.get_status(instance)).waiting_for
        await env.restart()
        await env.settled()
        after = (await env.client.get_status(instance)).waiting_for
        await env.client.raise_event(instance, "End")
        await env.client.wait_for_completion(instance)

    assert before == after
    assert "activity" not in after
    assert len(env.calls("work")) == 1


async def test_cancelling_a_finished_call_does_nothing():
    async def work() -> int:
        return 7

    async def main(context: OrchestrationContext):
        task = context.call_activity("work")
        await task
        task.cancel()
        return [task.result, task.is_cancelled]

    async with environment(app_with(main, work)) as env:
        assert (await env.run("main")).output == [7, False]


async def test_a_result_that_was_on_its_way_when_the_call_was_cancelled_is_stale():
    def work() -> int:
        return 7

    async def main(context: OrchestrationContext):
        task = context.call_activity("work")
        await context.wait_for_external_event("Stop")
        task.cancel()
        await context.wait_for_external_event("End")
        return task.is_cancelled

    async with environment(app_with(main, work)) as env:
        deliver, kept = env.engine.loop.pool._deliver, []
        env.engine.loop.pool._deliver = kept.append
        instance = await env.client.start_new("main")
        await until(lambda: kept)
        await env.client.raise_event(instance, "Stop")
        deliver(kept[0])
        await env.client.raise_event(instance, "End")
        status = await env.client.wait_for_completion(instance)
        health = env.engine.health()

    assert status.output is True
    assert health["stale_results"] == 1
