"""Durable timers: any length, to the microsecond of the hub's clock, cancellable, across restarts."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from perdure import OrchestrationContext, RuntimeStatus
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


def sleep_yield(context: OrchestrationContext):
    began = context.current_utc_datetime
    yield context.create_timer(timedelta(seconds=context.get_input()))
    return (context.current_utc_datetime - began).total_seconds()


async def sleep_async(context: OrchestrationContext):
    began = context.current_utc_datetime
    await context.create_timer(timedelta(seconds=context.get_input()))
    return (context.current_utc_datetime - began).total_seconds()


@both(sleep_yield, sleep_async)
@pytest.mark.parametrize("seconds", [0, 0.001, 59, 61, 72 * 3600, 10 * 365 * 86_400])
async def test_a_timer_of_any_length_fires_exactly_when_it_is_due(orchestrator, seconds):
    async with environment(app_with(orchestrator)) as env:
        assert (await env.run("main", seconds)).output == seconds


@both(sleep_yield, sleep_async)
async def test_seventy_two_hours_are_not_waited_for(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        brief = await env.run("main", 1)
        began = time.monotonic()
        long = await asyncio.gather(*(env.run("main", 72 * 3600 + n) for n in range(20)))

        assert time.monotonic() - began < 60
        steps = [await steps_of(env, status.instance_id) for status in (brief, *long)]
        assert steps == [steps[0]] * 21, "what a timer costs does not depend on its length"


async def steps_of(env, instance_id):
    history = (await env.client.get_status(instance_id, show_history=True)).history
    return [event["type"] for event in history]


@both(sleep_yield, sleep_async)
async def test_a_timer_never_fires_early(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main", None, 3600)
        await env.advance(seconds=3600 - 1e-6)
        early = await env.client.get_status(instance)
        await env.advance(seconds=1e-6)

        assert early.runtime_status is RuntimeStatus.Running
        assert (await env.client.get_status(instance)).runtime_status is RuntimeStatus.Completed


@both(sleep_yield, sleep_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_timers_beyond_the_horizon_survive_a_restart(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        near = await env.client.start_new("main", "near", 30)
        far = await env.client.start_new("main", "far", 30 * 86_400)
        await env.restart()

        assert (await env.client.wait_for_completion(near)).output == 30
        await env.restart()
        assert (await env.client.wait_for_completion(far)).output == 30 * 86_400


@both(sleep_yield, sleep_async)
async def test_a_timer_that_came_due_while_nothing_ran_fires_at_the_start(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main", None, 30)
        env.clock.move(env.clock.now() + 3_600_000_000)
        await env.restart()
        await env.settled()

        assert (await env.client.get_status(instance)).output == 3600


def at_instant_yield(context: OrchestrationContext):
    yield context.create_timer(datetime(2026, 6, 1, tzinfo=UTC))
    yield context.create_timer(datetime(2000, 1, 1, tzinfo=UTC))
    return context.current_utc_datetime


async def at_instant_async(context: OrchestrationContext):
    await context.create_timer(datetime(2026, 6, 1, tzinfo=UTC))
    await context.create_timer(datetime(2000, 1, 1, tzinfo=UTC))
    return context.current_utc_datetime


@both(at_instant_yield, at_instant_async)
async def test_a_timer_at_an_instant_and_one_in_the_past(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        assert (await env.run("main")).output == "2026-06-01T00:00:00Z"


def cancelled_yield(context: OrchestrationContext):
    timer = context.create_timer(timedelta(days=30))
    timer.cancel()
    yield context.create_timer(60)
    return timer.is_cancelled


async def cancelled_async(context: OrchestrationContext):
    timer = context.create_timer(timedelta(days=30))
    timer.cancel()
    await context.create_timer(60)
    return timer.is_cancelled


@both(cancelled_yield, cancelled_async)
async def test_a_cancelled_timer_holds_nothing_up(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        began = env.now
        status = await env.run("main")

        assert status.output is True
        assert env.now - began == timedelta(seconds=60)
        assert env.engine.loop.next_timer_at() is None


def many_yield(context: OrchestrationContext):
    yield context.task_all([context.create_timer(n) for n in range(50, 0, -1)])
    return context.current_utc_datetime


async def many_async(context: OrchestrationContext):
    await context.task_all([context.create_timer(n) for n in range(50, 0, -1)])
    return context.current_utc_datetime


@both(many_yield, many_async)
async def test_of_many_timers_each_fires_at_its_own_time(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.wait_for_completion(instance)
        history = (await env.client.get_status(instance, show_history=True)).history

    fired = [event["timestamp"] for event in history if event["type"] == "TimerFired"]
    assert fired == sorted(fired)
    assert len(set(fired)) == 50


def behind_activity_yield(context: OrchestrationContext):
    work = context.call_activity("work", timeout=3600)
    winner = yield context.task_any([work, context.create_timer(120)])
    return winner is work


async def behind_activity_async(context: OrchestrationContext):
    work = context.call_activity("work", timeout=3600)
    winner = await context.task_any([work, context.create_timer(120)])
    return winner is work


@both(behind_activity_yield, behind_activity_async)
async def test_a_timer_behind_a_running_local_activity_is_found_after_a_restart(orchestrator):
    release = asyncio.Event()

    async def work():
        await release.wait()

    async with environment(app_with(orchestrator, work)) as env:
        instance = await env.client.start_new("main")
        while not env.calls("work"):
            await asyncio.sleep(0)
        env.clock.move(env.clock.now() + 120_000_000)
        await env.restart()
        status = await env.client.wait_for_completion(instance)
        release.set()

    assert status.output is False
