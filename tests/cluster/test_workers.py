"""Several workers on one hub: whatever worker a client talks to, the answers are those of one engine."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

import perdure as df
from perdure.model.instances import PARTITIONS, partition_of
from tests.cluster.shop import Shop, shop

Status = df.OrchestrationStatus


def application() -> df.App:
    app = df.App("shop")

    @app.activity
    async def add(n: int) -> int:
        return n + 1

    @app.orchestrator
    async def child(context: df.OrchestrationContext, n: int) -> int:
        return await context.call_activity(add, n)

    @app.orchestrator(events={"Go": int})
    async def flow(context: df.OrchestrationContext, n: int) -> int:
        first = await context.call_activity(add, n)
        go = await context.wait_for_external_event("Go", int, timeout=timedelta(hours=1))
        # An id of its own, so that the child is often another worker's.
        return first + await context.call_sub_orchestrator(child, go, f"child-of-{context.instance_id}")

    @app.orchestrator
    async def family(context: df.OrchestrationContext, size: int) -> int:
        return sum(await context.task_all([context.call_sub_orchestrator(child, n) for n in range(size)]))

    @app.entity
    def counter(context: df.EntityContext) -> None:
        if context.operation_name == "add":
            context.set_state((context.get_state() or 0) + context.get_input())
        context.set_result(context.get_state())

    @app.orchestrator
    async def counting(context: df.OrchestrationContext, names: list[str]) -> list[int]:
        ids = [df.EntityId("counter", name) for name in names]
        async with context.lock(*ids):
            return [await context.call_entity(one, "add", 1) for one in ids]

    return app


TWO: tuple[dict[str, Any], ...] = ({}, {}, {"accept_only": True})


async def started(opened: Shop, ids: list[str]) -> None:
    workers = opened.workers
    await asyncio.gather(
        *(workers[n % len(workers)].client.start_new("flow", one, n) for n, one in enumerate(ids))
    )


async def test_a_client_of_any_worker_starts_raises_and_waits() -> None:
    async with shop(application(), *TWO) as opened:
        await opened.shared_out()
        ids = [f"claim-{n}" for n in range(60)]
        await started(opened, ids)
        await asyncio.gather(
            *(opened[(n + 1) % 3].client.raise_event(one, "Go", 5) for n, one in enumerate(ids))
        )
        done = await asyncio.gather(
            *(opened[(n + 2) % 3].client.wait_for_completion(one, 20) for n, one in enumerate(ids))
        )
        assert [status.output for status in done] == [n + 1 + 6 for n in range(60)]
        assert len({partition_of(one, PARTITIONS) for one in ids}) > 20


async def test_refusals_of_an_owner_reach_the_client_of_another_worker() -> None:
    async with shop(application(), *TWO) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[1].client.start_new("flow", mine, 1)
        for worker in opened.workers[1:]:
            client = worker.client
            with pytest.raises(df.EventRefused, match="admits 'Go'"):
                await client.raise_event(mine, "Stop", 5)
            with pytest.raises(df.EventRefused, match="shape"):
                await client.raise_event(mine, "Go", "five")
            with pytest.raises(df.InstanceExists):
                await client.start_new("flow", mine, 1)
            with pytest.raises(df.InstanceNotFound):
                await client.raise_event(opened[0].own_id("nobody"), "Go", 5)
            with pytest.raises(df.IllegalTransition):
                await client.purge_instance_history(mine)
            assert await client.start_new("flow", mine, 1, on_existing="return_existing") == mine
        await opened[2].client.suspend(mine, "stop")
        assert (await _status(opened, mine)).runtime_status == "Suspended"
        await opened[1].client.raise_event(mine, "Go", 1)  # kept until it is resumed
        await opened[2].client.resume(mine)
        assert (await opened[2].client.wait_for_completion(mine, 20)).output == 4
        with pytest.raises(df.InstanceFinished):
            await opened[1].client.raise_event(mine, "Go", 5)
        await opened[1].client.start_new("flow", mine, 2)  # the owner replaces what has finished
        await opened[1].client.terminate(mine, "enough")
        assert (await opened[2].client.wait_for_completion(mine, 20)).runtime_status == "Terminated"
        assert await opened[2].client.purge_instance_history(mine) == 1
        assert await opened[1].client.get_status(mine) is None


async def _status(opened: Shop, instance_id: str) -> Status:
    found = await opened[0].client.get_status(instance_id)
    assert found is not None
    return found


async def test_an_operation_repeated_at_another_worker_counts_once() -> None:
    async with shop(application(), *TWO) as opened:
        await opened.shared_out()
        for n in range(12):
            one = f"claim-{n}"
            for worker in opened.workers:
                await worker.client.start_new("flow", one, n, operation_id=f"start-{n}")
            for worker in opened.workers:
                await worker.client.raise_event(one, "Go", 1, event_id=f"go-{n}")
            status = await opened[n % 3].client.wait_for_completion(one, 20)
            history = (await opened[0].client.get_status(one, show_history=True)).history  # type: ignore[union-attr]
            assert status.output == n + 1 + 2
            assert sum(event["type"] == "EventRaised" for event in history or ()) == 1
        assert opened[0].store.dropped(None, 10) == []


async def test_an_orchestration_that_runs_again_calls_its_children_by_the_same_ids_at_any_worker() -> None:
    async with shop(application(), {}, {}, {}) as opened:
        await opened.shared_out()
        for again in range(3):
            ids = [f"claim-{n}" for n in range(30)]  # each has a child `child-of-...`, often another worker's
            await started(opened, ids)
            await asyncio.gather(
                *(opened[n % 3].client.raise_event(one, "Go", again) for n, one in enumerate(ids))
            )
            done = await asyncio.gather(
                *(opened[n % 3].client.wait_for_completion(one, 20) for n, one in enumerate(ids))
            )
            assert [status.output for status in done] == [n + 1 + again + 1 for n in range(30)]


async def test_one_start_of_an_id_wins_whoever_asks() -> None:
    async with shop(application(), {}, {}, {}) as opened:
        await opened.shared_out()
        for n in range(40):
            answers = await asyncio.gather(
                *(opened[k % 3].client.start_new("flow", f"round-{n}", k) for k in range(24)),
                return_exceptions=True,
            )
            assert Counter(type(answer).__name__ for answer in answers) == {"str": 1, "InstanceExists": 23}
            winner = next(k for k, answer in enumerate(answers) if isinstance(answer, str))
            await opened[n % 3].client.raise_event(f"round-{n}", "Go", 1)
            status = await opened[0].client.wait_for_completion(f"round-{n}", 20)
            assert status.output == winner + 1 + 2


async def test_ids_that_a_worker_makes_up_are_its_own() -> None:
    async with shop(application(), {}, {}) as opened:
        await opened.shared_out()
        for worker in opened.workers:
            made = [worker.engine.new_instance_id() for _ in range(50)]
            assert len(set(made)) == 50
            assert not any(worker.engine._territory.is_elsewhere(one) for one in made)  # type: ignore[union-attr]


@pytest.mark.parametrize(("size", "spreads"), [(10, False), (300, True)])
async def test_a_large_family_spreads_and_a_small_one_stays(size: int, spreads: bool) -> None:
    async with shop(application(), {}, {}) as opened:
        await opened.shared_out()
        root = opened[0].own_id("root")
        await opened[0].client.start_new("family", root, size)
        assert (await opened[1].client.wait_for_completion(root, 20)).output == size * (size + 1) // 2
        page = await opened[0].client.query(name="child", top=1_000)
        homes = {partition_of(child.instance_id, PARTITIONS) for child in page.instances}
        assert len(page.instances) == size
        assert (len(homes) > 16) == spreads
        assert spreads or homes == {partition_of(root, PARTITIONS)}


async def test_entities_and_critical_sections_across_workers() -> None:
    async with shop(application(), *TWO) as opened:
        await opened.shared_out()
        names = [f"n{n}" for n in range(6)]
        ids = [await opened[n % 3].client.start_new("counting", f"counting-{n}", names) for n in range(12)]
        done = await asyncio.gather(*(opened[0].client.wait_for_completion(one, 20) for one in ids))
        seen = sorted(tuple(status.output) for status in done)
        assert seen == [(n,) * 6 for n in range(1, 13)]
        await opened[2].client.signal_entity(df.EntityId("counter", "n0"), "add", 5)

        async def state() -> Any:
            return (await opened[1].client.read_entity_state(df.EntityId("counter", "n0"))).state

        async with asyncio.timeout(60):
            while await state() != 17:
                await asyncio.sleep(0.002)


async def test_the_audit_log_names_who_asked_at_another_worker() -> None:
    from perdure.engine.core.audit import NOTE, AuditNote

    async with shop(application(), {}, {}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[0].client.start_new("flow", mine, 1)
        token = NOTE.set(AuditNote("ada", "127.0.0.1"))
        try:
            await opened[1].client.suspend(mine, "a look")
        finally:
            NOTE.reset(token)
        rows = await opened[0].client.audit()
        assert [(row.who, row.operation, row.instance_id) for row in rows.records] == [
            ("ada", "suspend", mine)
        ]


async def test_a_name_counts_at_every_worker_for_its_verb_and_its_target() -> None:
    async with shop(application(), *TWO) as opened:
        await opened.shared_out()
        ids = [opened[0].own_id("one"), opened[1].own_id("two"), opened[0].own_id("three")]
        name = "webhook-1"
        for one in ids:
            for worker in opened.workers:
                await worker.client.start_new("flow", one, 1, operation_id=name)
        for n, one in enumerate(ids):
            for worker in opened.workers:
                await worker.client.raise_event(one, "Go", n, event_id=name)
        done = [await opened[2].client.wait_for_completion(one, 20) for one in ids]
        assert [status.output for status in done] == [3, 4, 5]

        for worker in opened.workers:
            for one in ids:
                with pytest.raises(df.IdempotencyConflict):
                    await worker.client.raise_event(one, "Go", 9, event_id=name)
                with pytest.raises(df.IdempotencyConflict):
                    await worker.client.start_new("flow", one, 9, operation_id=name)
        for n, one in enumerate(ids):
            assert await opened[n % 3].client.purge_instance_history(one, operation_id=name) == 1
        assert [await opened[0].client.get_status(one) for one in ids] == [None] * 3


async def test_an_entity_that_some_worker_has_can_be_signalled_through_any_and_one_that_none_has_cannot() -> (
    None
):
    whole, bare = application(), df.App("shop")

    @bare.orchestrator
    async def nothing(context: df.OrchestrationContext) -> None:
        return None

    async with shop(whole, {}) as opened:
        beside = opened[0].store.beside()
        async with bare.running(store=beside, lease=60.0, worker_name="bare") as client:
            await opened.until(lambda: client.gateway._membership.other_workers)  # type: ignore[attr-defined]
            await client.signal_entity("@counter@a", "add", 1)
            with pytest.raises(df.FunctionNotFound):
                await client.signal_entity("@counterr@a", "add", 1)


async def test_who_waits_for_an_entity_that_is_set_aside_says_so() -> None:
    async with shop(application(), {}) as opened:
        await opened[0].client.signal_entity("@counter@a", "add", 1)
        await opened[0].client.suspend("@counter@a", "a look")
        await opened[0].client.start_new("counting", "c", ["a"])
        status = await _status(opened, "c")
        async with asyncio.timeout(60):
            while "on hold" not in status.waiting_for:
                status = await _status(opened, "c")
    assert (
        status.waiting_for
        == "waiting for the lock of the entity @counter@a, which is on hold (operator: a look)"
    )
