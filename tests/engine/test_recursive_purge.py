"""Purging an instance with its sub-orchestrations, whatever ids they have and whichever execution started them."""

from __future__ import annotations

from typing import Any

import pytest

from perdure import App, IllegalTransition, OrchestrationContext
from perdure.store import open_store
from perdure.testing import environment
from tests.core.styles import both

STORES = pytest.mark.parametrize("kind", ["memory", "sqlite", "encrypted", "postgres"])


def family_yield(context: OrchestrationContext):
    derived = [context.call_sub_orchestrator("child", n) for n in range(2)]
    own = context.call_sub_orchestrator("child", 2, f"{context.instance_id}:own")
    return (yield context.task_all([*derived, own]))


async def family_async(context: OrchestrationContext):
    derived = [context.call_sub_orchestrator("child", n) for n in range(2)]
    own = context.call_sub_orchestrator("child", 2, f"{context.instance_id}:own")
    return await context.task_all([*derived, own])


def eternal_yield(context: OrchestrationContext):
    n = context.get_input()
    yield context.call_sub_orchestrator("child", n, f"{context.instance_id}:{n}")
    if n < 3:
        context.continue_as_new(n + 1)


async def eternal_async(context: OrchestrationContext):
    n = context.get_input()
    await context.call_sub_orchestrator("child", n, f"{context.instance_id}:{n}")
    if n < 3:
        context.continue_as_new(n + 1)


def loose_yield(context: OrchestrationContext):
    context.call_sub_orchestrator("waits", None, f"{context.instance_id}:open")
    yield context.call_sub_orchestrator("child", 1, f"{context.instance_id}:done")


async def loose_async(context: OrchestrationContext):
    context.call_sub_orchestrator("waits", None, f"{context.instance_id}:open")
    await context.call_sub_orchestrator("child", 1, f"{context.instance_id}:done")


def app_of(orchestrator: Any) -> App:
    app = App("family")
    app.orchestrator(name="main")(orchestrator)

    @app.orchestrator
    async def child(context: OrchestrationContext, n: int) -> Any:
        await context.call_sub_orchestrator("leaf", n)
        return await context.call_sub_orchestrator("leaf", n, f"leaf of {context.instance_id}")

    @app.orchestrator
    async def leaf(context: OrchestrationContext, n: int) -> int:
        return n

    @app.orchestrator
    async def waits(context: OrchestrationContext) -> Any:
        await context.call_sub_orchestrator("leaf", 1, f"leaf of {context.instance_id}")
        return await context.wait_for_external_event("Go")

    return app


@pytest.fixture
def store(request: pytest.FixtureRequest, kind: str, tmp_path: Any) -> Any:
    if kind == "memory":
        return open_store("memory:", "family", None)
    if kind == "postgres":
        return open_store(request.getfixturevalue("newest_url"), "family", None)
    from perdure.store.encryption import Encryption, new_key

    keys = Encryption({"k": new_key()}) if kind == "encrypted" else None
    return open_store(f"sqlite:///{tmp_path}/hub.db", "family", keys)


async def left(env: Any) -> list[str]:
    return sorted(one.instance_id for one in (await env.client.query(top=1_000)).instances)


@STORES
@both(family_yield, family_async)
async def test_finished_sub_orchestrations_go_with_their_parent(orchestrator, store):
    async with environment(app_of(orchestrator), store=store) as env:
        await env.run("main", None, "p")
        await env.run("main", None, "other")
        purged = await env.client.purge_instance_history("p", recursive=True)
        rest = await left(env)

    assert purged == 1 + 3 + 6
    assert len(rest) == 10 and all("other" in one for one in rest)


@STORES
@both(eternal_yield, eternal_async)
async def test_those_of_executions_whose_history_is_gone_go_too(orchestrator, store):
    async with environment(app_of(orchestrator), store=store) as env:
        await env.run("main", 0, "p")
        purged = await env.client.purge_instance_history("p", recursive=True)
        rest = await left(env)

    assert (purged, rest) == (1 + 4 + 8, [])


@both(family_yield, family_async)
async def test_those_of_earlier_runs_of_the_id_go_too(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        for _ in range(3):
            await env.run("main", None, "p")
        assert len(await left(env)) > 20
        await env.client.purge_instance_history("p", recursive=True)

        assert [one for one in await left(env) if "::" not in one] == []
        assert await left(env) == []


@both(family_yield, family_async)
async def test_without_recursive_they_stay(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        await env.run("main", None, "p")
        assert await env.client.purge_instance_history("p") == 1
        assert len(await left(env)) == 9


@both(loose_yield, loose_async)
async def test_one_that_has_not_finished_stays_with_what_it_started(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        await env.run("main", None, "p")
        purged = await env.client.purge_instance_history("p", recursive=True)
        rest = await left(env)
        await env.client.raise_event("p:open", "Go")
        after = await env.client.wait_for_completion("p:open")

    assert purged == 1 + 1 + 2
    assert rest == ["leaf of p:open", "p:open"]
    assert after.runtime_status == "Completed"


@both(loose_yield, loose_async)
async def test_a_running_instance_is_refused_and_nothing_of_it_is_purged(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        await env.client.start_new("waits", "w")
        await env.settled()
        before = await left(env)
        with pytest.raises(IllegalTransition):
            await env.client.purge_instance_history("w", recursive=True)
        assert await env.client.purge_instance_history("nobody", recursive=True) == 0
        assert await left(env) == before


@both(family_yield, family_async)
async def test_an_instance_that_took_a_childs_id_is_a_stranger(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        await env.run("main", None, "p")
        await env.client.start_new("leaf", "p:own", 1)
        await env.client.wait_for_completion("p:own")
        await env.client.purge_instance_history("p", recursive=True)

        assert "p:own" in await left(env)


@both(family_yield, family_async)
async def test_in_bulk_it_is_the_same(orchestrator):
    async with environment(app_of(orchestrator)) as env:
        for name in ("a", "b"):
            await env.run("main", None, name)
        outcome = await env.client.bulk("purge", name="main", recursive=True)
        assert (outcome.done, await left(env)) == (2, [])
        await env.run("main", None, "c")
        assert await env.client.purge_instance_history_by(recursive=True) >= 1
        assert await left(env) == []
