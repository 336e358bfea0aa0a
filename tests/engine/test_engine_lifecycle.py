"""The engine around the orchestrations: other doors, other modes, and what outlives a bad end."""

import asyncio
import threading

import pytest

from perdure import (
    ActivityContext,
    App,
    Limits,
    OrchestrationContext,
    RuntimeStatus,
    Settings,
    SyncClient,
)
from perdure.engine import engine
from perdure.engine.upkeep.crash_file import StrikeFile
from perdure.store.memory import MemoryStore
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with, until

S = RuntimeStatus


def waits_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go"))


async def waits_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go")


WAITS = both(waits_yield, waits_async)


@WAITS
async def test_the_sync_client_has_the_same_verbs_from_a_plain_thread(orchestrator):
    async with environment(app_with(orchestrator)) as env:
        client = SyncClient(env.client, asyncio.get_running_loop())

        def work() -> object:
            instance = client.start_new("main", None, 1)
            client.raise_event(instance, "Go", 5)
            return client.wait_for_completion(instance).output

        assert await asyncio.to_thread(work) == 5
        assert client.task_hub == "claims"


@WAITS
async def test_an_engine_that_only_accepts_runs_nothing_and_loses_nothing(orchestrator, tmp_path):
    url = f"sqlite:///{tmp_path}/hub.db"
    app = app_with(orchestrator)
    async with app.running(store=url, accept_only=True) as client:
        await client.start_new("main", "c1", 1)
        await client.raise_event("c1", "Go", "accepted")
        assert (await client.get_status("c1")).runtime_status is S.Pending

    async with environment(app, store=url) as env:
        env.clock.move(2**53)
        await env.settled()
        assert (await env.client.get_status("c1")).output == "accepted"


def works_yield(context: OrchestrationContext):
    return (yield context.call_activity("work"))


async def works_async(context: OrchestrationContext):
    return await context.call_activity("work")


@both(works_yield, works_async)
async def test_the_result_of_an_activity_that_outlives_its_orchestration_is_dropped(orchestrator):
    release = asyncio.Event()

    async def work() -> str:
        try:
            await release.wait()
        except asyncio.CancelledError:
            return "late"

    async with environment(app_with(orchestrator, work)) as env:
        await env.client.start_new("main", "c1")
        await until(lambda: env.calls("work"))
        await env.client.terminate("c1")
        release.set()
        await env.settled()
        status = await env.client.get_status("c1", show_history=True)

        assert status.runtime_status is S.Terminated
        assert status.history[-1]["type"] == "ExecutionTerminated"
        await until(lambda: env.engine.health()["activities_dropped_results"] == 1)


@WAITS
async def test_more_than_the_memory_limit_is_put_away_and_comes_back(orchestrator):
    settings = Settings(limits=Limits(warm_bytes=50_000))
    async with environment(app_with(orchestrator, settings=settings)) as env:
        instances = [await env.client.start_new("main") for _ in range(100)]
        loop = env.engine.loop
        loop.idle_before = 1  # what upkeep does every few seconds: nobody is idle, but there are too many
        await env.settled()
        warm = env.engine.health()["warm"]
        for instance in instances:
            await env.client.raise_event(instance, "Go", instance)
        outputs = [(await env.client.wait_for_completion(instance)).output for instance in instances]

    assert warm < 20
    assert outputs == instances


@WAITS
async def test_an_instance_in_whose_code_the_process_died_three_times_is_parked(orchestrator, tmp_path):
    url, record = f"sqlite:///{tmp_path}/hub.db", f"{tmp_path}/hub.db.running"
    async with environment(app_with(orchestrator), store=url) as env:
        await env.client.start_new("main", "poison")
        await env.client.start_new("main", "healthy")
    for _ in range(3):
        strikes = StrikeFile(record)
        strikes.enter("poison")
        strikes._map.close()  # the process dies here

    async with environment(app_with(orchestrator), store=url) as env:
        await env.client.raise_event("poison", "Go", "kept")
        await env.client.raise_event("healthy", "Go", 1)
        assert (await env.client.wait_for_completion("healthy")).output == 1
        parked = await env.client.get_status("poison")
        await env.client.resume("poison")
        status = await env.client.wait_for_completion("poison")

    assert (parked.runtime_status, parked.reason) == (
        S.Suspended,
        "poison: the process died three times while its code was running",
    )
    assert status.output == "kept"


@pytest.mark.parametrize("deaths", [1, 2])
async def test_fewer_deaths_are_forgiven_once_it_has_run_again(deaths, tmp_path):
    url, record = f"sqlite:///{tmp_path}/hub.db", f"{tmp_path}/hub.db.running"
    async with environment(app_with(waits_async), store=url) as env:
        await env.client.start_new("main", "c1")
    for _ in range(deaths):
        strikes = StrikeFile(record)
        strikes.enter("c1")
        strikes._map.close()

    async with environment(app_with(waits_async), store=url) as env:
        await env.client.raise_event("c1", "Go", 1)
        assert (await env.client.wait_for_completion("c1")).output == 1

    strikes = StrikeFile(record)
    assert strikes.strikes == {}
    strikes.close()


class Tended(MemoryStore):
    """Notes what the thread for upkeep does."""

    def __init__(self) -> None:
        super().__init__("claims")
        self.tended = threading.Semaphore(0)

    def maintain(self, now: int) -> None:
        super().maintain(now)
        self.tended.release()


async def test_upkeep_comes_again_and_again(monkeypatch):
    """Without it a log is only moved by the next start, and answers and leases never expire."""
    monkeypatch.setattr(engine, "UPKEEP_EVERY", 0.001)
    store = Tended()
    async with app_with(waits_async).running(store=store, hub="claims"):
        for _ in range(3):
            assert await asyncio.to_thread(store.tended.acquire, timeout=20), "nobody tends the store"


class Watched(MemoryStore):
    """Tells, at each commit that ends an execution or cancels a call, whether the activity knows already."""

    def __init__(self, contexts: list[ActivityContext]) -> None:
        super().__init__("claims")
        self.contexts = contexts
        self.known: list[bool] = []

    def commit(self, batch):
        if any(b"Terminated" in row.events or b"Cancel" in row.events for row in batch.history):
            self.known += [context.is_cancelled for context in self.contexts]
        super().commit(batch)


@pytest.mark.parametrize("how", ["terminated", "cancelled"])
async def test_an_activity_is_cancelled_by_the_commit_that_says_so_and_not_before(how):
    """If that commit fails, the call is as open as it was."""
    contexts: list[ActivityContext] = []
    app = App("claims")

    @app.activity
    async def endless(context: ActivityContext) -> None:
        contexts.append(context)
        await asyncio.Event().wait()

    @app.orchestrator
    async def main(context: OrchestrationContext) -> str:
        call = context.call_activity(endless)
        await context.wait_for_external_event("Go")
        call.cancel()
        return "done"

    store = Watched(contexts)
    async with app.running(store=store, hub="claims") as client:
        instance = await client.start_new(main)
        while not contexts:
            await asyncio.sleep(0)
        await (client.terminate(instance) if how == "terminated" else client.raise_event(instance, "Go"))
        await client.wait_for_completion(instance, 60)
        while not contexts[0].is_cancelled:
            await asyncio.sleep(0)
    assert store.known == [False]
