"""What operators do to an engine and disks do to everybody: full, foreign, newer, damaged, stopped."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Raw

import perdure as df
from perdure.engine.engine import Engine
from perdure.errors import (
    EngineStopped,
    OutcomeUnknown,
    PerdureError,
    StoreFull,
    StoreInUse,
    StoreTooNew,
    StoreUnusable,
)
from perdure.model.messages import RaiseEvent, Start
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.faults import Crash, Fault, FaultPlan, FaultyStore
from tests.crash.checks import picture, verify
from tests.crash.sweep import APPS, on_files
from tests.crash.world import Limits, Reply, World, event, run_until_reply, start

SRC = Path(df.__file__).parents[1]


def small_app() -> df.App:
    app = df.App("small")

    @app.activity
    async def add(x: int) -> int:
        return x + 1

    @app.orchestrator
    async def adding(context: df.OrchestrationContext, x: int) -> int:
        return await context.call_activity(add, x)

    @app.orchestrator
    async def waiting(context: df.OrchestrationContext) -> Any:
        return await context.wait_for_external_event("Go")

    return app


# --------------------------------------------------------------------------------------------- a full disk


@contextmanager
def full(store: Store) -> Iterator[None]:
    """The database may not grow by one page, as on a disk with nothing left."""
    writer: apsw.Connection = store._writer  # type: ignore[attr-defined]
    writer.pragma("max_page_count", writer.pragma("page_count"))
    yield
    writer.pragma("max_page_count", 2**30)


def test_a_full_disk_refuses_clients_and_loses_nothing() -> None:
    """Clients hear StoreFull; results and events accepted before wait; writing resumes without a restart."""
    with on_files() as make_store:
        store = make_store()
        w = World(APPS["yield"], store)
        w.ask(start("listener", "e", 2), start("fan", "f", 6))
        w.paused = True
        w.ask(start("fan", "g", 6))
        before = picture(w)["instances"]
        with full(store):
            w.run_bodies()
            refused = [ask_once(w, start("large", f"l{n}", "x" * 20_000)) for n in range(3)]
            assert {type(answer) for answer in refused} == {StoreFull}
            assert w.status("e").runtime_status == "Running"  # reading goes on
            assert w.loop.away is None and "reopen" not in w.calls
            assert [i for i in picture(w)["instances"] if i[0][0] == "l"] == []
            assert len(before) == len(picture(w)["instances"])
        w.paused = False
        w.pass_time(2)
        assert w.status("g").output == [[1, 2, 3, 6, 5, 10], 28]
        assert len(w.witness) == len({ran.key for ran in w.witness}), "results were thrown away"
        w.ask(event("e", "Go", 1), event("e", "Go", 2), start("large", "l0", "x" * 20_000))
        assert w.status("e").output == [[1, 2], 3]
        verify(w)
        assert len(w.lives) == 1
        w.end()


def ask_once(w: World, step: Any) -> Any:
    """One request, not made again whatever the answer."""
    pending = run_until_reply(step.make(w.client, w._operation()))
    w.turn()
    return pending.finish()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_real_full_disk_refuses_and_recovers(tmp_path: Path) -> None:
    """ENOSPC in the log of a real file system, then room again (I37's twin: no restart, nothing lost)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    try:
        store = SqliteStore(str(disk / "hub.db"), "crash")
        w = World(APPS["yield"], store, limits=Limits())
        w.start("listener", "e", 2)
        ballast = disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            ballast.write_bytes(b"x" * 20_000_000)
        answers = [ask_once(w, start("large", f"l{n}", "x" * 900_000)) for n in range(20)]
        assert isinstance(answers[-1], StoreFull), answers
        assert w.status("e").runtime_status == "Running"
        accepted = [answer for answer in answers if isinstance(answer, str)]
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        w.pass_time(3)
        w.ask(event("e", "Go", 1), event("e", "Go", 2), start("sequence", "last", 1))
        assert w.status("last").output == [2, 4, 5]
        assert all(w.inner.get(instance_id) is not None for instance_id in accepted)
        assert len(w.lives) == 1
        verify(w)
        w.end()
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_store_that_is_away_for_a_while_is_found_again() -> None:
    """Requests with an id wait and are answered; those without learn that nobody knows."""
    w = World(APPS["yield"], MemoryStore("crash"))
    w.paused = True
    w.ask(start("fan", "f", 3), start("listener", "e", 1), start("sleeper", "s"))
    w.store.plan.away = True
    known, unknown = Reply(), Reply()
    w.loop.post(go("e", "op-x"), known)
    w.loop.post(go("e", ""), unknown)
    w.run_bodies()
    for _ in range(10):
        w.turn()
        w.clock.move(w.clock.now() + 400_000)
    assert isinstance(unknown.value, OutcomeUnknown) and not known.is_done
    assert len([verb for verb in w.calls if verb == "reopen"]) < 15, "it knocks without a pause"
    w.store.plan.away = False
    w.paused = False
    w.pass_time(2)
    assert known.is_done and known.value is None
    assert w.status("f").output == [[1, 2, 3], 7]
    w.pass_time(95)
    w.pass_time(65)
    assert w.status("s").output == [True, True]
    verify(w)


def test_while_a_store_stays_away_nobody_is_kept_waiting() -> None:
    """After some seconds whoever waits learns that nobody knows; what has an id is done all the same."""
    w = World(APPS["yield"], MemoryStore("crash"))
    w.start("listener", "e", 3)
    w.store.plan.away = True
    early, late = Reply(), Reply()
    w.loop.post(go("e", "op-x"), early)
    for _ in range(20):
        w.turn()
        w.clock.move(w.clock.now() + 400_000)
    assert isinstance(early.value, OutcomeUnknown)
    w.loop.post(go("e", "op-y"), late)
    w.turn()
    assert isinstance(late.value, OutcomeUnknown)
    w.store.plan.away = False
    w.pass_time(2)
    for operation_id in ("op-x", "op-y", "op-z"):  # the first two are repeats
        w.loop.post(go("e", operation_id), Reply())
    w.pass_time(2)
    assert w.status("e").output is not None, "three events, and not five"
    verify(w)


def go(instance_id: str, operation_id: str) -> RaiseEvent:
    return RaiseEvent(instance_id=instance_id, name="Go", input=Raw(b"1"), operation_id=operation_id)


def test_a_request_in_doubt_is_not_called_refused_when_the_engine_stops() -> None:
    """Its commit was lost and the store did not come back: nobody knows, and nobody says they do."""
    w = World(APPS["yield"], MemoryStore("crash"))
    w.start("listener", "e", 1)
    doubtful, untouched = Reply(), Reply()
    w.store.plan.faults[len(w.calls) + 3] = Fault.LOSE_ANSWER  # the commit, after load and seen
    w.store.plan.faults[len(w.calls) + 4] = Fault.FAIL  # the reopening
    w.loop.post(go("e", "op-x"), doubtful)
    w.turn()
    assert not doubtful.is_done and [verb for _, verb, _ in w.store.fired] == ["commit", "reopen"]
    w.loop.post(go("e", "op-y"), untouched)
    w.loop.refuse_rest()
    assert isinstance(doubtful.value, OutcomeUnknown)
    assert isinstance(untouched.value, EngineStopped)
    w.kill()
    w.settle()
    assert w.status("e").output == [[1], 2]


# --------------------------------------------------------------------------------------- whose file it is


async def test_a_second_engine_on_the_file_is_kept_out(tmp_path: Path) -> None:
    """In the same process and in another: a clear error that names the holder, and the first one goes on."""
    app, url = small_app(), f"sqlite:///{tmp_path}/hub.db"
    async with app.running(store=url) as client:
        with pytest.raises(StoreInUse, match="this process already"):
            async with small_app().running(store=url):
                pass
        code = (
            "import asyncio, perdure as df\n"
            "async def main():\n"
            f"    async with df.App('small').running(store={url!r}): print('served')\n"
            "asyncio.run(main())\n"
        )
        other = await asyncio.to_thread(run_python, code)
        assert (
            other.returncode and b"StoreInUse" in other.stderr and str(os.getpid()).encode() in other.stderr
        )
        assert b"served" not in other.stdout
        done = await client.wait_for_completion(await client.start_new("adding", None, 1), 5)
        assert done.output == 2
    assert b"served" in run_python(code).stdout


def run_python(code: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, timeout=60)


async def test_a_newer_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    async with small_app().running(store=f"sqlite:///{path}") as client:
        await client.start_new("waiting", "w")
    with closing(apsw.Connection(str(path))) as connection:
        version = connection.pragma("user_version")
        connection.pragma("user_version", version + 1)
        connection.pragma("wal_checkpoint", "truncate")
    before = fingerprint(path)
    for _ in range(2):
        with pytest.raises(StoreTooNew, match="upgrade"):
            async with small_app().running(store=f"sqlite:///{path}"):
                pass
    assert fingerprint(path) == before
    with closing(apsw.Connection(str(path))) as connection:
        connection.pragma("user_version", version)
    async with small_app().running(store=f"sqlite:///{path}") as client:
        await client.raise_event("w", "Go", 1)
        assert (await client.wait_for_completion("w", 30)).output == 1


def fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5_000])
async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hub.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnusable):
        async with small_app().running(store=f"sqlite:///{path}"):
            pass
    assert path.read_bytes() == content


