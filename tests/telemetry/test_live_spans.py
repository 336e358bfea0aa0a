"""Each kind of span, as an exporter gets it while an application runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace

import perdure as df
from perdure.testing import environment
from tests.telemetry.collecting import Collected, id_of

SECRET = "0xDEADBEEF-payload"


def make_app(style: str) -> df.App:
    app = df.App("claims")

    @app.activity
    async def assess(claim: Any) -> str:
        trace.get_current_span().set_attribute("app.risk", "low")
        with trace.get_tracer("app").start_as_current_span("query"):
            return SECRET

    @app.activity
    def pay(claim: Any) -> str:
        trace.get_current_span().set_attribute("app.bank", "north")
        return SECRET

    @app.activity(retry=df.RetryPolicy(first_interval=60, max_attempts=2))
    def flaky(claim: Any, context: df.ActivityContext) -> str:
        if context.attempt == 1:
            raise ConnectionError("not now")
        return SECRET

    @app.entity
    def ledger(context: df.EntityContext) -> None:
        with trace.get_tracer("app").start_as_current_span("booking"):
            context.set_state(SECRET)

    if style == "async":

        @app.orchestrator
        async def child(context: df.OrchestrationContext) -> Any:
            return await context.call_activity(pay, context.get_input())

        @app.orchestrator
        async def office(context: df.OrchestrationContext) -> Any:
            claim = context.get_input()
            with trace.get_tracer("app").start_as_current_span("deciding"):
                await context.call_activity(assess, claim)
            await context.call_sub_orchestrator(child, claim)
            await context.call_activity(flaky, claim)
            await context.call_entity(df.EntityId("ledger", "north"), "book", claim)
            context.signal_entity(df.EntityId("ledger", "north"), "note", claim)
            await context.create_timer(timedelta(hours=1))
            context.set_custom_status(SECRET)
            return await context.wait_for_external_event("Approval")

    else:

        @app.orchestrator
        def child(context: df.OrchestrationContext) -> Any:
            return (yield context.call_activity(pay, context.get_input()))

        @app.orchestrator
        def office(context: df.OrchestrationContext) -> Any:
            claim = context.get_input()
            with trace.get_tracer("app").start_as_current_span("deciding"):
                yield context.call_activity(assess, claim)
            yield context.call_sub_orchestrator(child, claim)
            yield context.call_activity(flaky, claim)
            yield context.call_entity(df.EntityId("ledger", "north"), "book", claim)
            context.signal_entity(df.EntityId("ledger", "north"), "note", claim)
            yield context.create_timer(timedelta(hours=1))
            context.set_custom_status(SECRET)
            return (yield context.wait_for_external_event("Approval"))

    return app


async def run(app: df.App, *, disturbed: bool = False) -> str:
    async with environment(app) as env:
        with trace.get_tracer("app").start_as_current_span("request"):
            instance_id = await env.client.start_new("office", None, {"secret": SECRET})
        await env.advance(minutes=5)
        if disturbed:
            await env.evict()
            await env.restart()
        await env.advance(hours=2)
        if disturbed:
            await env.evict()
        await env.client.raise_event(instance_id, "Approval", SECRET)
        status = await env.client.wait_for_completion(instance_id)
        assert status.output == SECRET
        return instance_id


OFFICE = ["INTERNAL request", "PRODUCER create_orchestration:office", "SERVER orchestration:office"]
PATHS = [
    OFFICE[:1],
    OFFICE[:2],
    OFFICE,
    [*OFFICE, "CLIENT activity:assess"],
    [*OFFICE, "CLIENT activity:assess", "SERVER activity:assess"],
    [*OFFICE, "CLIENT activity:assess", "SERVER activity:assess", "INTERNAL query"],
    [*OFFICE, "INTERNAL deciding"],
    [*OFFICE, "CLIENT orchestration:child"],
    [*OFFICE, "CLIENT orchestration:child", "SERVER orchestration:child"],
    [*OFFICE, "CLIENT orchestration:child", "SERVER orchestration:child", "CLIENT activity:pay"],
    [
        *OFFICE,
        "CLIENT orchestration:child",
        "SERVER orchestration:child",
        "CLIENT activity:pay",
        "SERVER activity:pay",
    ],
    [*OFFICE, "CLIENT activity:flaky"],
    [*OFFICE, "CLIENT activity:flaky"],
    [*OFFICE, "CLIENT activity:flaky", "SERVER activity:flaky"],
    [*OFFICE, "CLIENT activity:flaky", "SERVER activity:flaky"],
    [*OFFICE, "INTERNAL orchestration:office:timer"],  # of the retry
    [*OFFICE, "INTERNAL orchestration:office:timer"],
    [*OFFICE, "CLIENT entity:ledger:book"],
    [*OFFICE, "CLIENT entity:ledger:book", "SERVER entity:ledger:book"],
    [*OFFICE, "CLIENT entity:ledger:book", "SERVER entity:ledger:book", "INTERNAL booking"],
    [*OFFICE, "PRODUCER entity:ledger:note"],
    [*OFFICE, "PRODUCER entity:ledger:note", "SERVER entity:ledger:note"],
    [*OFFICE, "PRODUCER entity:ledger:note", "SERVER entity:ledger:note", "INTERNAL booking"],
    [*OFFICE, "INTERNAL orchestration:office:wait:Approval"],
    ["PRODUCER orchestration_event:Approval"],
]


@pytest.mark.parametrize("style", ["async", "yield"])
@pytest.mark.parametrize("disturbed", [False, True], ids=["warm", "evicted and restarted"])
async def test_one_tree_has_one_trace_with_each_span_once(
    style: str, disturbed: bool, collected: Collected
) -> None:
    instance_id = await run(make_app(style), disturbed=disturbed)
    spans = collected.all()
    assert sorted(collected.path_of(span) for span in spans) == sorted(PATHS)
    assert len({id_of(span) for span in spans}) == len(spans)
    root = collected.one("orchestration:office")
    assert root.attributes["durabletask.task.instance_id"] == instance_id
    assert root.attributes["perdure.hub"] == "claims"
    [link] = collected.one("orchestration:office:wait:Approval").links
    assert link.context.span_id == id_of(collected.one("orchestration_event:Approval"))
    assert not [span.to_json() for span in spans if SECRET in span.to_json()]


async def test_the_body_of_an_activity_says_where_it_ran_and_how_it_ended(collected: Collected) -> None:
    await run(make_app("async"))
    on_loop, on_thread = collected.one("activity:assess", "SERVER"), collected.one("activity:pay", "SERVER")
    assert on_loop.attributes["app.risk"] == "low" and on_thread.attributes["app.bank"] == "north"
    assert (on_loop.attributes["perdure.host"], on_thread.attributes["perdure.host"]) == (
        "event loop",
        "thread",
    )
    assert on_loop.attributes["perdure.worker"] and on_loop.attributes["durabletask.type"] == "activity"
    assert on_loop.attributes["durabletask.task.status"] == "Completed"
    first, second = collected.named("activity:flaky", "SERVER")
    assert [first.attributes["perdure.attempt"], second.attributes["perdure.attempt"]] == [1, 2]
    assert first.status.status_code.name == "ERROR" and "not now" in first.status.description
    assert first.attributes["error.type"] == "ConnectionError"
    assert [event.name for event in first.events] == ["exception"]
    assert second.status.status_code.name == "UNSET"
