"""A wait in a test that nothing can end any more fails with what is waited for."""

import asyncio
import threading

import pytest

from perdure import EntityId, OrchestrationContext
from perdure.testing import NothingCanHappen, environment, idleness
from tests.core.styles import both
from tests.engine.programs import app_with


@pytest.fixture(autouse=True)
def _threads_of_other_tests_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries leave threads behind; each of these would be given ten seconds to act."""
    left = (thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    monkeypatch.setattr(idleness, "_OURS", (*idleness._OURS, *left))


def waits_yield(context: OrchestrationContext):
    yield context.create_timer(60)
    return (yield context.wait_for_external_event("Decision"))


async def waits_async(context: OrchestrationContext):
    await context.create_timer(60)
    return await context.wait_for_external_event("Decision")


@both(waits_yield, waits_async)
async def test_run_fails_when_nobody_raises_the_event(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        with pytest.raises(NothingCanHappen, match=r"'w'.*waiting for the event 'Decision'"):
            await env.run("main", None, "w")
        with pytest.raises(TimeoutError, match="'Decision'"):
            await env.client.wait_for_completion("w")
        await env.client.raise_event("w", "Decision", 7)
        assert (await env.client.wait_for_completion("w")).output == 7


@both(waits_yield, waits_async)
async def test_every_wait_of_a_group_fails(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        several = await asyncio.gather(env.run("main"), env.run("main"), return_exceptions=True)
        assert [type(one) for one in several] == [NothingCanHappen, NothingCanHappen]


@both(waits_yield, waits_async)
async def test_a_task_that_is_going_to_act_keeps_the_wait_alive(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        running = asyncio.create_task(env.run("main", None, "w"))
        await env.advance(seconds=61)
        await asyncio.to_thread(int)
        await asyncio.sleep(0.01)
        await env.client.raise_event("w", "Decision", 7)
        assert (await running).output == 7


async def test_what_is_not_registered_is_named():
    async def calls(context: OrchestrationContext):
        await context.call_activity("paye")

    async def asks(context: OrchestrationContext):
        await context.call_entity(EntityId("desk", "a"), "any")

    async def spawns(context: OrchestrationContext):
        await context.call_sub_orchestrator("chidl")

    for orchestrator, missing in ((calls, "paye"), (asks, "desk"), (spawns, "chidl")):
        async with environment(app_with(orchestrator)) as env:
            with pytest.raises(NothingCanHappen, match=missing):
                await env.run("main")


async def test_a_suspended_instance_is_waited_for_in_vain():
    async with environment(app_with(waits_async)) as env:
        await env.client.start_new("main", "w")
        await env.client.suspend("w", "for an audit")
        with pytest.raises(NothingCanHappen, match="Suspended.*audit"):
            await env.client.wait_for_completion("w")


async def test_under_wait_for_it_fails_as_well():
    async with environment(app_with(waits_async)) as env:
        with pytest.raises(NothingCanHappen):
            await asyncio.wait_for(env.run("main"), 600)


async def test_a_wait_with_a_timeout_of_its_own_is_left_alone():
    async with environment(app_with(waits_async)) as env:
        await env.client.start_new("main", "w")
        with pytest.raises(TimeoutError) as found:
            await env.client.wait_for_completion("w", timeout=0.05)
    assert not isinstance(found.value, NothingCanHappen)
