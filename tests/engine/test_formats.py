"""What is stored, and what later features rely on: no bodies in rows, waits, seen, dropped, due times."""

import json

import pytest

from perdure import OrchestrationContext
from perdure.model.instances import PARTITIONS, execution_id_of
from perdure.store.memory import MemoryStore
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with, until


def waits_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go", int, timeout=3600))


async def waits_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go", int, timeout=3600)


WAITS = both(waits_yield, waits_async)


@pytest.fixture(params=["memory:", "sqlite"])
def url(request, tmp_path) -> str:
    return request.param if request.param == "memory:" else f"sqlite:///{tmp_path}/hub.db"


@WAITS
async def test_a_row_has_numbers_times_and_no_bodies(orchestrator, url):
    async with environment(app_with(orchestrator), store=url) as env:
        await env.client.start_new("main", "c1", "x" * 1_000)
        row = env.store.get("c1").row

    assert (row.instance_no, row.execution_no, row.kind) == (1, 1, "orchestration")
    assert 0 <= row.partition < PARTITIONS
    assert len(row.salt) == 16
    assert row.due_at == row.created_at + 3_600_000_000
    assert not any("x" * 100 in str(value) for value in row)


@WAITS
async def test_an_open_wait_has_a_row_with_its_deadline_and_schema(orchestrator, url):
    async with environment(app_with(orchestrator), store=url) as env:
        await env.client.start_new("main", "c1")
        (wait,) = env.store.waits([1])
        await env.restart()
        await env.client.raise_event("c1", "Go", 1)
        await env.client.wait_for_completion("c1")

        assert (wait.name, wait.deadline - wait.since) == ("Go", 3_600_000_000)
        assert json.loads(wait.schema) == {"type": "integer"}
        assert env.store.waits([1]) == []


@WAITS
async def test_every_end_of_an_execution_closes_its_waits(orchestrator, url):
    async with environment(app_with(orchestrator), store=url) as env:
        await env.client.start_new("main", "terminated")
        await env.client.start_new("main", "evicted and terminated")
        await env.client.start_new("main", "expired")
        await env.evict()
        await env.client.terminate("terminated")
        await env.client.terminate("evicted and terminated")
        await env.advance(hours=2)

        assert env.store.waits([1, 2, 3]) == []


@WAITS
async def test_no_timer_is_due_while_suspended_and_it_is_due_again_afterwards(orchestrator, url):
    async with environment(app_with(orchestrator), store=url) as env:
        await env.client.start_new("main", "c1")
        before = env.store.get("c1").row.due_at
        await env.client.suspend("c1")
        suspended = env.store.get("c1").row.due_at
        await env.client.resume("c1")

        assert suspended is None
        assert env.store.get("c1").row.due_at == before


@WAITS
async def test_a_suspended_instance_with_a_past_due_timer_does_not_make_the_loop_spin(orchestrator, url):
    async with environment(app_with(orchestrator), store=url) as env:
        await env.client.start_new("main", "c1")
        await env.client.suspend("c1")
        await env.advance(hours=5)
        commits = len(env.store.get("c1", history=True).history)
        await env.advance(hours=5)

        assert env.engine.loop.next_timer_at() is None
        assert len(env.store.get("c1", history=True).history) == commits


def works_yield(context: OrchestrationContext):
    yield context.call_activity("work")


async def works_async(context: OrchestrationContext):
    await context.call_activity("work")


@both(works_yield, works_async)
async def test_local_work_is_noted_while_an_activity_placed_here_is_open(orchestrator, url):
    import asyncio

    release = asyncio.Event()

    async def work():
        await release.wait()

    async with environment(app_with(orchestrator, work), store=url) as env:
        await env.client.start_new("main", "c1")
        await until(lambda: env.calls("work"))
        during = env.store.get("c1").row.local_work
        history = (await env.client.get_status("c1", show_history=True)).history
        release.set()
        await env.client.wait_for_completion("c1")

        assert (during, env.store.get("c1").row.local_work) == (1, 0)
        assert "placed" not in history[1]  # local is the default, and omitted


@WAITS
async def test_an_accepted_event_leaves_its_operation_id_in_seen_and_in_history(orchestrator):
    store = MemoryStore("claims")
    async with environment(app_with(orchestrator), store=store) as env:
        await env.client.start_new("main", "c1", operation_id="start")
        await env.client.raise_event("c1", "Go", 1, event_id="go")
        history = (await env.client.get_status("c1", show_history=True)).history
        seen = {row.operation_id: (row.instance_id, row.answer) for row in store._tables.seen.values()}
        born = execution_id_of(store.get("c1").row.salt, 0)

    # Digests over caller, verb, target and name, and over the content: for ever, as rows outlive an update.
    assert seen == {
        "op:062238f94fb5473b7cdbfdc95f8d8f0241cbef13": (
            "c1",
            f'["e47c22d428dc7f1682485e06a69228fe","c1","{born}"]'.encode(),
        ),
        "op:d5302d9e96ecb1344188634d39268e2d21531841": ("c1", b'["031dc88d0ec0c52d518bbc28b322da93",null]'),
    }
    assert [event.get("operation_id") for event in history if event["type"] == "EventRaised"] == ["go"]


@WAITS
async def test_episodes_and_event_ids_are_contiguous(orchestrator, url):
    def many(context: OrchestrationContext):
        for n in range(5):
            yield context.task_any([context.create_timer(n), context.wait_for_external_event("Go")])

    app = app_with(orchestrator)
    app.orchestrator(many)
    async with environment(app, store=url) as env:
        await env.run("many", None, "m")
        stored = env.store.get("m", history=True)

    assert [row.episode for row in stored.history] == list(range(len(stored.history)))
    assert stored.row.episodes == len(stored.history)
    ids = [e["id"] for row in stored.history for e in json.loads(row.events) if "id" in e]
    assert ids == list(range(len(ids)))
