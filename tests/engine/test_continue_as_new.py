"""continue_as_new: generation after generation, no event lost, constant memory."""

import pytest

from perdure import App, Limits, OrchestrationContext, RuntimeStatus, Settings
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


def count_yield(context: OrchestrationContext):
    n = context.get_input()
    if not n:
        return "done"
    yield context.call_activity("work", n)
    context.continue_as_new(n - 1)


async def count_async(context: OrchestrationContext):
    n = context.get_input()
    if not n:
        return "done"
    await context.call_activity("work", n)
    context.continue_as_new(n - 1)


def work(n: int) -> int:
    return n


@both(count_yield, count_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_each_generation_has_a_history_and_keys_of_its_own(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator, work), store=url) as env:
        status = await env.run("main", 3, "c1")
        keys = [call.idempotency_key for call in env.calls("work")]
        row = env.store.get("c1").row
        kept = env.store.executions(row.instance_no)

    assert status.output == "done"
    assert len(set(keys)) == 3
    assert status.execution_id.endswith("-4")
    assert kept == [4]


@both(count_yield, count_async)
async def test_more_executions_are_kept_if_the_limits_say_so(orchestrator):
    settings = Settings(limits=Limits(keep_executions=3))
    async with environment(app_with(orchestrator, work, settings=settings)) as env:
        await env.run("main", 5, "c1")

        assert env.store.executions(env.store.get("c1").row.instance_no) == [4, 5, 6]


