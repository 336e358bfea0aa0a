"""The clock of workers that share a database is the database's, also when that is set."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

import perdure as df
from perdure.engine.clock import SharedClock
from tests.cluster.shop import shop

SECOND = 1_000_000


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the monotonic clock."""
    at = [100.0]
    monkeypatch.setattr("perdure.engine.clock.time.monotonic", lambda: at[0])

    def move(seconds: float) -> None:
        at[0] += seconds

    return move


def test_it_goes_on_between_two_answers_and_not_back_for_a_little(moved: Callable[[float], None]) -> None:
    clock = SharedClock()
    clock.heard(1_000 * SECOND, clock.monotonic())
    moved(2.0)
    assert clock.now() == 1_002 * SECOND
    clock.heard(1_001 * SECOND + SECOND // 2, clock.monotonic())
    assert clock.now() == 1_002 * SECOND
    moved(1.0)
    assert clock.now() == 1_002 * SECOND + SECOND // 2


def test_a_database_whose_clock_was_set_back_is_followed(moved: Callable[[float], None]) -> None:
    clock = SharedClock()
    clock.heard(9_000 * SECOND, clock.monotonic())
    assert clock.now() == 9_000 * SECOND
    clock.heard(1_000 * SECOND, clock.monotonic())
    assert clock.now() == 1_000 * SECOND
    moved(1.0)
    assert clock.now() == 1_001 * SECOND


async def test_a_hub_goes_on_when_its_databases_clock_is_set_back() -> None:
    app = df.App("clocks")

    @app.orchestrator(events={"Go": int})
    async def waiting(context: df.OrchestrationContext) -> int:
        return await context.wait_for_external_event("Go", int, timeout=timedelta(days=1))

    async with shop(app, {}, {}) as opened:
        await opened.shared_out()
        mine = opened[0].own_id()
        await opened[0].client.start_new("waiting", mine)
        before = opened[1].engine.now()
        opened.clock.forward(-3_600)
        await opened.until(lambda: all(one.engine.now() < before - 3_000 * SECOND for one in opened.workers))
        opened[1].store.notify = lambda _: None  # type: ignore[method-assign, assignment]
        await opened[1].client.raise_event(mine, "Go", 7)
        assert (await opened[1].client.wait_for_completion(mine, 20)).output == 7
