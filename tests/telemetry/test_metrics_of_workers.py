"""Several workers of one hub: what each counts adds up, and what happens to leases is counted."""

import asyncio

import perdure as df
from perdure.model.instances import PARTITIONS
from perdure.telemetry.metrics import metrics_of
from tests.cluster.shop import Shop, Worker, shop


def application() -> df.App:
    app = df.App("shop")

    @app.activity
    async def price(amount: int) -> int:
        return amount

    @app.orchestrator
    async def order(context: df.OrchestrationContext, amount: int) -> int:
        return await context.call_activity(price, amount)

    @app.orchestrator
    async def waits(context: df.OrchestrationContext) -> str:
        return await context.wait_for_external_event("Go")

    return app


def read(worker: Worker, name: str) -> dict[tuple[str, ...], float]:
    """The series of a metric that are not 0; of a histogram the number of observations."""
    metrics = metrics_of(worker.engine.telemetry)
    assert metrics is not None
    found = {}
    for metric, series in metrics.read():
        if metric.name == name:
            for labels, value in series.items():
                number = value if isinstance(value, int | float) else sum(value.counts)
                if number:
                    found[labels] = number
    return found


def summed(opened: Shop, name: str) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for worker in opened.workers:
        for labels, value in read(worker, name).items():
            found[labels] = found.get(labels, 0) + value
    return found


async def test_each_start_end_and_attempt_is_counted_by_one_worker():
    async with shop(application(), {}, {}) as opened:
        await opened.shared_out()
        starts = [(opened[no % 2].client, f"order-{no}") for no in range(24)]
        for client, instance in starts:
            await client.start_new("order", instance, 5)
        await asyncio.gather(*(client.wait_for_completion(one, 30) for client, one in starts))
        await opened.until(
            lambda: summed(opened, "perdure.activity.attempts") == {("price", "completed"): 24}
        )

        assert summed(opened, "perdure.instance.started") == {("order", "client"): 24}
        assert summed(opened, "perdure.instance.ended") == {("order", "Completed", ""): 24}
        assert summed(opened, "perdure.instance.duration") == {("order", "Completed"): 24}
        assert all(read(one, "perdure.instance.ended") for one in opened.workers)
        # A gauge of the hub is the same at each worker.
        assert [read(one, "perdure.instances") for one in opened.workers] == [{("Completed",): 24}] * 2


async def test_a_takeover_is_counted_and_so_is_the_replay_that_it_causes():
    async with shop(application(), {}, {}) as opened:
        await opened.shared_out()
        first, second = opened[0], opened[1]
        instance = first.own_id("waits")
        await first.client.start_new("waits", instance)
        await opened.until(lambda: second.client.gateway.store.get(instance) is not None)
        first.kill()
        opened.clock.forward(120)
        await opened.until(lambda: second.owned == PARTITIONS)
        assert read(second, "perdure.worker.takeovers") == {(): 1}

        await second.client.raise_event(instance, "Go", "now")
        await second.client.wait_for_completion(instance, 30)
        assert read(second, "perdure.replays") == {("waits", "takeover"): 1}
        assert read(second, "perdure.worker.leases.lost") == {}


async def test_a_lost_lease_is_counted_by_the_worker_that_lost_it():
    async with shop(application(), {}, {"lease": 100_000.0}) as opened:
        await opened.shared_out()
        first, second = opened[0], opened[1]
        renew = first.store.renew
        first.store.renew = lambda: True  # type: ignore[method-assign]  # it believes so
        opened.clock.forward(120)
        second.engine.loop.sharing.membership.look_soon()  # type: ignore[union-attr]
        await opened.until(lambda: read(second, "perdure.worker.takeovers") == {(): 1})
        first.store.renew = renew  # type: ignore[method-assign]
        first.engine.loop.sharing.membership.look_soon()  # type: ignore[union-attr]
        first.engine.loop.nudge()
        await opened.until(lambda: read(first, "perdure.worker.leases.lost") == {(): 1})
        await opened.shared_out()
        assert read(second, "perdure.worker.leases.lost") == {}
