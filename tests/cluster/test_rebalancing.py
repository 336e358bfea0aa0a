"""Partitions move: to workers that come, from workers that leave, and from those that are taken for dead."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import perdure as df
from perdure.errors import FenceLost
from perdure.model.instances import PARTITIONS
from perdure.model.records import Batch
from perdure.store.memory import MemoryStore
from tests.cluster.shop import DatabaseTime, Shop, Worker, shop


class Works:
    """What ran, and a gate that bodies wait at."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.gate = threading.Event()

    def body(self, name: str) -> str:
        self.begun[name] += 1
        assert self.gate.wait(30)
        self.ended[name] += 1
        return name


@pytest.fixture
def works() -> Iterator[Works]:
    made = Works()
    yield made
    made.gate.set()


def application(works: Works) -> df.App:
    app = df.App("moving")

    @app.activity
    def slow(name: str) -> str:
        return works.body(name)

    @app.activity(pool="gpu")
    def render(name: str) -> str:
        return works.body(name)

    @app.orchestrator
    async def one(context: df.OrchestrationContext) -> str:
        return await context.call_activity(slow, context.instance_id)

    @app.orchestrator
    async def rendering(context: df.OrchestrationContext) -> str:
        return await context.call_activity(render, context.instance_id)

    @app.orchestrator
    async def many(context: df.OrchestrationContext, size: int) -> list[str]:
        return await context.task_all([context.call_activity(slow, f"part-{n}") for n in range(size)])

    @app.entity(offload=True)
    def keeper(context: df.EntityContext) -> None:
        works.body("keeper")
        context.set_state((context.get_state() or 0) + 1)
        context.set_result(context.get_state())

    @app.orchestrator
    async def keeping(context: df.OrchestrationContext) -> int:
        return await context.call_entity(df.EntityId("keeper", "k"), "keep")

    return app


async def joined(opened: Shop, app: df.App, name: str, **settings: Any) -> tuple[Any, Worker]:
    """One more worker."""
    store = opened[0].store.beside()
    running = app.running(store=store, lease=60.0, worker_name=name, **settings)
    worker = Worker(name, store, await running.__aenter__())
    opened.workers.append(worker)
    return running, worker


async def test_what_runs_when_partitions_move_is_not_run_again(works: Works) -> None:
    app = application(works)
    async with shop(app, {}) as opened:
        await opened.shared_out()
        ids = [f"claim-{n}" for n in range(12)]
        for one in ids:
            await opened[0].client.start_new("one", one)
        await opened[0].client.start_new("keeping", "keeping")
        await opened.until(lambda: len(works.begun) == 13)
        running, second = await joined(opened, app, "second")
        await opened.shared_out()
        moved = [one for one in ids if opened[0].engine._territory.is_elsewhere(one)]  # type: ignore[union-attr]
        assert moved
        works.gate.set()
        done = await asyncio.gather(*(second.client.wait_for_completion(one, 20) for one in ids))
        assert [status.output for status in done] == ids
        assert (await second.client.wait_for_completion("keeping", 20)).output == 1
        assert set(works.begun.values()) == {1}
        await running.__aexit__(None, None, None)


async def test_a_worker_that_leaves_finishes_what_it_runs_and_nothing_runs_twice(works: Works) -> None:
    app = application(works)
    async with shop(app, {}) as opened:
        running, _ = await joined(opened, app, "second", drain=30.0)
        await opened.shared_out()
        ids = [f"claim-{n}" for n in range(12)]
        for one in ids:
            await opened[0].client.start_new("one", one)
        await opened.until(lambda: len(works.begun) == 12)
        leaving = asyncio.create_task(running.__aexit__(None, None, None))
        await opened.until(lambda: opened[0].owned == PARTITIONS)  # its partitions go at once
        assert not leaving.done()
        works.gate.set()
        await leaving
        done = await asyncio.gather(*(opened[0].client.wait_for_completion(one, 20) for one in ids))
        assert [status.output for status in done] == ids
        assert set(works.begun.values()) == {1}
        states = {one.worker: one.state for one in opened[0].store.census().workers}
        assert states == {"worker-0": "living"}


