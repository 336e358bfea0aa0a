"""Copying a hub: instances in every state move to another store and finish there as if nothing had been."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure as df
from perdure.engine.upkeep.verification import verify
from perdure.store import open_store
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore
from perdure.store.transfer import TABLES, UNFINISHED
from perdure.testing import environment

HOUR = timedelta(hours=1)


def app_of(*, complete: bool = True) -> df.App:
    """`complete=False` lacks an orchestrator, whose instances are then parked."""
    app = df.App("claims")
    gate = {"open": complete}

    @app.activity(retry=df.RetryPolicy(first_interval=3_600, max_attempts=5))
    def flaky(text: str) -> str:
        if not gate["open"]:
            raise ConnectionError("not yet")
        return text.upper()

    @app.orchestrator
    async def waiting(context: df.OrchestrationContext) -> Any:
        context.set_custom_status("asking")
        first = await context.wait_for_external_event("First")
        return [first, await context.wait_for_external_event("Second")]

    @app.orchestrator
    def sleeping(context: df.OrchestrationContext):  # type: ignore[no-untyped-def]
        yield context.create_timer(24 * HOUR)
        return "awake"

    @app.orchestrator
    async def retrying(context: df.OrchestrationContext) -> str:
        return await context.call_activity(flaky, "x" * 30_000)

    @app.orchestrator
    async def family(context: df.OrchestrationContext) -> Any:
        return await context.task_all(
            context.call_sub_orchestrator("waiting", None, "child"), context.call_sub_orchestrator("sleeping")
        )

    @app.orchestrator
    async def eternal(context: df.OrchestrationContext) -> int:
        turn: int = context.get_input() or 0
        await context.create_timer(HOUR)
        if turn < 30:
            context.continue_as_new(turn + 1)
        return turn

    @app.orchestrator
    def broken(context: df.OrchestrationContext) -> None:
        raise ValueError("broken")

    if complete:

        @app.orchestrator
        async def missing(context: df.OrchestrationContext) -> str:
            return "found"

    return app


async def fill(store: Any) -> None:
    """A hub with instances that wait, sleep, retry, are held, delayed, parked, in families, finished."""
    async with environment(app_of(), store=store) as env:
        client = env.client
        await client.start_new("missing", "parked", start_at=env.now + HOUR)
    async with environment(app_of(complete=False), store=store) as env:
        client = env.client
        await client.start_new("waiting", "waiting", tags={"region": "eu"})
        await client.raise_event("waiting", "First", 1)
        await client.raise_event("waiting", "Early", "nobody waits for it")
        for name in ("sleeping", "retrying", "family", "eternal"):
            await client.start_new(name, name, operation_id=f"start-{name}")
        await client.start_new("waiting", "held")
        await client.suspend("held", "audit")
        await client.raise_event("held", "First", 1)
        await client.start_new("sleeping", "delayed", start_at=env.now + 48 * HOUR)
        await client.start_new("broken", "failed")
        await client.start_new("waiting", "terminated")
        await client.raise_event("terminated", "Unwanted", 1)
        await client.terminate("terminated", "enough")
        await env.advance(hours=3, minutes=30)
        assert (await client.get_status("parked")).reason.startswith("no_worker")


async def picture(client: df.Client) -> dict[str, Any]:
    """What a client sees of everything, without what tells one store from another."""
    page = await client.query(top=1_000, show_input=True)
    return {
        one.instance_id: (
            one,
            (await client.get_status(one.instance_id, True, True, True)).history,  # type: ignore[union-attr]
        )
        for one in page.instances
    }


async def finish(env: Any) -> dict[str, Any]:
    client = env.client
    await client.resume("held")
    for one in ("waiting", "held", "child"):
        await client.raise_event(one, "First", 1)
        await client.raise_event(one, "Second", 2)
    await env.advance(days=10)
    return {one.instance_id: (one.runtime_status, one.output) for one in (await client.query()).instances}


def places(kind: str, tmp_path: Path) -> tuple[Any, Any]:
    made = {
        "sqlite to sqlite": lambda: (f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"),
        "sqlite to memory": lambda: (f"sqlite:///{tmp_path}/a.db", MemoryStore("claims")),
        "memory to sqlite": lambda: (MemoryStore("claims"), SqliteStore(f"{tmp_path}/b.db", "claims")),
    }
    return made[kind]()


@pytest.mark.parametrize("kind", ["sqlite to sqlite", "sqlite to memory", "memory to sqlite"])
async def test_instances_in_every_state_finish_where_they_were_copied_to(kind: str, tmp_path: Path) -> None:
    source, destination = places(kind, tmp_path)
    await fill(source)
    told: list[tuple[str, int, int]] = []
    made = await asyncio.to_thread(df.copy, source, destination, progress=lambda *step: told.append(step))

    assert made.report.ok
    assert made.rows["instances"] == made.report.instances >= 12
    assert all(made.rows[name] for name in TABLES if name not in ("keys", "audit"))
    checks = {"instances to copy checked", "instances checked"}
    assert {what for what, _, _ in told} == {*(n for n in TABLES if made.rows[n]), *checks}
    async with environment(app_of(complete=False), store=source) as env:
        expected = await picture(env.client)
    async with environment(app_of(complete=False), store=destination) as env:
        assert await picture(env.client) == expected
        # An operation that was accepted before the move is still known after it.
        assert await env.client.start_new("sleeping", "sleeping", operation_id="start-sleeping") == "sleeping"
        assert [row.name for row in env.store.dropped("terminated", 9)] == ["Unwanted"]
    start = max(status.last_updated_time for status, _ in expected.values())
    async with environment(app_of(), store=destination, start=start) as env:
        there = await finish(env)
        assert verify(env.store).problems == []
    async with environment(app_of(), store=source, start=start) as env:
        here = await finish(env)

    assert there == here
    assert there["waiting"] == (df.RuntimeStatus.Completed, [1, 2])
    assert there["held"] == (df.RuntimeStatus.Completed, [1, 2])
    assert there["retrying"] == (df.RuntimeStatus.Completed, "X" * 30_000)
    assert there["family"] == (df.RuntimeStatus.Completed, [[1, 2], "awake"])
    assert there["eternal"] == (df.RuntimeStatus.Completed, 30)
    assert there["delayed"] == (df.RuntimeStatus.Completed, "awake")
    assert there["parked"] == (df.RuntimeStatus.Completed, "found")
    assert there["terminated"] == (df.RuntimeStatus.Terminated, "enough")
    assert there["failed"][0] is df.RuntimeStatus.Failed


async def test_a_hub_that_is_served_is_not_copied(tmp_path: Path) -> None:
    a, b = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    async with app_of().running(store=a), app_of().running(store=b):
        with pytest.raises(df.StoreInUse):
            df.copy(a, f"sqlite:///{tmp_path}/c.db")
    async with app_of().running(store=b):
        with pytest.raises(df.StoreInUse):
            df.copy(a, b)
    df.copy(a, b)  # nothing was left locked


async def test_a_destination_that_has_instances_is_left_alone(tmp_path: Path) -> None:
    a, b = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    await fill(a)
    async with app_of().running(store=b) as client:
        await client.start_new("waiting", "mine")
    with pytest.raises(df.StoreUnusable, match=r"not empty: it has 1 instance already"):
        df.copy(a, b)
    async with app_of().running(store=b) as client:
        assert [one.instance_id for one in (await client.query()).instances] == ["mine"]


async def test_several_hubs_may_share_the_destination(tmp_path: Path) -> None:
    a, b = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    await fill(a)
    async with df.App("other").running(store=b, accept_only=True) as client:
        await client.start_new("elsewhere", "waiting")
    made = df.copy(a, b)
    async with environment(app_of(), store=open_store(b, "claims")) as env:
        assert sum((await env.client.counts()).values()) == made.rows["instances"]
    assert verify(open_store(b, "other")).instances == 1


async def test_a_copy_that_is_cut_off_is_not_there_and_can_be_done_again(tmp_path: Path) -> None:
    a, b = f"sqlite:///{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db"
    await fill(a)

    def cut(what: str, done: int, total: int) -> None:
        if what == "inbox":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        df.copy(a, b, progress=cut)
    store: Store = open_store(b, "claims")
    assert store.counts() == {}
    store.close_reader()
    assert df.copy(a, b).report.ok
    again: Store = open_store(b, "claims" + UNFINISHED)
    assert again.counts() == {}


@pytest.mark.parametrize(
    ("source", "destination", "hub", "why"),
    [
        ("none.db", "b.db", None, "no database"),
        ("a.db", "a.db", None, "into itself"),
        ("a.db", "b.db", "other", "no hub 'other'"),
        ("a.db", "ftp://elsewhere", None, "cannot open a store"),
    ],
)
async def test_what_cannot_be_copied_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, destination: str, hub: str | None, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with app_of().running(store="a.db"):
        pass
    with pytest.raises(df.StoreUnusable, match=why):
        df.copy(source, destination, hub=hub)