@both(count_yield, count_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_kept_executions_can_be_read_and_go_with_the_purge(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    app = App("claims", keep_executions=3)
    app.orchestrator(name="main")(orchestrator)
    app.activity(work)
    async with environment(app, store=url) as env:
        await env.run("main", 5, "c1")
        present = await env.client.get_status("c1", True)
        earlier = await env.client.get_status("c1", True, execution=4)
        gone = await env.client.get_status("c1", True, execution=2)
        number = env.store.get("c1").row.instance_no
        await env.client.purge_instance_history("c1")
        left = env.store.executions(number)

    assert present.executions == earlier.executions == [4, 5, 6]
    assert (present.history[-1]["type"], earlier.history[-1]["type"]) == (
        "ExecutionCompleted",
        "ContinuedAsNew",
    )
    assert gone.history == []
    assert left == []


def quick_yield(context: OrchestrationContext):
    n = context.get_input()
    if n:
        context.continue_as_new(n - 1)
    return n
    yield


async def quick_async(context: OrchestrationContext):
    n = context.get_input()
    if n:
        context.continue_as_new(n - 1)
    return n


@both(quick_yield, quick_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_5_000_generations_leave_one_history(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        status = await env.run("main", 5_000, "c1")
        row = env.store.get("c1").row

        assert status.output == 0
        assert row.execution_no == 5_001
        assert env.store.executions(row.instance_no) == [5_001]
        assert env.engine.health()["warm"] == 0


@pytest.mark.long
@both(quick_yield, quick_async)
async def test_100_000_generations_in_constant_memory_and_disk(orchestrator, tmp_path):
    async with environment(app_with(orchestrator), store=f"sqlite:///{tmp_path}/hub.db") as env:
        await env.run("main", 1_000, "warm-up")
        await env.restart()
        before = sum(file.stat().st_size for file in tmp_path.iterdir())
        assert (await env.run("main", 100_000, "c1")).output == 0
        await env.restart()
        after = sum(file.stat().st_size for file in tmp_path.iterdir())

    assert after < before + 2_000_000


@both(quick_yield, quick_async)
async def test_generations_of_one_instance_do_not_keep_others_waiting(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        endless = await env.client.start_new("main", None, 20_000)
        other = await env.run("main", 1)
        meanwhile = await env.client.get_status(endless)

    assert other.output == 0
    assert meanwhile.runtime_status is RuntimeStatus.Running


def collect_yield(context: OrchestrationContext):
    seen = context.get_input() or []
    if len(seen) == 50:
        return seen
    event = yield context.wait_for_external_event("Item")
    context.continue_as_new([*seen, event])


async def collect_async(context: OrchestrationContext):
    seen = context.get_input() or []
    if len(seen) == 50:
        return seen
    event = await context.wait_for_external_event("Item")
    context.continue_as_new([*seen, event])


@both(collect_yield, collect_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_no_event_is_lost_and_none_is_taken_twice(orchestrator, store, restarted, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        instance = await env.client.start_new("main")
        for n in range(50):
            await env.client.raise_event(instance, "Item", n, event_id=f"e{n}")
            if n % 3 == 0:
                await env.client.raise_event(instance, "Item", n, event_id=f"e{n}")
            if restarted and n % 20 == 0:
                await env.restart()
        status = await env.client.wait_for_completion(instance)

    assert status.output == list(range(50))


def unseen_yield(context: OrchestrationContext):
    if context.get_input() is None:
        context.wait_for_external_event("Item")
        yield context.create_timer(60)
        context.continue_as_new("again")
    else:
        return (yield context.wait_for_external_event("Item"))


async def unseen_async(context: OrchestrationContext):
    if context.get_input() is None:
        context.wait_for_external_event("Item")
        await context.create_timer(60)
        context.continue_as_new("again")
    else:
        return await context.wait_for_external_event("Item")


@both(unseen_yield, unseen_async)
async def test_an_event_taken_by_a_wait_nobody_looked_at_goes_along(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Item", "unseen")

        assert (await env.client.wait_for_completion(instance)).output == "unseen"


def without_events_yield(context: OrchestrationContext):
    if context.get_input() is None:
        yield context.create_timer(60)
        context.continue_as_new("again", save_events=False)
    else:
        return (yield context.wait_for_external_event("Item", timeout=60, default="none"))


async def without_events_async(context: OrchestrationContext):
    if context.get_input() is None:
        await context.create_timer(60)
        context.continue_as_new("again", save_events=False)
    else:
        return await context.wait_for_external_event("Item", timeout=60, default="none")


@both(without_events_yield, without_events_async)
async def test_events_stay_behind_with_a_record_if_the_code_says_so(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Item", "left behind")
        status = await env.client.wait_for_completion(instance)
        dropped = env.store.dropped(instance, 10)

    assert status.output == "none"
    assert [(row.name, row.body) for row in dropped] == [("Item", b'"left behind"')]


def stale_yield(context: OrchestrationContext):
    if context.get_input() is None:
        context.call_activity("work", 1)
        context.create_timer(30)
        context.call_sub_orchestrator("child")
        yield context.wait_for_external_event("Go")
        context.continue_as_new("again")
    else:
        return (yield context.create_timer(3600))


async def stale_async(context: OrchestrationContext):
    if context.get_input() is None:
        context.call_activity("work", 1)
        context.create_timer(30)
        context.call_sub_orchestrator("child")
        await context.wait_for_external_event("Go")
        context.continue_as_new("again")
    else:
        return await context.create_timer(3600)


@both(stale_yield, stale_async)
async def test_what_the_last_generation_left_open_does_not_reach_the_next(orchestrator):
    app: App = app_with(orchestrator, work)

    @app.orchestrator
    def child(context: OrchestrationContext):
        yield context.create_timer(120)

    async with environment(app) as env:
        instance = await env.client.start_new("main")
        await env.client.raise_event(instance, "Go")
        status = await env.client.wait_for_completion(instance)

    assert status.runtime_status is RuntimeStatus.Completed


def early_yield(context: OrchestrationContext):
    if context.get_input() == 0:
        return [context.custom_status, context.current_utc_datetime]
    context.set_custom_status("kept")
    yield context.create_timer(60)
    context.continue_as_new(0)
    yield context.call_activity("work", 1)


async def early_async(context: OrchestrationContext):
    if context.get_input() == 0:
        return [context.custom_status, context.current_utc_datetime]
    context.set_custom_status("kept")
    await context.create_timer(60)
    context.continue_as_new(0)
    await context.call_activity("work", 1)


@both(early_yield, early_async)
async def test_what_is_called_after_continue_as_new_never_runs(orchestrator):
    async with environment(app_with(orchestrator, work)) as env:
        status = await env.run("main", 1)

        assert status.output[1] == "2026-01-01T09:01:00Z"
        assert env.calls("work") == []
        assert status.custom_status == "kept"


def failing_yield(context: OrchestrationContext):
    yield context.create_timer(1)
    context.continue_as_new(None)
    raise ValueError("after all")


async def failing_async(context: OrchestrationContext):
    await context.create_timer(1)
    context.continue_as_new(None)
    raise ValueError("after all")


@both(failing_yield, failing_async)
async def test_a_failure_after_continue_as_new_is_a_failure(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        assert (await env.run("main")).failure.message == "after all"


def generations_of_a_child_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("quick", 7))


async def generations_of_a_child_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("quick", 7)


@both(generations_of_a_child_yield, generations_of_a_child_async)
async def test_a_parent_hears_of_its_childs_last_generation(orchestrator):
    app = app_with(orchestrator)
    app.orchestrator(name="quick")(quick_yield)
    async with environment(app) as env:
        assert (await env.run("main")).output == 0
