"""Retention: what is finished for long enough goes, in pages, by itself; what a parent needs stays."""

from datetime import timedelta

import pytest

import perdure as df
from perdure import App, OrchestrationContext, Retention, RuntimeStatus
from perdure.engine.upkeep import retention
from perdure.model.messages import Purge
from perdure.store.memory import MemoryStore
from perdure.testing import environment
from perdure.testing.faults import FaultyStore
from tests.core.styles import both
from tests.engine.programs import until

DAY = timedelta(days=1)
S = RuntimeStatus


def wait_yield(context: OrchestrationContext):
    return (yield context.wait_for_external_event("Go"))


async def wait_async(context: OrchestrationContext):
    return await context.wait_for_external_event("Go")


async def fails(context: OrchestrationContext):
    raise ValueError("broken")


async def big(context: OrchestrationContext):
    context.set_custom_status("done")
    return "x" * 100_000


async def parent(context: OrchestrationContext):
    await context.call_sub_orchestrator("main", None, "child")
    return await context.wait_for_external_event("Go")


def grandparent(context: OrchestrationContext):
    yield context.call_sub_orchestrator("parent", None, "parent")
    yield context.wait_for_external_event("Go")


async def eternal(context: OrchestrationContext):
    turn = context.get_input() or 0
    await context.call_sub_orchestrator("big", None, f"child-{turn}")
    await context.create_timer(DAY)
    context.continue_as_new(turn + 1)


def app_of(keep, main=wait_async) -> App:
    app = App("claims", retention=keep)
    app.orchestrator(name="main")(main)
    for function in (fails, big, parent, grandparent, eternal):
        app.orchestrator(function)
    return app


async def ids(env) -> list[str]:
    return sorted(one.instance_id for one in (await env.client.query(top=1_000)).instances)


@both(wait_yield, wait_async)
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
async def test_finished_instances_go_when_their_time_is_over(orchestrator, store, tmp_path):
    url = store if store == "memory:" else f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_of(3 * DAY, orchestrator), store=url) as env:
        await env.client.start_new("main", "early")
        await env.client.start_new("main", "late")
        await env.client.start_new("main", "open")
        await env.client.raise_event("early", "Go", 1)
        await env.advance(days=2)
        await env.client.raise_event("late", "Go", 1)

        await env.advance(hours=23)
        assert await ids(env) == ["early", "late", "open"]
        await env.advance(hours=2)
        assert await ids(env) == ["late", "open"]
        await env.advance(days=2)
        assert await ids(env) == ["open"]
        await env.advance(days=400)
        assert await ids(env) == ["open"]
        assert env.engine.health()["expired"] == 2


async def test_each_ending_has_its_own_time():
    keep = Retention(completed=1 * DAY, failed=10 * DAY)
    async with environment(app_of(keep)) as env:
        for name in ("completed", "terminated", "running"):
            await env.client.start_new("main", name)
        await env.client.start_new("fails", "failed")
        await env.client.raise_event("completed", "Go")
        await env.client.terminate("terminated")

        await env.advance(days=2)
        assert await ids(env) == ["failed", "running", "terminated"]
        await env.advance(days=20)
        assert await ids(env) == ["running", "terminated"]


async def test_nothing_of_them_is_left(tmp_path):
    async with environment(app_of(1 * DAY), store=f"sqlite:///{tmp_path}/hub.db") as env:
        await env.run("big", None, "b")
        await env.client.start_new("main", "m")
        await env.client.terminate("m")
        with pytest.raises(df.InstanceFinished):
            await env.client.raise_event("m", "Late", {"name": "Ada"})
        await env.client.start_new("main", "n")
        await env.client.raise_event("n", "Unwanted", {"name": "Ada"})
        await env.client.terminate("n")
        assert [row.name for row in env.store.dropped("n", 9)] == ["Unwanted"]
        number = env.store.get("b").row.instance_no
        assert env.store.custom_status([number])

        await env.advance(days=2)
        assert await ids(env) == []
        assert env.store.history_of(number, 1) is None
        assert env.store.executions(number) == []
        assert env.store.custom_status([number]) == {}
        assert env.store.dropped("n", 9) == []


async def test_a_child_stays_as_long_as_its_family_needs_it():
    async with environment(app_of(Retention(1 * DAY, 1 * DAY, 5 * DAY))) as env:
        await env.client.start_new("grandparent", "grandparent")
        await env.client.raise_event("child", "Go")
        await env.advance(days=3)
        assert await ids(env) == ["child", "grandparent", "parent"]
        await env.client.raise_event("parent", "Go")
        await env.advance(days=3)
        assert await ids(env) == ["child", "grandparent", "parent"]

        await env.client.terminate("grandparent")  # kept for five days: so long they stay
        await env.advance(days=4)
        assert await ids(env) == ["child", "grandparent", "parent"]
        await env.advance(days=2)
        assert await ids(env) == []


