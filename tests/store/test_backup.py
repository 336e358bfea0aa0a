"""Backups: consistent while an engine writes, checked, never over another file; their hubs go on."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.engine.upkeep.verification import verify
from perdure.store import open_store
from perdure.store.sqlite import backup as backups
from perdure.testing import environment


def app_of() -> df.App:
    app = df.App("claims")

    @app.activity
    def double(n: int) -> int:
        return 2 * n

    @app.orchestrator
    async def counting(context: df.OrchestrationContext, rounds: int) -> int:
        total = 0
        for n in range(rounds):
            total += await context.call_activity(double, n)
        return total

    @app.orchestrator
    async def waiting(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("Go")

    @app.orchestrator
    def sleeping(context: df.OrchestrationContext):  # type: ignore[no-untyped-def]
        yield context.create_timer(timedelta(hours=1))
        return "awake"

    return app


def file_of(path: Path) -> str:
    return f"sqlite:///{path}"


def of_the_copy(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith("copy.db")]


async def filled(path: Path) -> None:
    async with app_of().running(store=file_of(path)) as client:
        await client.start_new("waiting", "w")
        await client.start_new("sleeping", "s")
        await client.start_new("counting", "big", 3, tags={"x": "y" * 9_000})
        await client.wait_for_completion("big", 10)


async def test_a_backup_is_verified_and_its_hub_goes_on(tmp_path: Path) -> None:
    hub, copy = tmp_path / "hub.db", tmp_path / "copy.db"
    await filled(hub)
    told: list[tuple[str, int, int]] = []
    made = df.backup(file_of(hub), copy, progress=lambda *step: told.append(step))

    assert (made.file, made.size, made.instances) == (str(copy), copy.stat().st_size, 3)
    assert {what for what, _, _ in told} == {"pages", "instances checked"}
    assert all(done <= total for _, done, total in told)
    assert of_the_copy(tmp_path) == ["copy.db"]
    async with environment(app_of(), store=file_of(copy)) as env:
        await env.client.raise_event("w", "Go", "went on")
        assert (await env.client.wait_for_completion("w")).output == "went on"
        assert (await env.client.wait_for_completion("s")).output == "awake"


async def test_a_backup_of_a_busy_engine_is_one_moment_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every page is copied while others are written; what comes out verifies, instance by instance."""
    monkeypatch.setattr(backups, "PAGES", 2)
    hub = tmp_path / "hub.db"
    async with app_of().running(store=file_of(hub)) as client:
        running = asyncio.Event()

        async def work() -> None:
            while not running.is_set():
                await asyncio.gather(*(client.start_new("counting", None, 3) for _ in range(20)))

        async def more_than(known: int) -> int:
            while (found := sum((await client.counts()).values())) <= known:
                await asyncio.sleep(0)
            return found

        def between_pages(what: str, done: int, total: int) -> None:
            if what == "pages" and done < total and not met:
                met.append(asyncio.run_coroutine_threadsafe(more_than(before), here).result(60))

        here, met = asyncio.get_running_loop(), list[int]()
        busy = asyncio.create_task(work())
        before = await more_than(20)
        made = await asyncio.to_thread(df.backup, file_of(hub), tmp_path / "copy.db", progress=between_pages)
        after = await more_than(made.instances)
        running.set()
        await busy

    assert met
    assert before <= made.instances < after
    async with app_of().running(store=file_of(tmp_path / "copy.db")) as client:
        for status in (await client.query(top=1_000)).instances:
            assert (await client.wait_for_completion(status.instance_id, 20)).output == 6
    assert verify(open_store(file_of(tmp_path / "copy.db"), "claims")).problems == []


async def test_nothing_is_overwritten(tmp_path: Path) -> None:
    hub, copy = tmp_path / "hub.db", tmp_path / "copy.db"
    await filled(hub)
    copy.write_text("precious")
    with pytest.raises(df.StoreUnusable, match="already exists"):
        df.backup(str(hub), copy)
    assert copy.read_text() == "precious"


async def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    hub, copy = tmp_path / "hub.db", tmp_path / "copy.db"
    await filled(hub)
    with pytest.raises(df.StoreUnusable, match="copy.db"):
        df.backup(str(hub), copy, progress=lambda *_: copy.write_text("precious"))
    assert copy.read_text() == "precious"
    assert of_the_copy(tmp_path) == ["copy.db"]


async def test_a_damaged_hub_gives_no_backup_and_leaves_nothing(tmp_path: Path) -> None:
    hub = tmp_path / "hub.db"
    await filled(hub)
    connection = apsw.Connection(str(hub))
    connection.execute("update history set events = x'5b5d' where instance_no = 1")
    connection.close()
    with pytest.raises(df.StoreUnusable, match=r"not match its digest"):
        df.backup(str(hub), tmp_path / "copy.db")
    assert of_the_copy(tmp_path) == []


async def test_a_damaged_hub_is_backed_up_as_it_is_where_that_is_asked_for(tmp_path: Path) -> None:
    hub, kept, told = tmp_path / "hub.db", tmp_path / "kept.db", tmp_path / "told.db"
    await filled(hub)
    connection = apsw.Connection(str(hub))
    connection.execute("update history set events = x'5b5d' where instance_no = 1")
    connection.close()

    with pytest.raises(df.StoreUnusable, match=r"perdure backup --with-damage"):
        df.backup(str(hub), kept)
    made = df.backup(str(hub), kept, with_damage=True)
    outcome = CliRunner().invoke(root, ["backup", str(told), "--with-damage", "--store", str(hub)])
    async with app_of().running(store=file_of(kept)) as client:
        sound, damaged = await client.get_status("s"), await client.get_status("w")

    assert made.problems and all("not match its digest" in one or "w" in one for one in made.problems)
    assert outcome.exit_code == 0, outcome.stderr
    assert "not match its digest" in outcome.stderr and "problems" in outcome.stdout
    assert sound is not None and sound.reason == ""
    assert damaged is not None and damaged.reason.startswith("damaged: ")


@pytest.mark.parametrize(
    ("store", "file", "why"),
    [
        ("memory:", "copy.db", "SQLite files only"),
        ("no-such.db", "copy.db", "no database"),
        ("hub.db", "no/such/directory/copy.db", "does not exist"),
        ("hub.db", ".", "is a directory"),
    ],
)
async def test_what_cannot_be_backed_up_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str, file: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    await filled(tmp_path / "hub.db")
    with pytest.raises(df.StoreUnusable, match=why):
        df.backup(store, file)
