"""Which trace an execution belongs to: that of its caller, or one of its own with a link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import perdure as df
from perdure.model.span_ids import trace_id_of
from perdure.testing import environment
from tests.telemetry.collecting import Collected, collecting, id_of

START = datetime(2026, 1, 1, tzinfo=UTC)
TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
TRACEPARENT = f"00-{TRACE:032x}-{SPAN:016x}-01"


def trace_of(span: Any) -> int:
    return int(span.context.trace_id)


def scheduled() -> df.App:
    app = df.App("triggers")

    @app.orchestrator
    async def report(context: df.OrchestrationContext) -> None:
        pass

    @app.schedule("0 * * * *", name="hourly")
    async def hourly(tick: df.Tick, client: df.Client) -> None:
        await client.start_new(report)

    return app


async def test_each_run_of_a_schedule_is_a_trace_of_its_own(collected: Collected) -> None:
    async with environment(scheduled(), start=START) as env:
        await env.advance(hours=3, minutes=10)
    runs = collected.named("orchestration:BuiltIn::Firing", "SERVER")
    calls = {id_of(span): span for span in collected.named("orchestration:BuiltIn::Firing", "CLIENT")}
    reports = collected.named("orchestration:report")
    assert len({trace_of(run) for run in runs}) == 3 and len(calls) == 3
    for run in runs:
        assert run.parent is None
        instance_id, execution_id = (
            run.attributes[f"durabletask.task.{n}"] for n in ("instance_id", "execution_id")
        )
        assert trace_of(run) == trace_id_of(instance_id, execution_id)
        [link] = run.links
        assert trace_of(calls[link.context.span_id]) == link.context.trace_id != trace_of(run)
    assert [trace_of(one) for one in reports] == [trace_of(run) for run in runs]
    assert collected.path_of(reports[0]) == [
        "SERVER orchestration:BuiltIn::Firing",
        "CLIENT activity:BuiltIn::Firing:hourly",
        "SERVER activity:BuiltIn::Firing:hourly",
        "PRODUCER create_orchestration:report",
        "SERVER orchestration:report",
    ]


async def test_what_an_activity_starts_with_its_client_is_below_its_span(collected: Collected) -> None:
    app = df.App("clients")

    @app.orchestrator
    async def started(context: df.OrchestrationContext) -> None: ...

    @app.activity
    async def on_loop(client: df.Client) -> None:
        await client.start_new(started, "from-the-loop")

    @app.activity
    def on_thread(client: df.SyncClient) -> None:
        client.start_new(started, "from-a-thread")

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> None:
        await context.call_activity(on_loop)
        await context.call_activity(on_thread)

    async with environment(app) as env:
        await env.run(main)
        await env.settled()
    paths = {collected.path_of(one)[-3] for one in collected.named("orchestration:started")}
    assert paths == {"SERVER activity:on_loop", "SERVER activity:on_thread"}


async def test_the_sampler_decides_about_each_run_of_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting(monkeypatch, sampler=ALWAYS_OFF) as spans:
        async with environment(scheduled(), start=START) as env:
            await env.advance(hours=2, minutes=10)
    assert spans.all() == []


class Queue:
    """A broker with these messages."""

    name = "orders"

    def __init__(self, *messages: df.Received) -> None:
        self.left = list(messages)
        self.acknowledged: list[str] = []
        self.all_done = asyncio.Event()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        yield

    async def receive(self, most: int) -> list[df.Received]:
        taken, self.left = self.left[:most], self.left[most:]
        if not taken:
            await self.all_done.wait()
            await asyncio.Event().wait()
        return taken

    async def acknowledge(self, message: df.Received) -> None:
        self.acknowledged.append(message.message_id)
        if len(self.acknowledged) == 2:
            self.all_done.set()

    async def give_back(self, message: df.Received) -> None: ...
    async def bury(self, message: df.Received, reason: str) -> None: ...
    async def keep(self, message: df.Received) -> None: ...


async def test_a_message_continues_the_trace_that_it_carries_and_no_other(collected: Collected) -> None:
    source = Queue(
        df.Received("1", b"1", attributes={"traceparent": TRACEPARENT, "tracestate": "congo=1"}),
        df.Received("2", b"2"),
    )
    app = df.App("queues")

    @app.queue(source)
    async def order(body: int) -> None: ...

    with trace.get_tracer("app").start_as_current_span("the program"):
        async with app.running(store="memory:"):
            async with asyncio.timeout(60):
                await source.all_done.wait()
    carried, plain = collected.named("create_orchestration:BuiltIn::Message")
    assert (trace_of(carried), carried.parent.span_id) == (TRACE, SPAN)
    assert plain.parent is None and trace_of(plain) != trace_of(collected.one("the program"))
    assert {trace_of(span) for span in collected.named("activity:BuiltIn::Message:orders", "SERVER")} == {
        TRACE,
        trace_of(plain),
    }


async def test_the_next_execution_is_a_trace_of_its_own_that_links_to_the_one_before(
    collected: Collected,
) -> None:
    app = df.App("eternal")

    @app.orchestrator
    async def count(context: df.OrchestrationContext, n: int) -> int:
        await context.create_timer(60)
        if n < 3:
            context.continue_as_new(n + 1)
        return n

    async with environment(app) as env:
        status = await env.run(count, 1)
        assert status.output == 3
    first, second, third = collected.named("orchestration:count")
    assert len({trace_of(one) for one in (first, second, third)}) == 3
    for before, after in ((first, second), (second, third)):
        [link] = after.links
        assert (link.context.trace_id, link.context.span_id) == (trace_of(before), id_of(before))
        assert after.parent is None
    timers = collected.named("orchestration:count:timer")
    assert [trace_of(timer) for timer in timers] == [trace_of(one) for one in (first, second, third)]
    assert [one.attributes["durabletask.task.status"] for one in (first, second, third)] == [
        "ContinuedAsNew",
        "ContinuedAsNew",
        "Completed",
    ]


@pytest.mark.parametrize("offload", [False, True], ids=["on the loop", "offloaded"])
@pytest.mark.parametrize("style", ["function", "class"])
async def test_what_an_entity_starts_and_signals_is_part_of_the_trace(
    style: str, offload: bool, collected: Collected
) -> None:
    app = df.App("entities")

    @app.orchestrator
    async def started(context: df.OrchestrationContext) -> None: ...

    def act(context: df.EntityContext) -> None:
        if context.operation_name == "begin":
            context.signal_entity(df.EntityId("worker", "2"), "end")
            context.start_new(started)
        context.set_state(context.operation_name)

    if style == "function":

        @app.entity(name="worker", offload=offload)
        def worker(context: df.EntityContext) -> None:
            act(context)

    else:

        @app.entity(name="worker", offload=offload)
        class Worker:
            done: str = ""

            def begin(self, context: df.EntityContext) -> None:
                context.signal_entity(df.EntityId("worker", "2"), "end")
                context.start_new(started)
                self.done = "begin"

            def end(self) -> None:
                self.done = "end"

    async with environment(app) as env:
        with trace.get_tracer("app").start_as_current_span("caller"):
            await env.client.signal_entity(df.EntityId("worker", "1"), "begin")
        await env.settled()
    signal = ["INTERNAL caller", "PRODUCER entity:worker:begin"]
    begun = collected.one("entity:worker:begin", "SERVER")
    assert collected.path_of(begun) == [*signal, "SERVER entity:worker:begin"]
    above = signal if offload else collected.path_of(begun)
    assert collected.path_of(collected.one("entity:worker:end", "SERVER"))[: len(above)] == above
    assert collected.path_of(collected.one("orchestration:started"))[: len(above)] == above
    for name in ("begin", "end"):
        operation = collected.one(f"entity:worker:{name}", "SERVER")
        assert operation.attributes["durabletask.type"] == "entity"
        assert operation.attributes["durabletask.task.operation"] == name
        assert operation.attributes["durabletask.task.name"] == "worker"


async def test_an_operation_that_fails_has_an_error(collected: Collected) -> None:
    app = df.App("entities")

    @app.entity
    def account(context: df.EntityContext) -> None:
        raise PermissionError("closed")

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> str:
        try:
            await context.call_entity(df.EntityId("account", "1"), "book")
        except Exception as error:
            return str(error)
        return ""

    async with environment(app) as env:
        assert "closed" in (await env.run(main)).output
    for kind in ("CLIENT", "SERVER"):
        span = collected.one("entity:account:book", kind)
        assert span.status.status_code.name == "ERROR" and "closed" in span.status.description
    assert collected.one("orchestration:main").status.status_code.name == "OK"


async def test_a_rewind_adds_spans_and_changes_none(collected: Collected) -> None:
    app = df.App("rewinds")
    broken = [True]

    @app.activity
    async def charge() -> str:
        if broken:
            raise ConnectionError("down")
        return "paid"

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> str:
        return await context.call_activity(charge)

    async with environment(app) as env:
        instance_id = await env.client.start_new(main)
        await env.client.wait_for_completion(instance_id)
        broken.clear()
        await env.client.rewind(instance_id)
        assert (await env.client.wait_for_completion(instance_id)).output == "paid"
    first, second = collected.named("orchestration:main")
    assert [one.attributes["perdure.rewound"] for one in (first, second)] == [0, 1]
    assert [one.status.status_code.name for one in (first, second)] == ["ERROR", "OK"]
    assert id_of(first) != id_of(second) and trace_of(first) == trace_of(second)
    bodies = collected.named("activity:charge", "SERVER")
    assert [collected.path_of(body)[-3:] for body in bodies] == [
        ["SERVER orchestration:main", "CLIENT activity:charge", "SERVER activity:charge"]
    ] * 2
    assert [id_of(collected.parent_of(collected.parent_of(body))) for body in bodies] == [
        id_of(first),
        id_of(second),
    ]


@pytest.mark.parametrize("is_cold", [False, True])
async def test_a_terminated_instance_ends_its_open_parts(is_cold: bool, collected: Collected) -> None:
    app = df.App("ends")

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> None:
        await context.wait_for_external_event("never")

    async with environment(app) as env:
        instance_id = await env.client.start_new(main)
        await env.settled()
        if is_cold:
            await env.restart()
            await env.evict()
        await env.client.terminate(instance_id, "enough")
    root = collected.one("orchestration:main")
    assert root.status.status_code.name == "UNSET"
    assert root.attributes["durabletask.task.status"] == "Terminated"
    wait = collected.one("orchestration:main:wait:never")
    assert wait.attributes["durabletask.task.status"] == "Canceled"
    assert collected.parent_of(wait) == root


async def test_a_tree_begun_without_telemetry_stays_without_spans(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    app = df.App("late")

    @app.activity
    async def work() -> None: ...

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> None:
        await context.wait_for_external_event("go")
        await context.call_activity(work)

    async with environment(app) as env:
        instance_id = await env.client.start_new(main)
        await env.settled()
        with collecting(monkeypatch) as spans:
            await env.restart()
            await env.client.raise_event(instance_id, "go")
            await env.client.wait_for_completion(instance_id)
            await env._leave()
            assert [span.name for span in spans.all()] == ["orchestration_event:go"]
