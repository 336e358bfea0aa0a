"""The trace of a whole tree, read from a store."""

from datetime import timedelta

import pytest
from msgspec import Raw

from perdure import App, OrchestrationContext
from perdure.errors import InstanceNotFound
from perdure.model.messages import Start
from perdure.model.span_ids import trace_id_of
from perdure.model.trace_context import TraceContext
from perdure.telemetry import trees
from perdure.telemetry.spans import Span, SpanKind, SpanStatus
from perdure.telemetry.trees import tree_of
from perdure.testing import environment

STORES = pytest.mark.parametrize("store", ["memory:", "sqlite"])


def url_of(store: str, tmp_path) -> str:
    return store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"


def app_of(**settings) -> App:
    app = App("trees", **settings)
    broken = {"pay"}

    @app.activity
    def pay(n: int) -> int:
        if n < 0 and "pay" in broken:
            broken.clear()
            raise OSError("down")
        return n

    @app.orchestrator
    async def leaf(context: OrchestrationContext, n: int) -> int:
        await context.create_timer(timedelta(hours=1))
        return await context.call_activity(pay, n)

    @app.orchestrator
    async def middle(context: OrchestrationContext, n: int) -> int:
        return await context.call_sub_orchestrator(leaf, n)

    @app.orchestrator
    async def top(context: OrchestrationContext, n: int) -> int:
        return await context.call_sub_orchestrator(middle, n)

    @app.orchestrator
    async def wide(context: OrchestrationContext, n: int) -> None:
        await context.task_all([context.call_sub_orchestrator(middle, i) for i in range(n)])

    @app.orchestrator
    async def counts(context: OrchestrationContext, n: int) -> None:
        await context.call_activity(pay, n)
        if n:
            context.continue_as_new(n - 1)

    return app


def ids(spans: list[Span]) -> set[tuple[int, int]]:
    return {(span.trace_id, span.span_id) for span in spans}


def orphans(spans: list[Span]) -> list[Span]:
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id and span.parent_id not in known]


@STORES
async def test_a_tree_is_one_trace_without_orphans(store, tmp_path):
    async with environment(app_of(), store=url_of(store, tmp_path)) as env:
        status = await env.run("top", 7, "one")
        spans = tree_of(env.store, "one", "hub").spans

    assert {span.trace_id for span in spans} == {trace_id_of("one", status.execution_id)}
    assert orphans(spans) == []
    assert sorted((span.name, span.kind) for span in spans) == [
        ("activity:pay", SpanKind.CLIENT),
        ("orchestration:leaf", SpanKind.CLIENT),
        ("orchestration:leaf", SpanKind.SERVER),
        ("orchestration:leaf:timer", SpanKind.INTERNAL),
        ("orchestration:middle", SpanKind.CLIENT),
        ("orchestration:middle", SpanKind.SERVER),
        ("orchestration:top", SpanKind.SERVER),
    ]
    assert all(span.end is not None for span in spans)


@STORES
@pytest.mark.parametrize("trace", ["", TraceContext(77, 88).text()])
async def test_the_trace_of_a_child_is_a_part_of_its_trees(store, trace, tmp_path):
    async with environment(app_of(), store=url_of(store, tmp_path)) as env:
        await env.client.gateway.accept(Start(instance_id="one", name="top", input=Raw(b"7"), trace=trace))
        await env.client.wait_for_completion("one")
        whole = tree_of(env.store, "one", "hub").spans
        leaf = next(span.attributes["perdure.child.instance_id"] for span in whole if "leaf" in span.name)
        part = tree_of(env.store, str(leaf), "hub").spans

    assert ids(part) < ids(whole)
    assert len(part) == 3


@STORES
async def test_a_child_whose_parents_are_purged_has_a_trace_all_the_same(store, tmp_path):
    async with environment(app_of(), store=url_of(store, tmp_path)) as env:
        await env.run("top", 7, "one")
        middle = str(
            next(
                span.attributes["perdure.child.instance_id"]
                for span in tree_of(env.store, "one", "hub").spans
                if span.kind is SpanKind.CLIENT
            )
        )
        await env.client.purge_instance_history("one")

        spans = tree_of(env.store, middle, "hub").spans

    assert len({span.trace_id for span in spans}) == 1
    assert len(orphans(spans)) == 1


@STORES
async def test_kept_executions_are_traces_of_their_own_each_linked_to_the_one_before(store, tmp_path):
    async with environment(app_of(keep_executions=5), store=url_of(store, tmp_path)) as env:
        await env.run("counts", 2, "one")
        spans = tree_of(env.store, "one", "hub").spans

    roots = [span for span in spans if span.kind is SpanKind.SERVER]
    assert len({span.trace_id for span in spans}) == len(roots) == 3
    assert [link[:2] for span in roots for link in span.links] == [
        (span.trace_id, span.span_id) for span in roots[:-1]
    ]
    assert all(span.parent_id == 0 for span in roots)


@STORES
async def test_a_rewound_tree_keeps_its_spans_and_adds_others(store, tmp_path):
    async with environment(app_of(), store=url_of(store, tmp_path)) as env:
        await env.client.start_new("top", "one", -1)
        await env.client.wait_for_completion("one")
        before = tree_of(env.store, "one", "hub").spans
        await env.client.rewind("one")
        await env.client.wait_for_completion("one")
        after = tree_of(env.store, "one", "hub").spans

    assert ids(before) < ids(after)
    assert len(ids(after)) == len(after)
    assert orphans(after) == []
    again = [span for span in after if span.kind is SpanKind.SERVER and span.attributes["perdure.rewound"]]
    assert [span.status for span in again] == [SpanStatus.OK] * 3


async def test_a_tree_in_postgresql_is_read_too(postgres_url):
    async with app_of().running(store=postgres_url, hub="trees") as client:
        await client.start_new("counts", "one", 0)
        status = await client.wait_for_completion("one", 30)
        tree = tree_of(client.gateway.store, "one", "trees")

    assert {span.trace_id for span in tree.spans} == {trace_id_of("one", status.execution_id)}
    assert sorted(span.name for span in tree.spans) == ["activity:pay", "orchestration:counts"]


async def test_a_tree_that_is_too_large_says_what_is_left_out(monkeypatch):
    monkeypatch.setattr(trees, "MOST_INSTANCES", 4)
    async with environment(app_of()) as env:
        await env.run("wide", 5, "one")
        tree = tree_of(env.store, "one", "hub")

    assert len([span for span in tree.spans if span.kind is SpanKind.SERVER]) == 4
    assert tree.left_out >= 2


async def test_an_instance_that_does_not_exist_is_an_error():
    async with environment(app_of()) as env:
        with pytest.raises(InstanceNotFound, match="nowhere"):
            tree_of(env.store, "nowhere", "hub")
