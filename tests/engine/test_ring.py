"""The ring: exact counts by status without a scan, and what happened in each minute and hour."""

from pathlib import Path

import apsw
import pytest

from perdure import OrchestrationContext
from perdure.engine.client.instance_counts import instance_counts, slots, true_counts
from perdure.engine.upkeep.verification import verify
from perdure.model.ring import BOUNDS, HEAD, HOUR, MINUTE, OTHER, RingRow, RingValue, counts_of, value_of
from perdure.store import open_store
from perdure.testing import environment
from tests.core.styles import both
from tests.engine.programs import app_with


def assess() -> str:
    return "assessed"


def refuse() -> None:
    raise ValueError("refused")


def main_yield(context: OrchestrationContext):
    wanted = context.get_input()
    if wanted == "fails":
        yield context.call_activity("refuse")
    if wanted == "waits":
        yield context.wait_for_external_event("Go")
    if wanted == "lacks":
        yield context.call_sub_orchestrator("nowhere")
    return (yield context.call_activity("assess"))


async def main_async(context: OrchestrationContext):
    wanted = context.get_input()
    if wanted == "fails":
        await context.call_activity("refuse")
    if wanted == "waits":
        await context.wait_for_external_event("Go")
    if wanted == "lacks":
        await context.call_sub_orchestrator("nowhere")
    return await context.call_activity("assess")


MAIN = both(main_yield, main_async)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request, tmp_path) -> str:
    match request.param:
        case "memory":
            return "memory:"
        case "sqlite":
            return f"sqlite:///{tmp_path}/hub.db"
        case _:
            found: str = request.getfixturevalue("newest_url")
            return found


def exact(store) -> bool:
    heads = store.ring(HEAD)
    assert heads
    return counts_of(heads) == true_counts(store) == instance_counts(store)


@MAIN
async def test_every_verb_keeps_the_counts_exact(orchestrator, url):
    async with environment(app_with(orchestrator, assess, refuse), store=url) as env:
        client, seen = env.client, []

        async def look() -> None:
            await env.settled()
            assert exact(env.store)
            counts = instance_counts(env.store)
            seen.append((dict(sorted(counts.by_status.items())), counts.parked))

        for name in ("waits", "fails", "lacks", "done"):
            await client.start_new("main", name, name)
        await look()
        await client.suspend("waits", "stocktaking")
        await look()
        await client.resume("waits")
        await client.rewind("fails", "again")
        await client.raise_event("waits", "Go", 1)
        await look()
        await client.terminate("lacks", "not wanted", recursive=True)
        await client.start_new("main", "done", "done", on_existing="replace_finished")
        await look()
        for name in ("waits", "fails", "lacks", "done"):
            await client.purge_instance_history(name)
        await look()
        await env.restart()
        assert exact(env.store)

    assert seen == [  # the one that lacks a function is parked before its first step
        ({"Completed": 1, "Failed": 1, "Pending": 1, "Running": 1}, 1),
        ({"Completed": 1, "Failed": 1, "Pending": 1, "Suspended": 1}, 1),
        ({"Completed": 2, "Failed": 1, "Pending": 1}, 1),
        ({"Completed": 2, "Failed": 1, "Terminated": 1}, 0),
        ({}, 0),
    ]


@MAIN
async def test_minutes_and_hours_tell_what_started_and_how_it_ended(orchestrator, url):
    async with environment(app_with(orchestrator, assess, refuse), store=url) as env:
        for minute in range(3):
            await env.client.start_new("main", None, "done")
            await env.client.start_new("main", None, "fails")
            await env.client.start_new("main", f"w{minute}", "waits")
            await env.advance(minutes=1)
        await env.restart()
        await env.advance(hours=1)
        for minute in range(3):
            await env.client.raise_event(f"w{minute}", "Go", 1)
        await env.settled()
        now = round(env.now.timestamp() * 1e6)
        minutes, hours = (slots(env.store, resolution, now) for resolution in (MINUTE, HOUR))

        assert exact(env.store)
        assert sum(one.value.started.get("main", 0) for one in hours) == 9
        ended = [(status, e.count) for one in hours for status, e in one.value.ended.get("main", {}).items()]
        assert sum(count for status, count in ended if status == "Completed") == 6
        assert sum(count for status, count in ended if status == "Failed") == 3
        assert minutes[-1].value.ended["main"]["Completed"].buckets == {BOUNDS.index(21_600.0): 3}
        assert all(one.start % 60_000_000 == 0 for one in minutes)


@MAIN
async def test_a_quiet_worker_writes_nothing_and_rows_end_with_their_time(orchestrator, url):
    async with environment(app_with(orchestrator, assess, refuse), store=url) as env:
        await env.client.start_new("main", "w", "waits")
        await env.settled()
        before = [env.store.ring(resolution) for resolution in (HEAD, MINUTE, HOUR)]
        await env.advance(hours=5)
        assert [env.store.ring(resolution) for resolution in (HEAD, MINUTE, HOUR)] == before

        for _ in range(70):
            await env.client.start_new("main", None, "done")
            await env.advance(minutes=1)
        env.store.maintain(round(env.now.timestamp() * 1e6))
        await env.client.start_new("main", None, "done")
        await env.settled()
        now = round(env.now.timestamp() * 1e6)

        assert 55 <= len(env.store.ring(MINUTE)) <= 60
        assert len(slots(env.store, MINUTE, now)) <= 60
        assert exact(env.store)


async def test_a_head_that_cannot_be_read_is_told_and_counted_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(main_async, assess, refuse), store=url) as env:
        await env.client.start_new("main", "a", "waits")
        await env.client.start_new("main", "b", "done")
        await env.settled()
        hub = env.store.hub
    _change(tmp_path, "cast('{\"statuses\":' as blob)")
    store = open_store(url, hub)
    assert any("ring" in problem for problem in verify(store).problems)
    assert instance_counts(store) == true_counts(store)
    store.open()
    assert exact(store)
    assert verify(store).ok
    store.close()


async def test_a_count_that_was_changed_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/hub.db"
    async with environment(app_with(main_async, assess, refuse), store=url) as env:
        await env.client.start_new("main", "a", "waits")
        await env.settled()
        hub = env.store.hub
    _change(tmp_path, 'cast(\'{"statuses":{"Running":7}}\' as blob)')
    store = open_store(url, hub)
    [problem] = verify(store).problems
    store.close_reader()

    assert problem.startswith("the ring counts 7 Running (0 parked), the hub has 1 Running (0 parked)")


def _change(folder: Path, value: str) -> None:
    connection = apsw.Connection(f"{folder}/hub.db")
    connection.execute(f"update ring set value = {value} where resolution = 0")
    connection.close()


def test_any_number_of_names_is_bounded() -> None:
    value = RingValue()
    for number in range(1_000):
        value.count((f"f{number}", "", "Completed", 5_000))

    assert len(value.started) == len(value.ended) == 201
    assert value.started[OTHER] == value.ended[OTHER]["Completed"].count == 800
    assert value.ended[OTHER]["Completed"].buckets == {0: 800}


def test_a_value_of_an_earlier_version_is_read() -> None:
    row = RingRow(
        "", HEAD, 0, 0, b'{"at":60000000,"statuses":{"Running":2,"Suspended/parked":1},"later":[1]}'
    )

    assert value_of(row).at == 60_000_000
    assert counts_of([row]) == ({"Running": 2, "Suspended": 1}, 1)
