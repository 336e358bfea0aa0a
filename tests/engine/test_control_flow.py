"""task_all, task_any and spawn in a living engine, also across eviction."""

import pytest

from perdure import OrchestrationContext, RuntimeStatus
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


def double(n: int) -> int:
    return 2 * n


def fail(n: int) -> int:
    raise ValueError(f"no {n}")


def fan_yield(context: OrchestrationContext):
    return (yield context.task_all([context.call_activity("double", n) for n in range(100)]))


async def fan_async(context: OrchestrationContext):
    return await context.task_all([context.call_activity("double", n) for n in range(100)])


@both(fan_yield, fan_async)
async def test_a_fan_out_gives_its_results_in_argument_order(orchestrator):
    async with environment(app_with(orchestrator, double)) as env:
        assert (await env.run("main")).output == [2 * n for n in range(100)]


def mixed_yield(context: OrchestrationContext):
    try:
        yield context.task_all(context.call_activity("double", 1), context.call_activity("fail", 2))
    except Exception as error:
        return error.failure.message


async def mixed_async(context: OrchestrationContext):
    try:
        await context.task_all(context.call_activity("double", 1), context.call_activity("fail", 2))
    except Exception as error:
        return error.failure.message


@both(mixed_yield, mixed_async)
async def test_task_all_raises_the_failure_and_the_others_go_on(orchestrator):
    async with environment(app_with(orchestrator, double, fail)) as env:
        assert (await env.run("main")).output == "no 2"


def branches_yield(context: OrchestrationContext):
    def branch(n):
        yield context.create_timer(n)
        result = yield context.call_activity("double", n)
        return result

    tasks = [context.spawn(branch(n)) for n in (3, 1, 2)]
    winner = yield context.task_any(tasks)
    everything = yield context.task_all(tasks)
    return [winner.result, everything]


async def branches_async(context: OrchestrationContext):
    async def branch(n):
        await context.create_timer(n)
        return await context.call_activity("double", n)

    tasks = [context.spawn(branch(n)) for n in (3, 1, 2)]
    winner = await context.task_any(tasks)
    everything = await context.task_all(tasks)
    return [winner.result, everything]


@both(branches_yield, branches_async)
@pytest.mark.parametrize("evicted", [False, True])
async def test_branches_run_beside_each_other(orchestrator, evicted):
    async with environment(app_with(orchestrator, double)) as env:
        instance = await env.client.start_new("main")
        await env.settled()
        if evicted:
            await env.evict()
        status = await env.client.wait_for_completion(instance)

    assert status.output == [2, [6, 2, 4]]


def lost_yield(context: OrchestrationContext):
    def branch():
        yield context.call_activity("fail", 1)

    context.spawn(branch())
    yield context.create_timer(60)
    return "never noticed"


async def lost_async(context: OrchestrationContext):
    async def branch():
        await context.call_activity("fail", 1)

    context.spawn(branch())
    await context.create_timer(60)
    return "never noticed"


@both(lost_yield, lost_async)
async def test_a_failed_branch_nobody_awaits_fails_the_orchestration(orchestrator):
    async with environment(app_with(orchestrator, fail)) as env:
        status = await env.run("main")

    assert status.runtime_status is RuntimeStatus.Failed
    assert status.failure.cause.message == "no 1"


def race_yield(context: OrchestrationContext):
    approval = context.wait_for_external_event("Approval")
    deadline = context.create_timer(3600)
    winner = yield context.task_any([approval, deadline])
    if winner is approval:
        deadline.cancel()
        return "approved"
    approval.cancel()
    return "expired"


async def race_async(context: OrchestrationContext):
    approval = context.wait_for_external_event("Approval")
    deadline = context.create_timer(3600)
    winner = await context.task_any([approval, deadline])
    if winner is approval:
        deadline.cancel()
        return "approved"
    approval.cancel()
    return "expired"


@both(race_yield, race_async)
@pytest.mark.parametrize("decided", [True, False])
async def test_a_race_of_event_and_timer_has_one_winner(orchestrator, decided):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        if decided:
            await env.client.raise_event(instance, "Approval")
        status = await env.client.wait_for_completion(instance)

    assert status.output == ("approved" if decided else "expired")


def ten_thousand_yield(context: OrchestrationContext):
    yield context.task_all([context.call_activity("double", n) for n in range(context.get_input())])
    return "done"


async def ten_thousand_async(context: OrchestrationContext):
    await context.task_all([context.call_activity("double", n) for n in range(context.get_input())])
    return "done"


@both(ten_thousand_yield, ten_thousand_async)
async def test_a_wide_fan_in_costs_the_same_for_each_result(orchestrator):
    async with environment(app_with(orchestrator, double)) as env:
        assert (await env.run("main", 2_000)).output == "done"


@pytest.mark.long
@both(ten_thousand_yield, ten_thousand_async)
async def test_ten_thousand_activities_in_parallel(orchestrator):
    async with environment(app_with(orchestrator, double)) as env:
        assert (await env.run("main", 10_000)).output == "done"
