"""What `perdure run` says at its start of instances in flight that its application cannot run."""

from __future__ import annotations

from pathlib import Path

import pytest

import perdure as df
from perdure.cli.missing_functions import lacking
from perdure.store import open_store
from perdure.testing import environment


def whole() -> df.App:
    app = df.App("shop")

    @app.orchestrator
    async def order(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("Paid")

    @app.orchestrator(name="claim", version="1")
    async def claim(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("Decision")

    @app.orchestrator
    async def kept(context: df.OrchestrationContext) -> object:
        await context.wait_for_external_event("Go")
        return await context.call_activity("pay")

    @app.activity
    def pay() -> None:
        return None

    @app.entity
    def counter(context: df.EntityContext) -> None:
        context.set_state(1)

    return app


def lesser() -> df.App:
    app = df.App("shop")

    @app.orchestrator(name="claim", version="2")
    async def claim(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("Decision")

    @app.orchestrator
    async def kept(context: df.OrchestrationContext) -> object:
        await context.wait_for_external_event("Go")
        return await context.call_activity("pay")

    return app


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
async def test_each_function_that_is_lacking_is_named_with_how_many_need_it(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/hub.db" if kind == "sqlite" else "memory:"
    url = request.getfixturevalue("newest_url") if kind == "postgres" else url
    async with environment(whole(), store=open_store(url, "shop", None)) as env:
        for one in ("a", "b"):
            await env.client.start_new("order", one)
        await env.client.start_new("claim", "c")
        await env.client.start_new("kept", "k")
        await env.client.start_new("order", "finished")
        await env.client.terminate("finished")
        await env.client.signal_entity("@counter@idle", "add")
        await env.client.suspend("@counter@idle", "maintenance")
        await env.client.suspend("k")
        await env.settled()
        assert await lacking(env.client) == [], "what an operator holds is no matter of code"
        await env.client.resume("k")

        client = await env.restart(lesser())
        assert await lacking(client) == [
            "1 instance in flight needs 'claim 1', which this application lacks",
            "2 instances in flight need 'order', which this application lacks",
        ]
        await client.raise_event("k", "Go")
        await client.resume("@counter@idle")
        await env.settled()
        found = await lacking(client)

    assert "1 instance in flight needs 'pay', which this application lacks" in found
    assert not [line for line in found if "is parked" in line], "each is told once"


async def test_what_is_parked_for_another_reason_is_counted() -> None:
    app = df.App("shop")

    @app.orchestrator(name="order")
    async def changed(context: df.OrchestrationContext) -> None:
        await context.create_timer(1)

    async with environment(whole()) as env:
        await env.client.start_new("order", "a")
        client = await env.restart(app)
        await client.raise_event("a", "Paid")
        await env.settled()

        assert await lacking(client) == ["1 instance is parked: perdure list --parked"]
