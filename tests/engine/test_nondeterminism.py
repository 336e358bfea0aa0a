"""Code that does not match its history: parked with an explanation, resumed by a deploy that agrees."""

import asyncio
import logging

import pytest

from perdure import App, InstanceFinished, OrchestrationContext, RuntimeStatus
from perdure.testing import check_history, environment
from tests.core.styles import both
from tests.engine.programs import app_with

S = RuntimeStatus


def assess() -> str:
    return "assessed"


def first_yield(context: OrchestrationContext):
    yield context.call_activity("assess")
    return (yield context.wait_for_external_event("Go"))


async def first_async(context: OrchestrationContext):
    await context.call_activity("assess")
    return await context.wait_for_external_event("Go")


def changed_yield(context: OrchestrationContext):
    yield context.create_timer(60)
    yield context.call_activity("assess")
    return (yield context.wait_for_external_event("Go"))


async def changed_async(context: OrchestrationContext):
    await context.create_timer(60)
    await context.call_activity("assess")
    return await context.wait_for_external_event("Go")


BOTH = pytest.mark.parametrize(
    ("first", "changed"),
    [
        pytest.param(first_yield, changed_yield, id="yield"),
        pytest.param(first_async, changed_async, id="async"),
    ],
)


@BOTH
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_a_disagreement_parks_the_instance_with_expected_found_and_line(
    first, changed, store, tmp_path
):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(first, assess), store=url) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_with(changed, assess))
        await env.client.raise_event(instance, "Go", "kept")
        status = await env.client.get_status(instance, show_history=True)

        assert status.runtime_status is S.Suspended
        assert status.reason.startswith("nondeterminism: ")
        assert "call the activity 'assess' (id 0)" in status.reason
        assert "the code now does: create a timer (id 0)" in status.reason
        assert f"{__file__}:" in status.reason
        assert f"in {changed.__name__}" in status.reason
        assert "does not match its history" in status.waiting_for
        assert status.history[-1]["type"] == "ExecutionParked"

        await env.restart(app_with(first, assess))
        assert (await env.client.wait_for_completion(instance)).output == "kept"
        assert len(env.calls("assess")) == 1


