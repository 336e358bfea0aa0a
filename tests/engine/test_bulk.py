"""Bulk operations: one verb for all that match, in pages, to be cut off and repeated at will."""

import asyncio
from datetime import timedelta

import pytest

from perdure import App, BulkOutcome, EngineStopped, OrchestrationContext, PayloadError, RuntimeStatus
from perdure.engine.client import bulk
from perdure.engine.client.sync_client import SyncClient
from perdure.model.messages import Terminate
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with

S = RuntimeStatus


def wait_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go"))


async def wait_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go")


def parent_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("main", None, "child"))


async def parent_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("main", None, "child")


WAITS = both(wait_yield, wait_async)


async def started(env, count, prefix="c"):
    for number in range(count):
        await env.client.start_new("main", f"{prefix}{number}")


async def statuses(env):
    return {one.instance_id: one.runtime_status for one in (await env.client.query(top=1_000)).instances}


@WAITS
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_suspend_resume_terminate_and_purge_by_filter(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(orchestrator), store=url) as env:
        await started(env, 5)
        await started(env, 2, "other")

        held = await env.client.bulk("suspend", prefix="c", reason="audit")
        assert (held.matched, held.done, held.skipped, held.failed, held.finished) == (5, 5, {}, 0, True)
        assert {one for one, s in (await statuses(env)).items() if s is S.Suspended} == {
            f"c{n}" for n in range(5)
        }
        assert (await env.client.get_status("c3")).reason == "operator: audit"

        assert (await env.client.bulk("resume", status="Suspended")).done == 5
        await env.client.raise_event("c0", "Go", 1)
        assert (await env.client.bulk("terminate", prefix="c", reason="enough")).done == 4
        assert (await env.client.get_status("c4")).output == "enough"
        assert (await env.client.get_status("c0")).runtime_status is S.Completed

        purged = await env.client.bulk("purge", status=["Terminated", "Running"])
        assert (purged.matched, purged.done) == (4, 4)
        assert sorted(await statuses(env)) == ["c0", "other0", "other1"]


async def test_a_preview_changes_nothing_and_names_the_newest():
    async with environment(app_with(wait_async)) as env:
        await started(env, 15)
        before = await statuses(env)
        found = await env.client.bulk("terminate", name="main", dry_run=True)

        assert found == BulkOutcome(
            verb="terminate", matched=15, examples=[f"c{n}" for n in range(14, 4, -1)], dry_run=True
        )
        assert await statuses(env) == before
        assert (await env.client.bulk("purge", dry_run=True)).matched == 0
        assert (await env.client.bulk("resume", status="Completed", dry_run=True)).matched == 0


async def test_progress_is_told_page_by_page(monkeypatch):
    monkeypatch.setattr(bulk, "PAGE", 4)
    told: list[BulkOutcome] = []
    async with environment(app_with(wait_async)) as env:
        await started(env, 10)
        outcome = await env.client.bulk("suspend", progress=told.append)

    assert [one.done for one in told] == [0, 4, 8, 10]
    assert all(one.matched == 10 for one in told)
    assert (outcome.seen, outcome.finished) == (10, True)


async def test_it_stops_after_at_most_so_many_and_goes_on_when_repeated(monkeypatch):
    monkeypatch.setattr(bulk, "PAGE", 4)
    async with environment(app_with(wait_async)) as env:
        await started(env, 10)
        first = await env.client.bulk("terminate", at_most=6)
        second = await env.client.bulk("terminate", at_most=6)
        third = await env.client.bulk("terminate")

    assert [(one.matched, one.done, one.finished) for one in (first, second, third)] == [
        (10, 6, False),
        (4, 4, True),
        (0, 0, True),
    ]


async def test_an_interrupted_operation_leaves_whole_instances_and_can_be_repeated(monkeypatch):
    monkeypatch.setattr(bulk, "PAGE", 3)
    async with environment(app_with(wait_async)) as env:
        await started(env, 9)

        def stop(outcome: BulkOutcome) -> None:
            if outcome.done == 3:
                raise asyncio.CancelledError

        with pytest.raises(asyncio.CancelledError):
            await env.client.bulk("terminate", progress=stop)
        assert sorted((await env.client.counts()).items()) == [("Running", 6), ("Terminated", 3)]
        again = await env.client.bulk("terminate")

    assert (again.matched, again.done) == (6, 6)


