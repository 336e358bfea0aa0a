"""Schedules on a virtual clock: ticks, restarts, missed ticks, overlap, and what operators do."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import perdure as df
from perdure.errors import InstanceNotFound, RegistrationError
from perdure.testing import environment
from perdure.triggers import Schedules

START = datetime(2026, 1, 1, tzinfo=UTC)


def hourly(**options: object) -> tuple[df.App, list[df.Tick]]:
    app = df.App("triggers")
    seen: list[df.Tick] = []

    @app.schedule("0 * * * *", name="hourly", **options)  # type: ignore[arg-type]
    async def run(tick: df.Tick) -> None:
        seen.append(tick)

    return app, seen


def hours(ticks: list[df.Tick]) -> list[int]:
    return [round((tick.scheduled_for - START) / timedelta(hours=1)) for tick in ticks]


async def test_a_function_runs_at_every_tick() -> None:
    app, seen = hourly()
    async with environment(app, start=START) as env:
        await env.advance(hours=3, minutes=10)
        assert hours(seen) == [1, 2, 3]
        assert not any(tick.is_past_due for tick in seen)
        status = await Schedules(env.client).get("hourly")
        assert status is not None
        assert (status.fired == 3 and status.words == "At every hour, at minute 0") or status.words
        assert status.next[0] == START + timedelta(hours=4)
        assert [fired.outcome for fired in status.recent] == ["done"] * 3


@pytest.mark.parametrize(
    ("policy", "expected", "skipped"), [("latest", [5], 4), ("all", [1, 2, 3, 4, 5], 0), ("skip", [], 5)]
)
async def test_ticks_missed_in_a_downtime(
    tmp_path: Path, policy: str, expected: list[int], skipped: int
) -> None:
    app, seen = hourly(catch_up=policy)
    url = f"sqlite:///{tmp_path}/hub.db"
    async with environment(app, store=url, start=START):
        pass
    async with environment(app, store=url, start=START + timedelta(hours=5, minutes=30)) as env:
        await env.settled()
        assert hours(seen) == expected
        assert all(tick.is_past_due for tick in seen)
        await env.advance(hours=1)
        assert hours(seen) == [*expected, 6]
        status = await Schedules(env.client).get("hourly")
        assert status is not None and status.skipped == skipped


async def test_a_hundred_ticks_and_evictions_make_no_long_history() -> None:
    app, seen = hourly()
    async with environment(app, start=START) as env:
        for _ in range(4):
            await env.advance(hours=25)
            await env.evict()
        await env.restart()
        await env.advance(hours=5)
        assert hours(seen) == list(range(1, 106))
        status = await env.client.get_status("schedule:hourly", show_history=True)
        assert status is not None and len(status.history or ()) < 900


@pytest.mark.parametrize(
    ("policy", "expected"), [("skip", [1, 4]), ("queue", [1, 2, 4]), ("allow", [1, 2, 3, 4])]
)
async def test_a_tick_that_finds_another_running(policy: str, expected: list[int]) -> None:
    app = df.App("overlap")
    seen: list[df.Tick] = []

    slow = df.RetryPolicy(first_interval=9_000, max_attempts=2)

    @app.schedule("0 * * * *", name="hourly", overlap=policy, retry=slow)  # type: ignore[arg-type]
    async def run(tick: df.Tick) -> None:
        seen.append(tick)
        if len(seen) == 1:
            raise RuntimeError("this firing takes until half past three")

    async with environment(app, start=START) as env:
        await env.advance(hours=4, minutes=15)
    assert sorted(set(hours(seen))) == expected


async def test_operators_pause_resume_run_and_backfill() -> None:
    app, seen = hourly()
    async with environment(app, start=START) as env:
        schedules = Schedules(env.client)
        await env.advance(hours=1)
        await schedules.pause("hourly", "year's end")
        await env.advance(hours=3)
        assert hours(seen) == [1]
        status = await schedules.get("hourly")
        assert status is not None and status.paused == "year's end" and not status.next
        await schedules.run("hourly")
        await env.settled()
        assert [tick.cause for tick in seen] == ["", "manual"]
        await schedules.resume("hourly")
        await env.advance(hours=1)
        assert hours(seen) == [1, 4, 5]
        asked = await schedules.backfill("hourly", START, START + timedelta(hours=4))
        await env.settled()
        assert asked == 4
        assert hours(seen)[3:] == [1, 2, 3, 4]
        assert {tick.cause for tick in seen[3:]} == {"backfill"}
        assert [one.name for one in await schedules.list()] == ["hourly"]
        with pytest.raises(InstanceNotFound, match="no schedule 'daily'"):
            await schedules.pause("daily")


async def test_a_deploy_changes_the_expression(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    app, seen = hourly()
    async with environment(app, store=url, start=START) as env:
        await env.advance(hours=1)
    later = df.App("triggers")

    @later.schedule("30 * * * *", name="hourly")
    async def run(tick: df.Tick) -> None:
        seen.append(tick)

    async with environment(later, store=url, start=START + timedelta(hours=1)) as env:
        await env.advance(hours=2)
        status = await Schedules(env.client).get("hourly")
        assert status is not None and status.cron == "30 * * * *"
    assert [f"{tick.scheduled_for:%H:%M}" for tick in seen] == ["01:00", "01:30", "02:30"]


async def test_what_a_body_starts_it_starts_once_though_it_runs_twice() -> None:
    app = df.App("once")
    started: list[str] = []

    @app.orchestrator
    async def report(context: df.OrchestrationContext) -> str:
        return "done"

    @app.schedule("0 * * * *", retry=df.RetryPolicy(first_interval=1, max_attempts=3))
    async def nightly(tick: df.Tick, client: df.Client) -> None:
        started.append(await client.start_new(report))
        started.append(await client.start_new(report))
        if len(started) < 5:
            raise RuntimeError("the process died here")

    async with environment(app, start=START) as env:
        await env.advance(hours=1, minutes=1)
        page = await env.client.query(name="report")
    assert len(started) == 6 and len(set(started)) == 2
    assert len(page.instances) == 2


async def test_a_plain_function_gets_the_blocking_client() -> None:
    app = df.App("plain")

    @app.orchestrator
    def report(context: df.OrchestrationContext) -> str:
        return "done"

    @app.schedule("0 * * * *")
    def nightly(client: df.SyncClient) -> str:
        return client.start_new(report)

    async with environment(app, start=START) as env:
        await env.advance(hours=1)
        await asyncio.sleep(0)
        assert len((await env.client.query(name="report")).instances) == 1


def test_what_cannot_be_scheduled_is_refused_when_decorated() -> None:
    app = df.App("refused")
    with pytest.raises(RegistrationError, match="not a cron expression"):
        app.schedule("every day")(lambda: None)
    with pytest.raises(RegistrationError, match="not a time zone"):
        app.schedule("0 2 * * *", timezone="Mars/Olympus")(lambda: None)
    with pytest.raises(RegistrationError, match="catch_up must be one of"):
        app.schedule("0 2 * * *", catch_up="never")(lambda: None)  # type: ignore[arg-type]
    app.schedule("0 2 * * *", name="one")(lambda: None)
    with pytest.raises(RegistrationError, match="already taken"):
        app.schedule("0 3 * * *", name="one")(lambda: None)
