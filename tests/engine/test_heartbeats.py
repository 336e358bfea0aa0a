"""Heartbeats: progress in the status, and attempts that fall silent."""

import asyncio
import threading

import pytest

from perdure import ActivityContext, App, OrchestrationContext, PayloadError, RetryPolicy
from perdure.model.waiting import OpenActivity, Waiting
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with, until


async def call_async(context: OrchestrationContext):
    return await context.call_activity("work")


def call_yield(context: OrchestrationContext):
    return (yield context.call_activity("work"))


@both(call_yield, call_async)
async def test_progress_is_shown_in_the_status_and_in_lists(orchestrator):
    said, may_end = threading.Event(), threading.Event()

    def work(context: ActivityContext):
        context.heartbeat(0.62)
        said.set()
        may_end.wait(30)

    async with environment(app_with(orchestrator, work)) as env:
        instance = await env.client.start_new("main")
        await until(said.is_set)
        status = await env.client.get_status(instance)
        listed = (await env.client.query()).instances[0]
        may_end.set()
        await env.client.wait_for_completion(instance)

    assert status.waiting_for == "waiting for the activity 'work' (62 %, last heartbeat 0 s ago)"
    assert listed.waiting_for == status.waiting_for
    (activity,) = status.waiting.activities
    assert (activity.name, activity.attempt, activity.where) == ("work", 1, "thread")
    assert activity.progress == 0.62
    assert 0 < activity.begun_at <= activity.heard_at


async def test_status_tells_where_each_activity_runs_or_that_it_waits_its_turn():
    may_end = asyncio.Event()

    async def main(context: OrchestrationContext):
        await context.task_all(
            [context.call_activity(name) for name in ("awaits", "blocks", "narrow", "narrow")]
        )

    async def awaits():
        await may_end.wait()

    def blocks():
        asyncio.run_coroutine_threadsafe(may_end.wait(), host).result(30)

    app = app_with(main, awaits, blocks)
    app.activity(name="narrow", concurrency=1)(awaits)
    host = asyncio.get_running_loop()
    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await until(lambda: len(env.calls()) == 3)
        status = await env.client.get_status(instance)
        may_end.set()
        await env.client.wait_for_completion(instance)

    found = [(one.name, one.where, one.begun_at > 0) for one in status.waiting.activities]
    assert found == [
        ("awaits", "event loop", True),
        ("blocks", "thread", True),
        ("narrow", "event loop", True),
        ("narrow", "queue", False),
    ]


def sentence(**known) -> str:
    activity = OpenActivity("scan", 0, **known)
    return Waiting(activities=(activity,), at=10_000_000).sentence().removeprefix("waiting for the activity ")


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({}, "'scan'"),
        ({"attempt": 2}, "'scan' (attempt 2)"),
        ({"heard_at": 7_000_000}, "'scan' (last heartbeat 3 s ago)"),
        ({"heard_at": 11_000_000}, "'scan' (last heartbeat 0 s ago)"),
        (
            {"progress": 0.625, "heard_at": 7_000_000, "attempt": 3},
            "'scan' (attempt 3, 62 %, last heartbeat 3 s ago)",
        ),
        ({"progress": [620, 1000]}, "'scan' (620 of 1000)"),
        ({"progress": "page 7"}, "'scan' (page 7)"),
        ({"progress": 12}, "'scan' (12)"),
        ({"progress": True}, "'scan' (true)"),
        ({"progress": {"page": 7}}, "'scan' ({\"page\":7})"),
        ({"progress": "x" * 100}, f"'scan' ({'x' * 59}…)"),
    ],
)
def test_the_sentence(known, expected):
    assert sentence(**known) == expected


async def test_progress_that_json_cannot_carry_or_that_is_too_large_is_refused():
    refused = []

    def work(context: ActivityContext):
        for progress in (object(), "x" * 5_000):
            try:
                context.heartbeat(progress)
            except PayloadError as error:
                refused.append(str(error))

    async with environment(app_with(call_async, work)) as env:
        await env.run("main")

    assert len(refused) == 2


# ---------------------------------------------------------------------------------------- heartbeat_timeout


def silent_yield(context: OrchestrationContext):
    try:
        return (yield context.call_activity("work", heartbeat_timeout=0.03))
    except Exception as error:
        return error.failure.type, error.failure.message


async def silent_async(context: OrchestrationContext):
    try:
        return await context.call_activity("work", heartbeat_timeout=0.03)
    except Exception as error:
        return error.failure.type, error.failure.message


@both(silent_yield, silent_async)
@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_an_attempt_that_falls_silent_fails_and_is_told(orchestrator, kind):
    told = []

    def work(context: ActivityContext):
        context.heartbeat(1)
        context.cancelled.wait(30)
        told.append(context.cancel_reason)
        return "too late"

    async def work_async(context: ActivityContext):
        context.heartbeat(1)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append(context.cancel_reason)
            return "too late"

    app = app_with(orchestrator)
    app.activity(name="work")(work if kind == "def" else work_async)
    async with environment(app) as env:
        type_, message = (await env.run("main")).output
        await until(lambda: env.engine.health()["activities_dropped_results"] == 1)

    assert type_ == "TimeoutError"
    assert "'work' (attempt 1) sent no heartbeat for 0.03 s" in message
    assert told == [message]


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_an_attempt_that_beats_in_time_may_take_longer(kind):
    pause = threading.Event()

    def work(context: ActivityContext) -> str:
        for n in range(60):
            context.heartbeat(n)
            pause.wait(0.02)
        return "done"

    async def work_async(context: ActivityContext) -> str:
        for n in range(60):
            context.heartbeat(n)
            await asyncio.sleep(0.02)
        return "done"

    async def main(context: OrchestrationContext):
        # Fifty times the pause: a busy machine stops a thread for half a second.
        return await context.call_activity("work", heartbeat_timeout=1)

    app = app_with(main)
    app.activity(name="work")(work if kind == "def" else work_async)
    async with environment(app) as env:
        assert (await env.run("main")).output == "done"


async def test_silence_is_retried_by_the_policy_and_the_late_result_of_the_first_attempt_does_not_count():
    may_end, attempts = threading.Event(), []

    app = App("claims")

    @app.activity(heartbeat_timeout=0.03, retry=RetryPolicy(first_interval=5, max_attempts=2))
    def work(context: ActivityContext) -> str:
        attempts.append(context.attempt)
        if context.attempt == 1:
            may_end.wait(30)
        return f"attempt {context.attempt}"

    @app.orchestrator
    async def main(context: OrchestrationContext):
        result = await context.call_activity(work)
        await context.wait_for_external_event("End")
        return result

    async with environment(app) as env:
        instance = await env.client.start_new(main)
        await env.advance(seconds=10)
        may_end.set()
        await until(lambda: env.engine.health()["activities_dropped_results"] == 1)
        await env.client.raise_event(instance, "End")
        status = await env.client.wait_for_completion(instance)

    assert (status.output, attempts) == ("attempt 2", [1, 2])


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_the_heartbeat_timeout_of_a_call_survives_a_restart(store, tmp_path):
    beats, hangs = threading.Event(), threading.Event()

    def work(context: ActivityContext):
        while not beats.wait(0.01):
            context.heartbeat()
        hangs.wait(0 if context.is_cancelled else 30)

    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(silent_async, work), store=url) as env:
        instance = await env.client.start_new("main")
        await until(lambda: env.calls("work"))
        await env.restart()
        await until(lambda: len(env.calls("work")) == 2)
        beats.set()
        status = await env.client.wait_for_completion(instance)
        hangs.set()

    assert status.output[0] == "TimeoutError"