async def test_what_changed_meanwhile_is_skipped_and_counted():
    async with environment(app_with(wait_async)) as env:
        await started(env, 3)

        async def meddle(client, instance_id, asked):
            if instance_id == "c1":
                await client.raise_event("c1", "Go", 1)
            if instance_id == "c2":
                await client.terminate("c2")
                await client.purge_instance_history("c2")
            await client.terminate(instance_id, asked.reason)

        verbs = {**bulk.VERBS, "terminate": bulk._BulkVerb(bulk.VERBS["terminate"].changes, meddle)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bulk, "VERBS", verbs)
            outcome = await env.client.bulk("terminate")

        assert (outcome.done, outcome.skipped) == (1, {"finished meanwhile": 1, "purged meanwhile": 1})
        assert (await env.client.get_status("c1")).runtime_status is S.Completed


async def test_what_fails_is_told_with_its_reason_and_does_not_stop_the_others():
    async with environment(app_with(wait_async)) as env:
        await started(env, 3)
        accept = env.engine.accept

        async def refusing(message):
            if isinstance(message, Terminate) and message.instance_id == "c1":
                raise PayloadError("the dog ate it")
            return await accept(message)

        env.engine.accept = refusing
        outcome = await env.client.bulk("terminate")

    assert (outcome.done, outcome.failed, outcome.failures) == (2, 1, [("c1", "the dog ate it")])


async def test_an_engine_that_stops_ends_the_operation():
    async with environment(app_with(wait_async)) as env:
        await started(env, 3)
        env.engine.loop.stopping = True
        with pytest.raises(EngineStopped):
            await env.client.bulk("terminate")


@pytest.mark.parametrize("parent", [parent_yield, parent_async])
async def test_a_family_is_terminated_from_its_head(parent):
    """Newest first would end the child first, and its parent would see it fail and go on."""
    app = App("families")
    app.orchestrator(name="main")(wait_async)
    app.orchestrator(name="parent")(parent)
    async with environment(app) as env:
        await env.client.start_new("parent", "p")
        outcome = await env.client.bulk("terminate", recursive=True, reason="all")

        assert outcome.seen == 2
        found = await statuses(env)
        assert (found["p"], found["child"]) == (S.Terminated, S.Terminated)


async def test_an_unknown_verb_is_refused():
    async with environment(app_with(wait_async)) as env:
        with pytest.raises(PayloadError, match="restart"):
            await env.client.bulk("restart")


async def test_purge_by_azures_name_counts_and_knows_time_and_status():
    async with environment(app_with(wait_async)) as env:
        await started(env, 4)
        await env.client.bulk("terminate", prefix="c0")
        await env.client.raise_event("c1", "Go", 1)
        await env.advance(hours=1)
        border = env.now - timedelta(minutes=30)

        assert await env.client.purge_instance_history_by(None, border, [S.Running]) == 0
        assert await env.client.purge_instance_history_by(border, None, []) == 0
        assert await env.client.purge_instance_history_by(None, border, [S.Completed]) == 1
        assert await env.client.purge_instance_history_by(None, border) == 1
        assert await env.client.purge_instance_history_by(None, border) == 0


async def test_a_plain_function_may_do_it_too():
    async with environment(app_with(wait_async)) as env:
        await started(env, 3)
        client = SyncClient(env.client, asyncio.get_running_loop())
        outcome = await asyncio.to_thread(client.bulk, "terminate", name="main")

    assert outcome.done == 3


def outer_yield(context: OrchestrationContext):
    return (yield context.call_sub_orchestrator("main", None, f"{context.instance_id}-child"))


async def outer_async(context: OrchestrationContext):
    return await context.call_sub_orchestrator("main", None, f"{context.instance_id}-child")


@pytest.mark.parametrize("outer", [outer_yield, outer_async])
async def test_failed_families_are_rewound_by_filter(outer):
    is_open: list[bool] = []
    app = App("families")

    @app.activity
    def ask() -> str:
        if not is_open:
            raise ConnectionError("the registry does not answer")
        return "asked"

    @app.orchestrator(name="main")
    async def inner(context: OrchestrationContext):
        return await context.call_activity(ask)

    app.orchestrator(name="outer")(outer)
    async with environment(app) as env:
        for number in range(3):
            assert (await env.run("outer", None, f"p{number}")).runtime_status is S.Failed
        is_open.append(True)
        outcome = await env.client.bulk("rewind", reason="the registry is back")
        await env.settled()

        # Children are rewound with their parents: when their own turn comes, that has happened.
        assert (outcome.matched, outcome.seen, outcome.failed) == (6, 6, 0)
        assert set((await statuses(env)).values()) == {S.Completed}
        assert (await env.client.get_status("p2")).output == "asked"