@BOTH
async def test_a_parked_instance_keeps_what_arrives_in_order(first, changed):
    def collect(context: OrchestrationContext):
        yield context.call_activity("assess")
        items = [context.wait_for_external_event("Item") for _ in range(3)]
        return (yield context.task_all(items))

    async with environment(app_with(collect, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_with(changed, assess))
        for n in range(3):
            await env.client.raise_event(instance, "Item", n)
        await env.restart(app_with(changed, assess))
        await env.restart(app_with(collect, assess))

        assert (await env.client.wait_for_completion(instance)).output == [0, 1, 2]


@BOTH
async def test_resume_with_the_same_wrong_code_parks_it_again(first, changed):
    async with environment(app_with(first, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_with(changed, assess))
        await env.client.raise_event(instance, "Go", 1)
        await env.client.resume(instance)
        await env.settled()
        status = await env.client.get_status(instance)

    assert status.runtime_status is S.Suspended
    assert status.reason.startswith("nondeterminism: ")


@BOTH
async def test_a_parked_instance_can_be_terminated(first, changed):
    async with environment(app_with(first, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_with(changed, assess))
        await env.client.raise_event(instance, "Go", 1)
        await env.client.terminate(instance, "given up")

        assert (await env.client.get_status(instance)).runtime_status is S.Terminated
        with pytest.raises(InstanceFinished):
            await env.client.resume(instance)
        assert [row.name for row in env.store.dropped(instance, 10)] == ["Go"]


@BOTH
async def test_others_go_on_while_one_is_parked(first, changed):
    async with environment(app_with(first, assess)) as env:
        parked = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_with(changed, assess))
        await env.client.raise_event(parked, "Go", 1)
        other = await env.client.start_new("main")
        await env.client.raise_event(other, "Go", 2)

        assert (await env.client.wait_for_completion(other)).output == 2


@BOTH
async def test_a_saved_history_tells_before_the_deploy(first, changed):
    async with environment(app_with(first, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        saved = (
            await env.client.get_status(
                instance, show_history=True, show_history_output=True, show_input=True
            )
        ).history

    assert check_history(first, saved) is None
    assert check_history(changed, saved).found == "create a timer (id 0)"


def swallows_yield(context: OrchestrationContext):
    try:
        yield context.create_timer(60)
    except:  # noqa: E722
        return "swallowed"


async def swallows_async(context: OrchestrationContext):
    try:
        await context.create_timer(60)
    except:  # noqa: E722
        return "swallowed"


@both(swallows_yield, swallows_async)
async def test_a_bare_except_cannot_swallow_a_disagreement(orchestrator):
    async with environment(app_with(first_yield, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(app_with(orchestrator, assess))
        await env.client.raise_event(instance, "Go", 1)
        status = await env.client.get_status(instance)

    assert "the code now does: create a timer (id 0)" in status.reason


# ------------------------------------------------------------------------------------- no such orchestrator


@BOTH
async def test_an_instance_whose_orchestrator_is_gone_waits_for_a_worker_that_has_it(first, changed):
    empty = App("claims")
    async with environment(app_with(first, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.restart(empty)
        await env.client.raise_event(instance, "Go", "kept")
        status = await env.client.get_status(instance)
        await env.restart(app_with(first, assess))
        finished = await env.client.wait_for_completion(instance)

    assert status.reason.startswith("no_worker: ")
    assert status.waiting_for == "waiting for a worker that has its orchestrator function (PDR-072)"
    assert finished.output == "kept"


def asks_yield(context: OrchestrationContext):
    return (yield context.call_activity("assess"))


async def asks_async(context: OrchestrationContext):
    return await context.call_activity("assess")


@both(asks_yield, asks_async)
async def test_an_instance_whose_activity_is_nowhere_says_so(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        status = await env.client.get_status(instance)

    assert status.waiting_for == "waiting for a worker that has an activity that it calls (PDR-072)"


# ---------------------------------------------------------------------------------------------- the logger


def logs_yield(context: OrchestrationContext):
    context.logger.info("before %s", context.get_input())
    yield context.create_timer(60)
    context.logger.warning("between")
    yield context.wait_for_external_event("Go")
    context.logger.info("after")


async def logs_async(context: OrchestrationContext):
    context.logger.info("before %s", context.get_input())
    await context.create_timer(60)
    context.logger.warning("between")
    await context.wait_for_external_event("Go")
    context.logger.info("after")


@both(logs_yield, logs_async)
async def test_the_logger_logs_each_line_once_however_often_it_is_replayed(orchestrator, caplog):
    caplog.set_level(logging.INFO, "perdure.orchestrator")
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main", None, "it")
        await env.settled()
        await env.evict()
        await env.advance(minutes=1)
        await env.restart()
        await env.client.raise_event(instance, "Go")
        await env.client.wait_for_completion(instance)

    records = [r for r in caplog.records if r.name == "perdure.orchestrator"]
    assert [r.getMessage() for r in records] == ["before it", "between", "after"]
    assert {r.instance_id for r in records} == {instance}


# -------------------------------------------------------------------------------------------------- eviction


log: list[str] = []


def finally_yield(context: OrchestrationContext):
    try:
        return (yield context.wait_for_external_event("Go"))
    finally:
        log.append("finally")
        context.call_activity("assess")


async def finally_async(context: OrchestrationContext):
    try:
        return await context.wait_for_external_event("Go")
    finally:
        log.append("finally")
        context.call_activity("assess")


@both(finally_yield, finally_async)
@pytest.mark.parametrize("by", ["eviction", "restart"])
async def test_putting_code_away_runs_its_finally_blocks_without_effect(orchestrator, by):
    log.clear()
    async with environment(app_with(orchestrator, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await (env.evict() if by == "eviction" else env.restart())
        assert log == ["finally"]
        await env.settled()
        assert env.calls("assess") == []
        await env.client.raise_event(instance, "Go", 5)

        assert (await env.client.wait_for_completion(instance)).output == 5
        await asyncio.sleep(0)
        history = (await env.client.get_status(instance, show_history=True)).history

    assert log == ["finally", "finally"]
    assert [e["type"] for e in history].count("TaskScheduled") == 1


@both(first_yield, first_async)
async def test_an_evicted_instance_goes_on_from_its_history(orchestrator):
    async with environment(app_with(orchestrator, assess)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        await env.evict()
        assert env.engine.health()["warm"] == 0
        await env.client.raise_event(instance, "Go", 5)

        assert (await env.client.wait_for_completion(instance)).output == 5
        assert env.engine.health()["replays"] == 1
        assert len(env.calls("assess")) == 1
