"""`replays`: how often an instance's code was recreated from its history, as its status counts it."""

import pytest

from perdure import OrchestrationContext, RuntimeStatus
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


def assess() -> str:
    return "assessed"


def refuse() -> None:
    raise ValueError("refused")


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


def failing_yield(context: OrchestrationContext):
    yield context.call_activity("refuse")
    return (yield context.wait_for_external_event("Go"))


async def failing_async(context: OrchestrationContext):
    await context.call_activity("refuse")
    return await context.wait_for_external_event("Go")


def told_of(status) -> tuple[int, str]:
    return status.replays, status.replay_reason


TWICE, AGAIN, CHANGED, FAILING = (
    both(twice_yield, twice_async),
    both(again_yield, again_async),
    both(changed_yield, changed_async),
    both(failing_yield, failing_async),
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
        told = [told_of(await client.get_status("c1"))]
        await env.evict()
        await client.raise_event("c1", "Go", 1)
        await env.settled()
        told.append(told_of(await client.get_status("c1")))
        await env.restart()
        await env.client.raise_event("c1", "Go", 2)
        ended = await env.client.wait_for_completion("c1")

        assert (ended.output, ended.replays) == (3, 2)
        assert told == [(0, ""), (1, "evicted")]
        assert told_of(await env.client.get_status("c1")) == (2, "restart")
        assert [told_of(one) for one in (await env.client.query()).instances] == [(2, "restart")]


@TWICE
async def test_an_eviction_after_a_restart_is_told_as_one(orchestrator):
    async with environment(app_with(orchestrator, assess)) as env:
        await env.client.start_new("main", "c1")
        await env.settled()
        await env.restart()
        await env.advance(seconds=1)
        await env.client.raise_event("c1", "Go", 1)
        await env.settled()
        await env.evict()
        await env.client.raise_event("c1", "Go", 2)

        assert told_of(await env.client.wait_for_completion("c1")) == (2, "evicted")


@FAILING
async def test_a_rewind_and_a_resume_are_reasons(orchestrator):
    async with environment(app_with(orchestrator, refuse)) as env:
        await env.client.start_new("main", "c1")
        await env.client.wait_for_completion("c1")
        mended = app_with(orchestrator)
        mended.activity(name="refuse")(assess)
        await env.restart(mended)
        await env.client.rewind("c1", "mended")
        await env.settled()
        rewound = told_of(await env.client.get_status("c1"))
        await env.client.suspend("c1")
        await env.evict()
        await env.client.resume("c1")
        await env.client.raise_event("c1", "Go", 1)
        ended = await env.client.wait_for_completion("c1")

        assert rewound == (1, "rewind")
        assert told_of(ended) == (2, "resume")


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