async def test_stdlib_sqlite_in_process_refused(tmp_path: Path) -> None:
    """A6: a second SQLite library in the engine's process would drop its locks: the open is refused."""
    path = tmp_path / "hub.db"
    os.symlink(path, tmp_path / "link.db")
    async with small_app().running(store=f"sqlite:///{path}") as client:
        await client.start_new("waiting", "w")
        for way_in in (str(path), str(tmp_path / "link.db"), f"file:{path}?mode=ro"):
            with pytest.raises(StoreUnusable, match="drop the engine's locks"):
                sqlite3.connect(way_in, uri=way_in.startswith("file:"))
        with pytest.raises(StoreUnusable):
            path.read_bytes()
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as ledger:  # another file is nobody's business
            ledger.execute("create table paid (claim text)")
        await client.raise_event("w", "Go", 1)
        assert (await client.wait_for_completion("w", 30)).output == 1
    with closing(sqlite3.connect(path)) as after:  # and so is this one, when the engine has gone
        assert after.execute("select count(*) from instances").fetchone() == (1,)


# ---------------------------------------------------------------------------------------- damaged history


@pytest.mark.parametrize(
    "damage", [b'[{"type":"TaskInvented","id":7}]', b"\x00\x01 rubbish", b"[]", b'[{"type":"TimerFired"}]']
)
def test_an_unreadable_history_row_parks_its_instance(damage: bytes) -> None:
    """Only that one; its messages are kept; it can be looked at, listed, terminated and purged."""
    store = MemoryStore("crash")
    w = World(APPS["yield"], store)
    w.ask(start("listener", "bad", 2), start("listener", "good", 1))
    w.raise_event("bad", "Go", 1)
    no = store._tables.numbers["bad"]
    rows = store._tables.history[no, 1]
    kept = rows[1]
    rows[1] = kept._replace(events=damage)
    w.kill()
    assert w.ask(event("bad", "Go", 2), event("good", "Go", 3)) == [None, None]
    status = w.status("bad")
    assert status.runtime_status == "Suspended", status
    assert status.reason.startswith("damaged: the row of history (instance_no"), status.reason
    assert w.status("good").output == [[3], 2]
    w.manage("resume", "bad")
    assert w.status("bad").runtime_status == "Suspended"
    rows[1] = kept  # the disk was mended
    w.kill()
    w.manage("resume", "bad")
    assert w.status("bad").output == [[1, 2], 3]


