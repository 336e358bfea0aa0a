"""`replays`: how often an instance's code was recreated from its history, as its status counts it."""

import pytest

from perdure import OrchestrationContext, RuntimeStatus
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


def assess() -> str:
    return "assessed"


def twice_yield(context: OrchestrationContext):
    yield context.call_activity("assess")
    first = yield context.wait_for_external_event("Go")
    second = yield context.wait_for_external_event("Go")
    return first + second


async def twice_async(context: OrchestrationContext):
    await context.call_activity("assess")
    first = await context.wait_for_external_event("Go")
    second = await context.wait_for_external_event("Go")
    return first + second


def again_yield(context: OrchestrationContext):
    rounds = context.get_input()
    yield context.wait_for_external_event("Go")
    if rounds > 1:
        context.continue_as_new(rounds - 1)


async def again_async(context: OrchestrationContext):
    rounds = context.get_input()
    await context.wait_for_external_event("Go")
    if rounds > 1:
        context.continue_as_new(rounds - 1)


def changed_yield(context: OrchestrationContext):
    yield context.create_timer(60)


async def changed_async(context: OrchestrationContext):
    await context.create_timer(60)


TWICE, AGAIN, CHANGED = (
    both(twice_yield, twice_async),
    both(again_yield, again_async),
    both(changed_yield, changed_async),
)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request, tmp_path) -> str:
    match request.param:
        case "memory":
            return "memory:"
        case "sqlite":
            return f"sqlite:///{tmp_path}/hub.db"
        case _:
            found: str = request.getfixturevalue("newest_url")
            return found


@TWICE
async def test_evictions_and_restarts_are_counted_and_outlast_the_worker(orchestrator, url):
    async with environment(app_with(orchestrator, assess), store=url) as env:
        client = env.client
        await client.start_new("main", "c1")
        await env.settled()
        counts = [(await client.get_status("c1")).replays]
        await env.evict()
        await client.raise_event("c1", "Go", 1)
        await env.settled()
        counts.append((await client.get_status("c1")).replays)
        await env.restart()
        await env.client.raise_event("c1", "Go", 2)
        ended = await env.client.wait_for_completion("c1")

        assert (ended.output, ended.replays) == (3, 2)
        assert counts == [0, 1]
        assert (await env.client.get_status("c1")).replays == 2
        assert [one.replays for one in (await env.client.query()).instances] == [2]


@AGAIN
async def test_the_count_goes_on_in_the_next_execution(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        await env.client.start_new("main", "c1", 3)
        for _ in range(3):
            await env.settled()
            await env.evict()
            await env.client.raise_event("c1", "Go")

        assert (await env.client.wait_for_completion("c1")).replays == 3


@CHANGED
async def test_a_replay_that_parks_the_instance_is_counted(orchestrator):
    async with environment(app_with(twice_async, assess)) as env:
        await env.client.start_new("main", "c1")
        await env.settled()
        await env.restart(app_with(orchestrator, assess))
        await env.settled()  # a worker that starts retries what is parked; nothing is yet
        await env.client.raise_event("c1", "Go", 1)
        await env.settled()
        parked = await env.client.get_status("c1")

        assert (parked.runtime_status, parked.is_parked, parked.replays) == (RuntimeStatus.Suspended, True, 1)
