"""W3C trace context: into the hub through every door, and out to code, bodies and other servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, TraceIdRatioBased
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.host import application
from perdure.http.remote.client import RemoteClient
from perdure.outbound import HttpPolicy
from perdure.testing import environment
from tests.access.conftest import ADMIN, as_key
from tests.cluster.shop import shop
from tests.http.conftest import LOCAL, make_app
from tests.outbound.conftest import Server, answer
from tests.telemetry import elsewhere
from tests.telemetry.collecting import Collected, collecting, id_of

TRACE, SPAN = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
SENT = {
    "traceparent": f"00-{TRACE:032x}-{SPAN:016x}-01",
    "tracestate": "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
}


def served_app() -> df.App:
    app = make_app()

    @app.route("/orders", methods=["POST"])
    async def order(request: Request, client: df.Client) -> object:
        with trace.get_tracer("app").start_as_current_span("taking the order"):
            return {"id": await client.start_new("echo", None, "x")}

    @app.route("/open", methods=["POST"], auth="anonymous")
    async def anyone(request: Request, client: df.Client) -> object:
        return {"id": await client.start_new("echo", None, "x")}

    @app.entity
    def counter(context: df.EntityContext) -> None:
        context.set_state(1)

    return app


DOORS: dict[str, Callable[[TestClient, dict[str, str]], Any]] = {
    "create_orchestration:echo": lambda http, headers: http.post(
        f"{M}/orchestrators/echo", json=1, headers=headers
    ),
    "orchestration_event:anything at all": lambda http, headers: http.post(
        f"{M}/instances/waits/raiseEvent/anything%20at%20all", json=1, headers=headers
    ),
    "entity:counter:add": lambda http, headers: http.post(
        f"{M}/entities/counter/k?op=add", json=1, headers=headers
    ),
    "create_orchestration:BuiltIn::Message": lambda http, headers: http.post(
        f"{M}/queues/orders", json=1, headers=headers
    ),
}


def knock(door: str, headers: dict[str, str], **settings: Any) -> None:
    host = served_app().asgi(store="memory:", admin_key=ADMIN, **settings)
    with TestClient(host, base_url=LOCAL) as http:
        if "event" in door:
            assert http.post(f"{M}/orchestrators/open_door/waits", headers=as_key(ADMIN)).status_code == 202
        found = DOORS[door](http, headers)
        assert found.status_code == 202, found.text


@pytest.mark.parametrize("door", DOORS)
def test_the_trace_of_a_caller_with_a_key_is_the_parent(door: str, collected: Collected) -> None:
    knock(door, {**SENT, **as_key(ADMIN)})
    span = collected.one(door, "PRODUCER")
    assert (span.context.trace_id, span.parent.span_id) == (TRACE, SPAN)
    assert span.context.trace_state.to_header() == SENT["tracestate"]
    assert not span.links


@pytest.mark.parametrize("door", DOORS)
def test_the_trace_of_a_caller_without_a_key_is_a_link(door: str, collected: Collected) -> None:
    knock(door, SENT, access="open")
    span = collected.one(door, "PRODUCER")
    assert span.parent is None and span.context.trace_id != TRACE
    assert [(link.context.trace_id, link.context.span_id) for link in span.links] == [(TRACE, SPAN)]


@pytest.mark.parametrize("trust", ["all", "none"])
def test_the_setting_says_whom_to_trust(trust: str, collected: Collected) -> None:
    door = "create_orchestration:echo"
    knock(door, {**SENT, **as_key(ADMIN)}, trust_traceparent=trust)
    knock(door, SENT, access="open", trust_traceparent=trust)
    spans = collected.named(door)
    assert [span.context.trace_id == TRACE for span in spans] == [trust == "all"] * 2
    assert [len(span.links) for span in spans] == [0 if trust == "all" else 1] * 2


def test_strangers_cannot_switch_tracing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting(monkeypatch, sampler=ALWAYS_OFF) as spans:
        knock("create_orchestration:echo", SENT, access="open")
    assert spans.all() == []


def test_a_route_runs_within_the_trace_of_its_caller(collected: Collected) -> None:
    host = served_app().asgi(store="memory:", admin_key=ADMIN)
    with TestClient(host, base_url=LOCAL) as http:
        assert http.post("/api/orders", headers={**SENT, **as_key(ADMIN)}).status_code == 200
        assert http.post("/api/open", headers=SENT).status_code == 200
    with_key, without = collected.named("create_orchestration:echo")
    [code] = collected.named("taking the order")
    assert (code.context.trace_id, code.parent.span_id) == (TRACE, SPAN)
    assert with_key.parent.span_id == id_of(code)
    assert without.parent is None and without.links[0].context.trace_id == TRACE


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": "nonsense"},
        {"traceparent": f"00-{0:032x}-{SPAN:016x}-01"},
        {"traceparent": f"ff-{TRACE:032x}-{SPAN:016x}-01"},
        {"traceparent": SENT["traceparent"] + "-more"},
    ],
    ids=["no trace", "zero", "version ff", "too long"],
)
def test_a_header_that_is_no_trace_is_ignored(headers: dict[str, str], collected: Collected) -> None:
    knock("create_orchestration:echo", {**headers, **as_key(ADMIN)})
    span = collected.one("create_orchestration:echo")
    assert span.parent is None and not span.links


@pytest.mark.parametrize(
    "state", ["no pair", "a=1,a=2", "A=1", "a=\x7f", ",".join(f"k{n}=1" for n in range(33)), "a=1,=2"]
)
@pytest.mark.parametrize("has_key", [True, False])
def test_a_tracestate_that_is_not_valid_is_dropped_without_a_word(
    state: str, has_key: bool, collected: Collected, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"traceparent": SENT["traceparent"], "tracestate": state}
    if has_key:
        knock("create_orchestration:echo", {**headers, **as_key(ADMIN)})
    else:
        knock("create_orchestration:echo", headers, access="open")
    span = collected.one("create_orchestration:echo")
    assert (span.context.trace_id == TRACE) == has_key
    assert not span.context.trace_state
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_a_remote_client_sends_its_current_span(collected: Collected) -> None:
    async with make_app().running(store="memory:") as local:
        transport = httpx2.ASGITransport(app=application(local))
        async with RemoteClient(LOCAL, transport=transport) as remote:
            with trace.get_tracer("app").start_as_current_span("caller") as caller:
                await remote.start_new("echo", None, 1)
    span = collected.one("create_orchestration:echo")
    assert span.context.trace_id == caller.get_span_context().trace_id


async def test_without_an_exporter_of_its_own_a_process_still_runs_within_the_trace(
    collected: Collected,
) -> None:
    app = df.App("pool")
    pool = df.ProcessPool(1)
    activities = [app.activity(f, executor=pool) for f in (elsewhere.traced, elsewhere.traced_async)]

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> list[Any]:
        return [await context.call_activity(one) for one in activities]

    async with app.running(store="memory:") as client:
        status = await client.wait_for_completion(await client.start_new(main), 60)
    for name, (trace_id, span_id, flags) in zip(("traced", "traced_async"), status.output, strict=True):
        body = collected.one(f"activity:{name}", "SERVER")
        assert (f"{body.context.trace_id:032x}", f"{id_of(body):016x}", 1) == (trace_id, span_id, flags)
        assert collected.path_of(body)[-3:] == [
            "SERVER orchestration:main",
            f"CLIENT activity:{name}",
            f"SERVER activity:{name}",
        ]
        assert body.attributes["perdure.host"] not in ("event loop", "thread")


async def test_a_thread_pool_of_ones_own_is_an_executor_too(collected: Collected) -> None:
    app = df.App("pool")
    with ThreadPoolExecutor(1) as threads:
        app.activity(elsewhere.traced, executor=threads)

        @app.orchestrator
        async def main(context: df.OrchestrationContext) -> list[Any]:
            return await context.call_activity(elsewhere.traced)

        async with app.running(store="memory:") as client:
            status = await client.wait_for_completion(await client.start_new(main), 60)
    body = collected.one("activity:traced", "SERVER")
    assert status.output == [f"{body.context.trace_id:032x}", f"{id_of(body):016x}", 1]


@pytest.mark.parametrize("own", [None, "00-11111111111111111111111111111111-2222222222222222-00"])
async def test_call_http_sends_the_trace_unless_the_code_does(
    own: str | None, server: Server, collected: Collected
) -> None:
    app = df.App("calls", http=HttpPolicy(allow=["127.0.0.1"]))

    @app.orchestrator
    async def main(context: df.OrchestrationContext, url: str) -> int:
        headers = {"traceparent": own} if own else {}
        response = await context.call_http(
            "POST", f"{url}/path?key=hidden", content="hidden", headers=headers
        )
        return response.status_code

    server.answers["/path?key=hidden"] = answer(503)
    async with app.running(store="memory:") as client:
        instance_id = await client.start_new(main, None, server.url)
        assert (await client.wait_for_completion(instance_id, 60)).output == 503
    call = collected.one("http:POST")
    [asked] = server.asked
    assert asked.headers["traceparent"] == own or f"00-{call.context.trace_id:032x}-{id_of(call):016x}-01"
    assert call.kind.name == "CLIENT" and call.status.status_code.name == "ERROR"
    assert call.attributes["http.request.method"] == "POST"
    assert call.attributes["http.response.status_code"] == 503
    assert call.attributes["url.full"] == f"{server.url}/path"
    assert "hidden" not in call.to_json()
    assert collected.parent_of(call).kind.name == "CLIENT"


async def test_a_tree_has_one_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the trees are sampled: of each, all spans or none, those of its code and its bodies included."""
    asked: list[str] = []

    class Counting(TraceIdRatioBased):
        def should_sample(
            self, parent_context: Any, trace_id: int, name: str, *rest: Any, **more: Any
        ) -> Any:
            if not trace.get_current_span(parent_context).get_span_context().is_valid:
                asked.append(name)
            return super().should_sample(parent_context, trace_id, name, *rest, **more)

    app = df.App("trees")

    @app.activity
    async def leaf() -> None:
        with trace.get_tracer("app").start_as_current_span("work"):
            pass

    @app.orchestrator
    async def branch(context: df.OrchestrationContext) -> None:
        await context.call_activity(leaf)

    @app.orchestrator
    async def tree(context: df.OrchestrationContext) -> None:
        await context.task_all([context.call_sub_orchestrator(branch) for _ in range(2)])

    with collecting(monkeypatch, sampler=Counting(0.5)) as spans:
        async with app.running(store="memory:") as client:
            ids = [await client.start_new(tree) for _ in range(40)]
            await asyncio.gather(*(client.wait_for_completion(one, 60) for one in ids))
    assert asked == ["create_orchestration:tree"] * 40
    sizes: dict[int, int] = {}
    for span in spans.all():
        sizes[span.context.trace_id] = sizes.get(span.context.trace_id, 0) + 1
    assert set(sizes.values()) == {2 + 2 * 2 + 2 * 3} and 0 < len(sizes) < 40