async def test_a_dead_worker_is_taken_over_when_its_lease_has_run_out(works: Works) -> None:
    app = application(works)
    async with shop(app, {}, {}) as opened:
        await opened.shared_out()
        mine = opened[1].own_id()
        await opened[0].client.start_new("one", mine)
        await opened.until(lambda: works.begun[mine] == 1)
        opened[1].kill()
        assert opened[0].owned == PARTITIONS // 2
        opened.clock.forward(61)
        await opened.until(lambda: opened[0].owned == PARTITIONS)
        await opened.until(
            lambda: works.begun[mine] == 2
        )  # at least once: its first run was not known to end
        works.gate.set()
        assert (await opened[0].client.wait_for_completion(mine, 20)).output == mine
        history = (await opened[0].client.get_status(mine, show_history=True)).history  # type: ignore[union-attr]
        assert [event["type"] for event in history or ()].count("TaskCompleted") == 1


async def test_a_worker_taken_for_dead_commits_nothing_and_registers_anew(works: Works) -> None:
    works.gate.set()
    async with shop(application(works), {}, {}) as opened:
        await opened.shared_out()
        stale = opened[1]
        before = stale.engine._territory.incarnation  # type: ignore[union-attr]
        mine = stale.own_id()
        opened.clock.forward(61)  # neither has renewed: whoever looks first takes over from the other
        await opened.until(
            lambda: {opened[0].owned, opened[1].owned} == {PARTITIONS // 2} and _changed(opened, before)
        )
        assert await opened[0].client.start_new("one", mine) == mine
        assert (await opened[1].client.wait_for_completion(mine, 20)).output == mine


def _changed(opened: Shop, before: int) -> bool:
    incarnations = [one.engine._territory.incarnation for one in opened.workers]  # type: ignore[union-attr]
    return max(incarnations) > before


async def test_a_stale_incarnation_is_fenced() -> None:
    clock = DatabaseTime()
    first = MemoryStore("fenced", clock)
    second = first.beside()
    from perdure.store.port import Profile

    for store, name in ((first, "first"), (second, "second")):
        store.register(Profile(name, "worker", (), "{}", 1_000_000))
    stale = first.open().incarnation
    first.take([1, 2])
    second.open()
    clock.forward(2)
    assert second.void(stale)
    with pytest.raises(FenceLost):
        first.commit(Batch(1, partitions_released=[1]))
    assert not first.renew()
    assert first.reopen().owned == frozenset()


async def test_a_fan_out_spills_over_to_whoever_has_free_slots(works: Works) -> None:
    app = application(works)
    where: Counter[str] = Counter()
    async with shop(app, {"threads": 4}, {"threads": 4}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id("many")
        await opened[0].client.start_new("many", mine, 40)
        for worker in opened.workers:
            await opened.until(lambda w=worker: w.engine.health()["activities_running"] == 4)
            where[worker.name] = worker.engine.health()["activities_running"]
        assert where == {"worker-0": 4, "worker-1": 4}
        works.gate.set()
        done = await opened[1].client.wait_for_completion(mine, 20)
        assert done.output == [f"part-{n}" for n in range(40)]
        assert set(works.begun.values()) == {1}
        assert opened[0].store._tables.activities in (
            {},
            {key: {} for key in opened[0].store._tables.activities},
        )


async def test_claims_of_a_dead_worker_are_claimed_again_and_its_late_result_is_dropped(works: Works) -> None:
    app = application(works)
    async with shop(app, {"threads": 2}, {"threads": 2}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id("many")
        await opened[0].client.start_new("many", mine, 6)
        await opened.until(lambda: opened[1].engine.health()["activities_running"] == 2)
        opened[1].kill()
        opened.clock.forward(61)
        await opened.until(lambda: opened[0].owned == PARTITIONS)
        works.gate.set()
        done = await opened[0].client.wait_for_completion(mine, 20)
        assert done.output == [f"part-{n}" for n in range(6)]
        history = (await opened[0].client.get_status(mine, show_history=True)).history  # type: ignore[union-attr]
        assert [event["type"] for event in history or ()].count("TaskCompleted") == 6


async def test_a_named_pool_runs_where_it_is_served_and_waits_visibly_while_it_is_not(works: Works) -> None:
    works.gate.set()
    app = application(works)
    async with shop(app, {}) as opened:
        await opened.shared_out()
        await opened[0].client.start_new("rendering", "film")
        await opened.until(lambda: opened[0].store._tables.activities)
        status = await opened[0].client.get_status("film")
        assert status is not None
        assert status.waiting_for == "waiting for the activity 'render' (pool gpu, which no worker serves)"
        assert not works.begun
        running, _ = await joined(opened, app, "second", pool=["gpu"])
        assert (await opened[0].client.wait_for_completion("film", 20)).output == "film"
        assert works.begun == {"film": 1}
        await running.__aexit__(None, None, None)
