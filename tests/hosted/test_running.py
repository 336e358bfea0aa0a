"""`perdure run` of an Azure folder as its developers use it: with --reload, and with several workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psycopg
import pytest

from perdure.model.instances import PARTITIONS
from tests.cli.test_run import kill_with_its_children
from tests.hosted.programs import APPS, COMPLETED
from tests.hosted.test_surviving import (
    BY_THE_CLOCK,
    KEY,
    ONE_AT_A_TIME,
    PATIENCE,
    SOURCE,
    TOKEN,
    outcome,
    raise_event,
    start,
)

CODE = """
import os
import azure.durable_functions as df
import azure.functions as func
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
@app.activity_trigger(input_name="x")
def act(x):
    return ["GENERATION", x, os.environ["SHOP"]]
@app.orchestration_trigger(context_name="context")
def waits(context):
    first = yield context.call_activity("act", 1)
    context.set_custom_status("waits")
    yield context.wait_for_external_event("Go")
    return [first, (yield context.call_activity("act", 2))]
"""


class Running:
    """The command in a process of its own, with all it has said."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def until(self, pattern: str) -> re.Match[str]:
        """The next line of stderr with this pattern. Fails with what was said when the command ends before."""
        said = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError("".join(said))

    def api(self) -> str:
        """The address of the API, once the banner tells it."""
        return self.until(r"pages +(http://\S+)/")[1] + "/runtime/webhooks/durabletask"


@contextmanager
def command(place: Path, *options: str) -> Iterator[Running]:
    environment = {name: value for name, value in os.environ.items() if name != "SHOP"}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "perdure.cli", "run", *options, "--port", "0"],
        cwd=place,
        env={
            **environment,
            "PYTHONPATH": os.fspath(SOURCE),
            "PYTHONDONTWRITEBYTECODE": "1",  # two edits in one second have one date
            "COLUMNS": "200",
            "PERDURE_TOKEN": TOKEN,
        },
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        yield Running(process)
    finally:
        kill_with_its_children(process)
        assert process.stderr is not None
        process.stderr.close()


def settings(place: Path, shop: str) -> None:
    (place / "local.settings.json").write_text(json.dumps({"Values": {"SHOP": shop}}))


def until_it_waits(api: str, instance_id: str) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        answer = httpx2.get(f"{api}/instances/{instance_id}", headers=KEY, timeout=PATIENCE)
        if answer.json()["customStatus"] == "waits":
            return
        time.sleep(0.02)
    raise AssertionError(answer.text)


@pytest.mark.timeout(500)
def test_with_reload_edits_count_and_a_syntax_error_in_between_is_told(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "host.json").write_text("{}")
    settings(app, "Delft")
    (app / "function_app.py").write_text(CODE.replace("GENERATION", "one"))
    with command(tmp_path, "app", "--reload", "--store", "sqlite:///hub.db") as running:
        api = running.api()
        start(api, "waits", "w")
        until_it_waits(api, "w")

        (app / "function_app.py").write_text("def broken(:")
        assert str(app / "function_app.py") in running.until("it cannot be imported: .*function_app.py")[0]
        running.until("SyntaxError")
        (app / "function_app.py").write_text(CODE.replace("GENERATION", "two"))
        api = running.api()
        start(api, "waits", "x")
        until_it_waits(api, "x")

        settings(app, "Gouda")
        api = running.api()
        for instance_id in ("w", "x"):
            raise_event(api, instance_id, "Go", None)
        assert outcome(api, "w") == [["one", 1, "Delft"], ["two", 2, "Gouda"]]
        assert outcome(api, "x") == [["two", 1, "Delft"], ["two", 2, "Gouda"]]

        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(PATIENCE) == 0


def workers_of(running: Running) -> list[int]:
    """The processes that serve: children of the command that have its target in their command line, too."""
    tasks = Path(f"/proc/{running.process.pid}/task").glob("*/children")
    ids = [one for task in tasks for one in task.read_text().split()]
    lines = {int(one): Path(f"/proc/{one}/cmdline").read_text().split("\0") for one in ids}
    return [one for one, line in lines.items() if "run" in line and os.fspath(APPS / "traps") in line]


def until_shared_out(url: str, workers: int) -> None:
    """Until so many workers own all partitions of the hub."""
    ends = time.monotonic() + PATIENCE
    with psycopg.connect(url, autocommit=True) as looking:
        while time.monotonic() < ends:
            owned = looking.execute(
                "select count(*) from perdure.partitions where incarnation is not null group by incarnation"
            ).fetchall()
            if len(owned) == workers and sum(count for (count,) in owned) == PARTITIONS:
                return
            time.sleep(0.05)
    raise AssertionError(owned)


@pytest.mark.timeout(500)
def test_three_workers_share_the_instances_of_a_folder_and_one_of_them_is_killed(
    tmp_path: Path, newest_url: str
) -> None:
    programs = [one for one in COMPLETED if one.name not in BY_THE_CLOCK | ONE_AT_A_TIME]
    instances = [(one, f"{one.name}-{n}") for one in programs for n in range(2)]
    options = ("--store", newest_url, "--workers", "3", "--lease", "5")
    with command(tmp_path, os.fspath(APPS / "traps"), *options) as running:
        api = running.api()
        until_shared_out(newest_url, 3)
        for program, instance_id in instances:
            start(api, program.name, instance_id, program.input)
        workers = workers_of(running)
        assert len(workers) == 3
        os.kill(min(workers), signal.SIGKILL)
        for program, instance_id in instances:
            for name, data in program.events:
                raise_event(api, instance_id, name, data)
        for program, instance_id in instances:
            assert outcome(api, instance_id) == program.output, instance_id
        until_shared_out(newest_url, 3)