async def test_code_that_repeats_its_history_is_not_sampled(collected: Collected) -> None:
    app = df.App("replays")
    flags: list[tuple[bool, int]] = []

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> None:
        for _ in range(3):
            found = trace.get_current_span().get_span_context()
            flags.append((context.is_replaying, int(found.trace_flags)))
            with trace.get_tracer("app").start_as_current_span("step"):
                pass
            await context.wait_for_external_event("go")

    async with environment(app) as env:
        instance_id = await env.client.start_new(main)
        for _ in range(3):
            await env.evict()
            await env.client.raise_event(instance_id, "go")
        await env.client.wait_for_completion(instance_id)
    assert set(flags) == {(False, 1), (True, 0)}
    assert len(collected.named("step")) == 3
    assert {collected.parent_of(step).name for step in collected.named("step")} == {"orchestration:main"}


async def test_a_body_on_another_worker_is_part_of_the_trace(collected: Collected) -> None:
    app = df.App("claims")

    @app.activity(pool="far")
    def far() -> None: ...

    @app.orchestrator
    async def child(context: df.OrchestrationContext) -> None:
        await context.call_activity(far)

    @app.orchestrator
    async def main(context: df.OrchestrationContext, elsewhere: str) -> None:
        await context.call_sub_orchestrator(child, None, elsewhere)

    near, distant = {"worker_name": "near"}, {"worker_name": "distant", "pool": ["far"]}
    async with shop(app, near, distant) as opened:
        await opened.shared_out()
        client, mine, theirs = opened[0].client, opened[0].own_id(), opened[1].own_id()
        await client.start_new("main", mine, theirs)
        await client.wait_for_completion(mine, 60)
    body = collected.one("activity:far", "SERVER")
    assert body.attributes["perdure.worker"] == "distant"
    assert collected.path_of(body) == [
        "PRODUCER create_orchestration:main",
        "SERVER orchestration:main",
        "CLIENT orchestration:child",
        "SERVER orchestration:child",
        "CLIENT activity:far",
        "SERVER activity:far",
    ]
    assert len(collected.all()) == 6
