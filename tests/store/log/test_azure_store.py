"""`azure:` through public names, over Azurite: an application, the commands, copies, and a server that is killed."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import perdure as df
from perdure.errors import StoreUnusable
from perdure.store.log.azure import AzureService
from tests.crash.killing import Killer
from tests.postgres.servers import free_port
from tests.store.log.azurite import account_at, azurite

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("azurite")]
APP = """
import perdure as df
app = df.App("orders")

@app.activity
async def price(value: int) -> int:
    return value * 2

@app.orchestrator
async def order(context: df.OrchestrationContext, value: int) -> int:
    first = await context.call_activity(price, value)
    await context.wait_for_external_event("go")
    return await context.call_activity(price, first)
"""


@pytest.fixture(scope="module")
def azurites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with azurite(tmp_path_factory.mktemp("azurite")) as found:
        yield found


@pytest.fixture
def account(azurites: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The settings of an account, as this process and its children have them."""
    monkeypatch.setenv("AzureWebJobsStorage", azurites)
    monkeypatch.setenv("PERDURE_REPLICA_DIR", str(tmp_path / "replicas"))
    return azurites


def app_of(name: str) -> df.App:
    app = df.App(name)

    @app.activity
    async def price(value: int) -> int:
        return value * 2

    @app.orchestrator
    async def order(context: df.OrchestrationContext, value: int) -> int:
        return await context.call_activity(price, value)

    return app


async def run_some(app: df.App, count: int, first: int = 0) -> list[Any]:
    async with app.running(store="azure:") as client:
        ids = [await client.start_new("order", f"o{no}", no) for no in range(first, first + count)]
        return [(await client.wait_for_completion(name)).output for name in ids]


async def test_an_application_runs_and_finds_its_instances_on_an_empty_machine(
    account: str, tmp_path: Path
) -> None:
    app = app_of("empty-machine")
    assert await run_some(app, 20) == [no * 2 for no in range(20)]
    shutil.rmtree(tmp_path / "replicas")
    async with app.running(store="azure:") as client:
        found = await client.get_status("o7")
        assert found is not None
        assert found.output == 14


async def test_backups_go_back_in_time_and_copies_go_everywhere(account: str, tmp_path: Path) -> None:
    app = app_of("Backups")
    await run_some(app, 5)
    between = datetime.now(UTC)
    await run_some(app, 5, 5)
    whole = df.backup("azure:", tmp_path / "whole.db", hub="Backups")
    assert (whole.instances, whole.problems) == (10, [])
    then = df.backup("azure:", tmp_path / "then.db", hub="Backups", at=between)
    assert then.instances == 5
    with pytest.raises(StoreUnusable, match="is not in Azure Storage"):
        df.backup(str(tmp_path / "whole.db"), tmp_path / "no.db", at=between)
    copied = df.copy("azure:", f"sqlite:///{tmp_path}/copied.db", hub="Backups")
    assert copied.rows["instances"] == 10
    assert df.backup(f"sqlite:///{tmp_path}/copied.db", tmp_path / "again.db").instances == 10


async def test_verify_walks_the_log_and_finds_what_another_program_has_changed(account: str) -> None:
    await run_some(app_of("walked"), 5)
    sound = command("verify", "--store", "azure:", "--hub", "walked")
    assert re.search(r"hub walked: \d+ records of the log walked, 0 to \d+, 0 bodies", sound.stdout), (
        sound.stderr
    )
    assert "no problems" in sound.stdout
    assert sound.returncode == 0

    with closing(AzureService(account_at(account), "walked")) as service, closing(service.log()) as log:
        records, _ = log.read(0)
        changed = records[3].content[:-1] + bytes([records[3].content[-1] ^ 1])
        row = {"d0": base64.b64encode(changed).decode(), "d0@odata.type": "Edm.Binary"}
        key = f"{service.name}(PartitionKey='log',RowKey='{3:016x}.00')"
        log._batch([("MERGE", key, {"If-Match": "*"}, row)])
        told = command("verify", "--store", "azure:", "--hub", "walked")
        assert "record 4 of the log does not follow record 3" in told.stdout, told.stderr
        assert told.returncode == 1
        log._delete([f"{2:016x}.00"])
        report = json.loads(command("verify", "--store", "azure:", "--hub", "walked", "--json").stdout)
    found = report["hubs"]["walked"]
    assert found["log"] == {"first": 0, "end": 2, "bodies": 0, "snapshots": 0}
    assert found["problems"][0].startswith("record 2 of the log is missing")


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "perdure.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def served(folder: Path, port: int, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "app.py").write_text(APP)
    options = ["--store", "azure:", "--port", str(port), *arguments]
    with (folder / f"{port}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "perdure.cli", "run", "app.py", *options],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        await_ready(port, process, folder / f"{port}.log")
        yield process
    finally:
        process.kill()
        process.wait()


def await_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)


def statuses() -> dict[str, str]:
    told = command("list", "--store", "azure:", "--hub", "orders", "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    rows = found["instances"] if isinstance(found, dict) else found
    return {row["instanceId"]: row["runtimeStatus"] for row in rows}


def test_a_server_is_killed_and_another_one_goes_on(account: str, tmp_path: Path, is_long_run: bool) -> None:
    count = 5 if is_long_run else 2
    with served(tmp_path, free_port()) as first:
        for no in range(count):
            done = command(
                "start", "order", "--id", f"o{no}", "--input", str(no), "--store", "azure:", "--hub", "orders"
            )
            assert done.returncode == 0, done.stderr
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert set(statuses()) == {f"o{no}" for no in range(count)}  # without any engine
    if is_long_run:  # as on another machine, which waits until the lease is over
        shutil.rmtree(tmp_path / "replicas")
    with served(tmp_path, free_port(), "--standby"):
        for no in range(count):
            done = command("raise", f"o{no}", "go", "--store", "azure:", "--hub", "orders")
            assert done.returncode == 0, done.stderr
        until = time.monotonic() + 120
        while set(statuses().values()) != {"Completed"}:
            assert time.monotonic() < until, statuses()
    verified = command("verify", "--store", "azure:", "--hub", "orders")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_claims_are_neither_lost_nor_paid_twice(account: str, tmp_path: Path, is_long_run: bool) -> None:
    """kill -9 at random; the replica stays, or is deleted before the next life."""
    chance = random.Random(3)

    def between() -> None:
        if chance.random() < 0.5:
            shutil.rmtree(tmp_path / "replicas", ignore_errors=True)

    place = tmp_path / "claims"
    place.mkdir()
    found = Killer(place, seed=8, store="azure:", between=between).run(kills=30 if is_long_run else 4)
    assert found.ok, found
    assert found.acknowledged == found.filed == found.paid + found.denied, found
    assert found.filed > 0