async def test_an_eternal_parent_does_not_keep_the_children_of_past_executions():
    async with environment(app_of(3 * DAY)) as env:
        await env.client.start_new("eternal", "for-ever")
        await env.advance(days=9, hours=1)
        found = await ids(env)

    assert found == [*(f"child-{n}" for n in range(7, 10)), "for-ever"]


async def test_children_of_a_purged_parent_go_by_their_own_time():
    async with environment(app_of(2 * DAY)) as env:
        await env.client.start_new("parent", "p")
        await env.client.terminate("p")
        await env.client.purge_instance_history("p")
        await env.client.raise_event("child", "Go")
        assert await ids(env) == ["child"]
        await env.advance(days=3)
        assert await ids(env) == []


async def test_many_go_in_pages_and_others_have_their_turn_in_between(monkeypatch):
    monkeypatch.setattr(retention, "PAGE", 10)
    commits: list[int] = []
    async with environment(app_of(1 * DAY)) as env:
        for number in range(35):
            await env.run("big", None, f"b{number}")
        commit = env.store.commit

        def counting(batch):
            commits.append(len(batch.purged))
            commit(batch)

        monkeypatch.setattr(env.store, "commit", counting)
        await env.advance(days=2)
        assert await ids(env) == []

    assert [n for n in commits if n] == [10, 10, 10, 5]


async def test_one_that_was_restarted_meanwhile_stays():
    """The sweep chose it, and before its purge is handled the id belongs to another run."""
    async with environment(app_of(None)) as env:
        await env.run("big", None, "b")
        chosen = env.store.get("b").row.completed_at + 1
        await env.advance(days=1)
        await env.run("big", None, "b")
        env.engine.loop.post(Purge(instance_id="b", finished_before=chosen))
        await env.settled()
        assert await ids(env) == ["b"]

        env.engine.loop.post(Purge(instance_id="b", finished_before=env.clock.now() + 1))
        await env.settled()
        assert await ids(env) == []


async def test_waiting_for_an_instance_does_not_spin_the_clock():
    """A clock that skips for somebody who waits goes to timers; housekeeping alone is no reason to."""
    async with environment(app_of(1 * DAY)) as env:
        await env.client.start_new("main", "open")
        before = env.now
        with pytest.raises(TimeoutError):
            await env.client.wait_for_completion("open", 0.05)
        assert env.now == before


async def test_without_retention_nothing_goes():
    async with environment(app_of(None)) as env:
        await env.run("big", None, "b")
        await env.advance(days=4_000)
        assert await ids(env) == ["b"]


@pytest.mark.parametrize("failure", ["raises", "lost"])
async def test_a_store_that_fails_in_a_sweep_loses_nothing(failure):
    store = FaultyStore(MemoryStore("claims"))
    async with environment(app_of(1 * DAY), store=store) as env:
        for number in range(5):
            await env.run("big", None, f"b{number}")
        await env.client.start_new("main", "open")
        calls = {"commit": 0}
        commit = store.inner.commit

        def failing(batch):
            if batch.purged:
                calls["commit"] += 1
                if calls["commit"] == 1:
                    if failure == "lost":
                        commit(batch)
                    raise df.StoreError("the cable was pulled")
            commit(batch)

        store.inner.commit = failing
        await env.advance(days=2)
        await until(lambda: env.engine.loop.away is None)
        await env.advance(days=1)
        assert await ids(env) == ["open"]
        assert calls["commit"] == (1 if failure == "lost" else 2)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        (60, Retention(60, 60, 60)),
        (DAY, Retention(DAY, DAY, DAY)),
        ("30d", Retention(30 * DAY, 30 * DAY, 30 * DAY)),
        ("completed=1d12h, failed=2w", Retention(1.5 * DAY, 14 * DAY, None)),
        (Retention(completed=5), Retention(completed=5)),
    ],
)
def test_retention_is_written_in_several_ways(given, meant):
    assert Retention.of(given) == meant


@pytest.mark.parametrize(
    "given", ["soon", "completed=soon", "finished=3d", "3d,failed=2d", "-3d", -1, "completed="]
)
def test_what_is_no_retention_is_refused(given):
    with pytest.raises(ValueError, match=r"retention|duration"):
        Retention.of(given)


def test_an_application_the_environment_and_a_run_may_say_it(monkeypatch):
    assert App("a", retention=DAY).settings.retention == Retention(DAY, DAY, DAY)
    assert str(Retention(completed=7 * DAY, failed=90.0)) == "completed 7 days, 0:00:00, failed 0:01:30"
    assert str(Retention()) == "for ever"


async def test_the_environment_variable_is_over_the_application(monkeypatch):
    monkeypatch.setenv("PERDURE_RETENTION", "5d")
    async with App("a", retention=DAY).running(store="memory:") as client:
        assert client.gateway.settings.retention == Retention.of("5d")
    async with App("a").running(store="memory:", retention=3.0) as client:
        assert client.gateway.settings.retention == Retention.of(3.0)
