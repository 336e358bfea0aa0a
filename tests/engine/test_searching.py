"""Filters of a list and a count: with an index, and in a stretch of time without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

import perdure as df
from perdure.engine.client import searching
from perdure.errors import PayloadError
from perdure.model.records import InstanceFilter
from perdure.testing import DurableEnvironment, environment


def shop() -> df.App:
    app = df.App("shop")

    @app.activity
    async def charge(card: str) -> str:
        if card.startswith("bad"):
            raise ValueError(f"card {card} is refused")
        return card

    @app.orchestrator
    async def pay(context: df.OrchestrationContext, card: str) -> str:
        return await context.call_activity(charge, card)

    @app.orchestrator
    async def order(context: df.OrchestrationContext, seconds: int) -> str:
        await context.create_timer(timedelta(seconds=seconds))
        return await context.call_sub_orchestrator(pay, "good", "child")

    @app.schedule("0 * * * *")
    async def hourly(tick: df.Tick) -> None:
        pass

    return app


@pytest.fixture(params=["memory:", "sqlite"])
async def env(request: pytest.FixtureRequest, tmp_path: object) -> AsyncIterator[DurableEnvironment]:
    store = request.param if request.param != "sqlite" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(shop(), store=store) as env:
        for number, card in enumerate(("good", "bad-1", "Bad-2", "bad-3")):
            await env.client.start_new("pay", f"p-{number}", card.lower(), tags={"card": card[:3]})
            await env.advance(minutes=1)
        await env.client.start_new("order", "o-1", 90)
        await env.client.start_new("order", "o-2", 30)
        await env.advance(minutes=5)
        yield env


def ids(page: df.Page) -> list[str]:
    return [one.instance_id for one in page.instances]


async def test_by_the_text_of_a_failure(env: DurableEnvironment) -> None:
    client = env.client
    assert ids(await client.query(failure="REFUSED")) == ["p-3", "p-2", "p-1"]
    assert ids(await client.query(failure="bad-2", status="Failed")) == ["p-2"]
    assert ids(await client.query(failure="refused", status="Completed")) == []
    assert ids(await client.query(failure="refused", order="oldest", top=2)) == ["p-1", "p-2"]
    assert (await client.count(failure="refused")).count == 3
    assert (await client.bulk("rewind", dry_run=True, failure="bad-2")).examples == ["p-2"]
    assert (await client.bulk("purge", failure="bad-2")).done == 1
    assert ids(await client.query(failure="refused")) == ["p-3", "p-1"]


async def test_by_parent_and_by_end(env: DurableEnvironment) -> None:
    client, now = env.client, env.now
    assert ids(await client.query(parent="o-1")) == ["child"]
    assert {"o-1", "o-2", "child"} <= set(ids(await client.query(ended_from=now - timedelta(minutes=6))))
    assert ids(await client.query(ended_to=now - timedelta(minutes=7), built_in=False)) == [
        "p-2",
        "p-1",
        "p-0",
    ]
    assert (await client.count(ended_to=now - timedelta(minutes=7), built_in=False)).count == 3


async def test_perdures_own_orchestrations_are_left_out(env: DurableEnvironment) -> None:
    listed = await env.client.query()
    assert any(one.name.startswith("BuiltIn::") for one in listed.instances)
    assert not any(
        one.name.startswith("BuiltIn::") for one in (await env.client.query(built_in=False)).instances
    )
    assert (await env.client.count(built_in=False)).count < (await env.client.count()).count


async def test_every_order(env: DurableEnvironment) -> None:
    client = env.client
    newest = ids(await client.query(built_in=False))
    assert ids(await client.query(built_in=False, order="oldest")) == newest[::-1]
    assert ids(await client.query(built_in=False, order="duration"))[0] == "o-1"
    ended = (await client.query(built_in=False, order="ended")).instances
    assert [one.completed_time for one in ended] == sorted(
        (one.completed_time for one in ended), reverse=True
    )
    first = await client.query(built_in=False, order="oldest", top=2)
    after = await client.query(built_in=False, order="oldest", top=2, continuation=first.continuation)
    assert ids(first) + ids(after) == newest[::-1][:4]
    with pytest.raises(PayloadError, match="ordered by newest"):
        await client.query(order="name")  # type: ignore[arg-type]


async def test_a_search_without_an_index_says_how_far_it_came_and_goes_on(
    env: DurableEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PATIENCE", -1.0)
    monkeypatch.setattr(searching, "PART", 2)
    monkeypatch.setattr(searching, "FAILURES", 1)
    for which in ({"tags": {"card": "bad"}}, {"failure": "refused"}):
        found, page = [], await env.client.query(**which)  # type: ignore[arg-type]
        assert page.searched_from is not None
        while page.continuation is not None:
            found += ids(page)
            page = await env.client.query(**which, continuation=page.continuation)  # type: ignore[arg-type]
        found += ids(page)
        assert page.searched_from is None
        assert found == (["p-3", "p-1"] if "tags" in which else ["p-3", "p-2", "p-1"])
        counted = await env.client.count(**which)  # type: ignore[arg-type]
        assert counted.searched_from is not None and counted.count < len(found) + 1


async def test_gaps_between_numbers_are_skipped(
    env: DurableEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await env.client.purge_instance_history("p-1")
    monkeypatch.setattr(searching, "PART", 1)
    every = searching.search(env.store, InstanceFilter(name="pay")).rows
    assert [row.instance_id for row in every] == ["child", "p-3", "p-2", "p-0"]
