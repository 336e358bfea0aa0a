"""What a hub did in the last hour and day, without reading an instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

import perdure as df
from perdure.errors import PayloadError
from perdure.model.ring import BOUNDS, Ended
from perdure.model.statistics import quantile
from perdure.testing import DurableEnvironment, environment


def shop() -> df.App:
    app = df.App("shop")

    @app.orchestrator(events={"Paid": bool})
    async def order(context: df.OrchestrationContext, amount: int) -> str:
        if amount < 0:
            raise ValueError("an amount is positive")
        await context.wait_for_external_event("Paid", bool)
        return "sent"

    @app.schedule("0 * * * *")
    async def hourly(tick: df.Tick) -> None:
        pass

    return app


@pytest.fixture
async def env() -> AsyncIterator[DurableEnvironment]:
    async with environment(shop()) as env:
        yield env


async def test_the_last_hour_by_minute(env: DurableEnvironment) -> None:
    for number in range(4):
        await env.client.start_new("order", f"o-{number}", 10)
    await env.client.start_new("order", "bad", -1)
    await env.advance(minutes=5)
    for number in range(2):
        await env.client.raise_event(f"o-{number}", "Paid", True)
    await env.client.terminate("o-2", "enough")
    await env.settled()

    found = await env.client.statistics()

    assert (found.window, found.seconds, len(found.intervals)) == ("hour", 60, 60)
    assert (found.total.started, found.total.completed) == (5, 2)
    assert (found.total.failed, found.total.terminated, found.total.ended) == (1, 1, 4)
    first, last = found.intervals[-6], found.intervals[-1]
    assert (first.started, first.failed, first.completed) == (5, 1, 0)
    assert (last.started, last.completed, last.terminated) == (0, 2, 1)
    assert [one.unfinished - found.intervals[-2].unfinished for one in found.intervals[-6:]] == [0] * 5 + [-3]
    assert last.p50 is not None and 60 < last.p50 <= 300
    assert (
        found.counts
        == await env.client.counts(built_in=False)
        == {"Running": 1, "Completed": 2, "Failed": 1, "Terminated": 1}
    )
    assert all(a.start < b.start for a, b in zip(found.intervals, found.intervals[1:], strict=False))


async def test_the_last_day_by_hour_forgets_older_hours(env: DurableEnvironment) -> None:
    await env.client.start_new("order", "old", -1)
    await env.advance(hours=30)
    await env.client.start_new("order", "new", -1)
    await env.settled()

    found = await env.client.statistics("day")

    assert (found.seconds, len(found.intervals)) == (3600, 24)
    assert found.total.failed == 1
    assert [one.failed for one in found.intervals] == [0] * 23 + [1]


async def test_own_orchestrations_are_no_part_of_what_is_counted_by_orchestrator(
    env: DurableEnvironment,
) -> None:
    await env.client.start_new("order", "bad", -1)
    await env.advance(hours=2)

    found = await env.client.statistics("day")

    assert list(found.orchestrators) == ["order"]
    assert found.orchestrators["order"].failed == found.total.failed == 1
    assert found.total.started == 1


async def test_counts_without_perdures_own_stay_exact(env: DurableEnvironment) -> None:
    """While a schedule fires, its firings are purged, and the engine starts again."""
    for hour in range(3):
        await env.client.start_new("order", f"o-{hour}", hour - 1)
        await env.advance(hours=1)
        if hour == 1:
            assert (await env.client.bulk("purge", status="Completed", created_to=env.now)).done
            await env.restart()
        own = (await env.client.query(built_in=False, top=1_000)).instances
        assert await env.client.counts(built_in=False) == Counter(one.runtime_status for one in own)
        every = (await env.client.query(top=1_000)).instances
        assert len(every) > len(own)
        assert await env.client.counts() == Counter(one.runtime_status for one in every)


async def test_replays_are_counted_where_they_happen(env: DurableEnvironment) -> None:
    for number in range(3):
        await env.client.start_new("order", f"o-{number}", 10)
    await env.advance(minutes=2)
    await env.restart()
    for number in range(3):
        await env.client.raise_event(f"o-{number}", "Paid", True)
    await env.settled()

    found = (await env.client.statistics()).intervals
    assert found[-1].replays >= 3 and found[-3].replays == 0


async def test_another_window_is_refused(env: DurableEnvironment) -> None:
    with pytest.raises(PayloadError, match="last hour or day"):
        await env.client.statistics("week")  # type: ignore[arg-type]


def test_a_quantile_lies_in_its_bucket() -> None:
    ended = Ended(100, 0.0, {0: 50, 5: 45, len(BOUNDS): 5})

    assert quantile(Ended(), 0.5) is None
    assert quantile(ended, 0.5) == BOUNDS[0]
    assert quantile(ended, 0.95) == BOUNDS[5]
    assert quantile(ended, 0.99) == BOUNDS[-1]
    assert quantile(Ended(2, 0.0, {0: 2}), 0.5) == BOUNDS[0] / 2