@pytest.mark.parametrize("recursive", [False, True])
def test_an_unreadable_instance_can_be_terminated_and_purged(recursive: bool) -> None:
    store = MemoryStore("crash")
    w = World(APPS["yield"], store)
    w.start("waiting_parent", "bad")
    rows = store._tables.history[store._tables.numbers["bad"], 1]
    rows[0] = rows[0]._replace(events=b'[{"type":"TaskInvented"}]')
    w.kill()
    assert w.status("bad") is not None
    assert w.manage("terminate", "bad", "damaged", recursive=recursive) is None
    assert w.status("bad").runtime_status == "Terminated"
    assert w.manage("purge_instance_history", "bad") == 1
    w.start("sequence", "bad", 1)
    assert w.status("bad").output == [2, 4, 5]


# ------------------------------------------------------------------------------------------- a real engine


async def test_stopping_answers_every_request_that_is_queued(tmp_path: Path) -> None:
    """Stored or refused, and never in doubt: every client hears, and what was stored is there afterwards."""
    url = f"sqlite:///{tmp_path}/hub.db"
    async with small_app().running(store=url) as client:
        engine = client.gateway
        assert isinstance(engine, Engine)
        requests = [asyncio.ensure_future(client.start_new("waiting", f"w{n}")) for n in range(6_000)]
        await asyncio.sleep(0)  # they are on their way
        stop = asyncio.ensure_future(engine.stop())
        late = [asyncio.ensure_future(client.start_new("waiting", f"late{n}")) for n in range(10)]
        answers = await asyncio.wait_for(asyncio.gather(*requests, *late, return_exceptions=True), 20)
        await stop
    stored = {answer for answer in answers if isinstance(answer, str)}
    assert {type(answer) for answer in answers} <= {str, EngineStopped}
    async with small_app().running(store=url) as client:
        found = sum((await client.counts()).values())
        assert found == len(stored)


