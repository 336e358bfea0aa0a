"""What code puts into context variables (a tenant, a trace) is seen by its own execution only."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest

import perdure as df
from perdure import App, Concurrency, EntityContext, EntityId, OrchestrationContext, Settings
from perdure.testing import environment
from tests.core.styles import both

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def works_yield(context: OrchestrationContext):
    before = tenant.get()
    token = tenant.set(context.instance_id)
    try:
        yield context.create_timer(5)
        yield context.spawn(branch_yield(context))
        return [before, tenant.get()]
    finally:
        tenant.reset(token)


def branch_yield(context: OrchestrationContext):
    yield context.create_timer(1)
    tenant.set(f"{tenant.get()}, seen by its branch")


async def works_async(context: OrchestrationContext):
    before = tenant.get()
    token = tenant.set(context.instance_id)
    try:
        await context.create_timer(5)
        await context.spawn(branch_async(context))
        return [before, tenant.get()]
    finally:
        tenant.reset(token)


async def branch_async(context: OrchestrationContext):
    await context.create_timer(1)
    tenant.set(f"{tenant.get()}, seen by its branch")


@both(works_yield, works_async)
@pytest.mark.parametrize("evicted", [False, True])
async def test_orchestrations_do_not_see_each_others(orchestrator, evicted):
    app = App("tenants")
    app.orchestrator(name="main")(orchestrator)
    async with environment(app) as env:
        for name in ("one", "two"):
            await env.client.start_new("main", name)
        await env.settled()
        if evicted:
            await env.evict()
        outputs = [(await env.client.wait_for_completion(name)).output for name in ("one", "two")]

    assert outputs == [["nobody", f"{name}, seen by its branch"] for name in ("one", "two")]


seen_at_the_end: list[str] = []


def leaves_yield(context: OrchestrationContext):
    token = tenant.set(context.instance_id)
    try:
        yield context.wait_for_external_event("Never")
    finally:
        seen_at_the_end.append(tenant.get())
        tenant.reset(token)  # raises ValueError in another context
        seen_at_the_end.append(tenant.get())


async def leaves_async(context: OrchestrationContext):
    token = tenant.set(context.instance_id)
    try:
        await context.wait_for_external_event("Never")
    finally:
        seen_at_the_end.append(tenant.get())
        tenant.reset(token)
        seen_at_the_end.append(tenant.get())


@both(leaves_yield, leaves_async)
async def test_closing_code_runs_with_the_variables_of_its_execution(orchestrator):
    seen_at_the_end.clear()
    app = App("tenants")
    app.orchestrator(name="main")(orchestrator)
    async with environment(app) as env:
        await env.client.start_new("main", "one")
        await env.settled()
        await env.client.terminate("one", "enough")
        await env.settled()

    assert seen_at_the_end == ["one", "nobody"]


def handle(name: str) -> str:
    before = tenant.get()
    tenant.set(name)
    return before


async def handle_async(name: str) -> str:
    before = tenant.get()
    tenant.set(name)
    return before


def entity(context: EntityContext) -> str:
    return handle(context.operation_name)


async def entity_async(context: EntityContext) -> str:
    return handle(context.operation_name)


async def calls(context: OrchestrationContext, where: str):
    for name in ("first", "second", "third"):
        if where.startswith("entity"):
            before = await context.call_entity(EntityId(where, "a"), name)
        else:
            before = await context.call_activity(where, name)
    return before


@pytest.mark.parametrize("where", ["thread", "loop", "executor", "entity", "entity_off", "entity_async"])
async def test_bodies_that_share_a_thread_do_not_see_each_others(where):
    app = App("tenants", settings=Settings(concurrency=Concurrency(threads=1)))
    app.orchestrator(calls)
    app.activity(name="thread")(handle)
    app.activity(name="loop")(handle_async)
    app.activity(executor=ThreadPoolExecutor(1), name="executor")(handle)
    app.entity(name="entity")(entity)
    app.entity(name="entity_off", offload=True)(entity)
    app.entity(name="entity_async", offload=True)(entity_async)
    async with app.running(store="memory:") as client:
        instance = await client.start_new(calls, None, where)
        assert (await client.wait_for_completion(instance)).output == "nobody"


@pytest.mark.parametrize("where", ["thread", "loop"])
async def test_activities_see_what_the_host_had_set_when_it_started(where):
    app = df.App("tenants")
    app.orchestrator(calls)
    app.activity(name="thread")(handle)
    app.activity(name="loop")(handle_async)
    token = tenant.set("the host's")
    try:
        async with environment(app) as env:
            assert (await env.run(calls, where)).output == "the host's"
    finally:
        tenant.reset(token)