async def test_stopping_with_a_queue_that_the_loop_never_saw() -> None:
    """Requests handed over one by one from another thread, more than one batch takes, are refused too."""
    store = FaultyStore(MemoryStore("small"))
    async with small_app().running(store=store) as client:
        engine = client.gateway
        assert isinstance(engine, Engine)
        slow = threading.Event()
        commit = store.inner.commit
        store.inner.commit = lambda batch: (slow.wait(5), commit(batch))[1]  # type: ignore[method-assign]
        first = asyncio.ensure_future(client.start_new("waiting", "first"))
        await asyncio.sleep(0.05)
        event_loop = asyncio.get_running_loop()
        replies = [event_loop.create_future() for _ in range(5_000)]
        for n, reply in enumerate(replies):
            engine.loop.post(Start(instance_id=f"q{n}", name="waiting"), reply)
        engine.loop.stopping = True
        slow.set()
        answers = await asyncio.wait_for(asyncio.gather(first, *replies, return_exceptions=True), 10)
    assert answers[0] == "first"
    assert {type(answer) for answer in answers[1:]} == {EngineStopped}
    assert store.inner.counts() == {"Running": 1}


async def test_clients_learn_that_the_loop_has_died() -> None:
    """Whatever kills the loop's thread: nobody waits for ever, and nobody is told that nothing happened."""
    inner = MemoryStore("small")
    store = FaultyStore(inner)
    app = small_app()
    async with app.running(store=store) as client:
        await client.start_new("waiting", "w")
        waiter = asyncio.ensure_future(client.wait_for_completion("w"))
        await asyncio.sleep(0.01)
        store.plan.faults[len(store.calls) + 2] = Fault.CRASH_AFTER  # the commit, after a look for the id
        answers = await asyncio.wait_for(
            asyncio.gather(client.start_new("adding", "a", 1), waiter, return_exceptions=True), 5
        )
        assert isinstance(answers[0], OutcomeUnknown), answers
        assert isinstance(answers[1], PerdureError), answers
        with pytest.raises(EngineStopped):
            await client.start_new("adding", "b", 1)
    async with small_app().running(store=store.restarted()) as client:
        assert (await client.wait_for_completion("a", 30)).output == 2
        await client.raise_event("w", "Go", 5)
        assert (await client.wait_for_completion("w", 30)).output == 5
    assert issubclass(Crash, BaseException) and not issubclass(Crash, Exception)


async def test_gil_hog_commit_rate(tmp_path: Path) -> None:
    """A1: activities that keep the interpreter busy slow the loop down; they do not stop its commits."""
    app, stop = small_app(), threading.Event()

    @app.activity
    def hog() -> int:
        turns, end = 0, time.monotonic() + 20
        while not stop.is_set() and time.monotonic() < end:
            turns += sum(i * i for i in range(1_000)) > 0
        return turns

    @app.orchestrator
    async def hogging(context: df.OrchestrationContext) -> int:
        return await context.call_activity(hog)

    async with app.running(store=f"sqlite:///{tmp_path}/hub.db") as client:
        hogs = [await client.start_new(hogging) for _ in range(2)]
        for n in range(25):
            done = await client.wait_for_completion(await client.start_new("adding", None, n), 15)
            assert done.output == n + 1
        assert not stop.is_set()
        assert [(await client.get_status(h)).runtime_status for h in hogs] == ["Running"] * 2  # type: ignore[union-attr]
        stop.set()
        for h in hogs:
            assert (await client.wait_for_completion(h, 15)).output > 0


async def test_a_faulty_store_serves_a_real_engine() -> None:
    """`FaultyStore` as users meet it: around the store of a whole engine, with threads."""
    store = FaultyStore(MemoryStore("small"), FaultPlan({9: Fault.LOSE_ANSWER, 14: Fault.FAIL}))
    async with small_app().running(store=store) as client:
        for n in range(20):
            started = await client.start_new("adding", f"a{n}", n, operation_id=f"op{n}")
            assert (await client.wait_for_completion(started, 30)).output == n + 1
        assert len(store.fired) == 2
