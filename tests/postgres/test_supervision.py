"""`perdure run --workers`: real processes that are killed, stopped, held up, replaced and drained."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from perdure.model.instances import PARTITIONS
from perdure.server.lease_keeper import is_at_work
from tests.postgres.fixtures import Servers
from tests.postgres.servers import NEWEST, free_port
from tests.postgres.test_commands import told

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, ctypes, os
import perdure as df

app = df.App("supervised")

@app.activity
async def slow(name: str, context: df.ActivityContext) -> int:
    with open("ran", "a") as log:
        log.write(f"{name} {os.getpid()}\\n")
    await asyncio.sleep(1.5)
    return os.getpid()

@app.activity
def hold(seconds: int) -> int:
    ctypes.PyDLL(None).sleep(seconds)  # PyDLL keeps the interpreter's lock for as long as the call takes
    return os.getpid()

@app.orchestrator
async def work(context: df.OrchestrationContext, name: str) -> int:
    return await context.call_activity(slow, name)

@app.orchestrator
async def held_up(context: df.OrchestrationContext, seconds: int) -> int:
    return await context.call_activity(hold, seconds)

@app.route("/start/{kind}/{id}", methods=["POST"], auth="anonymous")
async def start(request, client: df.Client):
    kind, instance_id = request.path_params["kind"], request.path_params["id"]
    await client.start_new(kind, instance_id, await request.json())
    return {"pid": os.getpid()}
"""


TOKEN = "the-token-of-these-workers"


class Running:
    """A supervisor and its workers."""

    def __init__(self, folder: Path, url: str, *options: str) -> None:
        self.url = url
        self.lines: list[str] = []
        command = [sys.executable, "-u", "-m", "perdure.cli", "run", "app.py", "--port", "0", "--store", url]
        self.process = subprocess.Popen(
            [*command, *options],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": os.fspath(ROOT / "src"),
                "COLUMNS": "300",
                "PERDURE_TOKEN": TOKEN,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def said(self) -> str:
        return "".join(self.lines)

    @property
    def address(self) -> str:
        found = re.search(r"pages +(http://\S+?)/", self.said)
        assert found, self.said
        return found[1]

    @property
    def children(self) -> list[int]:
        return sorted(one.pid for one in psutil.Process(self.process.pid).children())

    def workers(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in told("workers", "--store", self.url)}

    def serving(self) -> dict[str, int]:
        """Names and process ids of the workers that serve, as the supervisor has said."""
        found = re.findall(r"worker (\S+) serves \(pid (\d+)\)", self.said)
        return {name: int(pid) for name, pid in found if is_at_work(int(pid))}

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def shared_out(self, count: int = 2) -> bool:
        living = [one for one in self.workers().values() if one["state"] == "living"]
        return len(living) == count and all(one["partitions"] == PARTITIONS // count for one in living)

    def start(self, kind: str, instance_id: str, body: object) -> httpx2.Response:
        return httpx2.post(
            f"{self.address}/api/start/{kind}/{instance_id}", json=body, timeout=30, trust_env=False
        )

    def output(self, instance_id: str) -> Any:
        return told("status", instance_id, "--wait", "--store", self.url)["output"]

    def end(self) -> None:
        families = [self.process.pid, *(self.children if self.process.poll() is None else [])]
        for pid in families:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(60)
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(folder: Path, url: str, *options: str) -> Iterator[Running]:
    (folder / "app.py").write_text(PROGRAM)
    one = Running(folder, url, *options)
    try:
        yield one
    finally:
        one.end()


@pytest.fixture(scope="module")
def patient(postgres_servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two workers whose leases outlast the tests: what is taken over was let go of before."""
    folder = tmp_path_factory.mktemp("patient")
    with postgres_servers(NEWEST).database() as url:
        secret = url.replace("postgres@", "postgres:hunter2@")
        with running(folder, secret, "--workers", "2", "--lease", "300", "--drain", "10") as one:
            one.until(lambda: len(one.serving()) == 2)
            one.until(one.shared_out)
            yield one


def test_one_address_one_token_and_no_password(patient: Running) -> None:
    tokens = [TOKEN]
    assert TOKEN not in patient.said, "it was given, so nobody has to be told"
    assert "hunter2" not in patient.said
    listed = " ".join(" ".join(psutil.Process(pid).cmdline()) for pid in patient.children)
    assert "hunter2" not in listed
    assert tokens[0] not in listed
    asked = f"{patient.address}/runtime/webhooks/durabletask/workers"
    answers = [
        httpx2.get(asked, headers={"x-functions-key": tokens[0]}, trust_env=False, timeout=60)
        for _ in range(20)
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert httpx2.get(asked, trust_env=False, timeout=60).status_code == 401


def test_the_work_of_a_dead_worker_is_taken_over_at_once_and_another_is_started(patient: Running) -> None:
    before = patient.workers()
    ids = [f"kill-{n}" for n in range(8)]
    for one in ids:
        assert patient.start("work", one, one).status_code == 200
    name, pid = next(iter(patient.serving().items()))
    since = time.monotonic()
    os.kill(pid, signal.SIGKILL)

    outputs = [patient.output(one) for one in ids]
    assert time.monotonic() - since < 60 < before[name]["leaseLeft"]
    assert pid not in outputs or len(set(outputs)) > 1
    patient.until(lambda: name not in patient.workers() and patient.shared_out())
    assert f"{name} (pid {pid}) was killed by SIGKILL" in patient.said
    patient.until(lambda: len(patient.serving()) == 2)  # the supervisor says so after the database does


def test_a_rolling_restart_runs_nothing_twice_and_refuses_nobody(patient: Running) -> None:
    before = {one["incarnation"] for one in patient.workers().values()}
    names = set(patient.serving())
    over, answers, ids = threading.Event(), [], []

    def knock() -> None:
        while not over.is_set():
            ids.append(f"roll-{len(ids)}")
            answers.append(patient.start("work", ids[-1], ids[-1]).status_code)
            over.wait(0.3)

    visitor = threading.Thread(target=knock)
    visitor.start()
    try:
        patient.process.send_signal(signal.SIGHUP)
        patient.until(lambda: len(set(patient.serving()) - names) == 2, 120)
    finally:
        over.set()
        visitor.join()
    outputs = [patient.output(one) for one in ids]

    assert set(answers) == {200}
    assert len(outputs) == len(ids)
    ran = (Path(psutil.Process(patient.process.pid).cwd()) / "ran").read_text().split("\n")
    rolled = [line.split()[0] for line in ran if line.startswith("roll-")]
    assert sorted(rolled) == sorted(ids)
    patient.until(patient.shared_out)
    assert not before & {one["incarnation"] for one in patient.workers().values()}


def test_a_signal_drains_all_and_leaves_nobody_behind(patient: Running) -> None:
    assert patient.start("work", "last", "last").status_code == 200
    children = patient.children
    patient.process.terminate()
    assert patient.process.wait(30) == 0
    patient.until(lambda: "stopped" in patient.said)
    assert patient.workers() == {}
    assert not any(is_at_work(pid) for pid in children)
    assert "Traceback" not in patient.said


def test_one_that_is_held_up_keeps_its_share_and_one_that_is_stopped_does_not(
    newest_url: str, tmp_path: Path
) -> None:
    with running(tmp_path, newest_url, "--workers", "2", "--lease", "1.5") as one:
        one.until(lambda: len(one.serving()) == 2)
        one.until(one.shared_out)
        before = {name: worker["incarnation"] for name, worker in one.workers().items()}
        assert one.start("held_up", "held", 6).status_code == 200
        assert one.output("held") in one.serving().values()
        assert {name: worker["incarnation"] for name, worker in one.workers().items()} == before

        name, pid = next(iter(one.serving().items()))
        os.kill(pid, signal.SIGSTOP)
        one.until(lambda: before[name] not in [w["incarnation"] for w in one.workers().values()], 20)
        one.until(lambda: [w["partitions"] for w in one.workers().values()] == [PARTITIONS], 20)
        os.kill(pid, signal.SIGCONT)
        one.until(one.shared_out, 30)
        assert set(one.workers()) == set(before)
        assert one.workers()[name]["incarnation"] != before[name]


def test_code_that_does_not_start_replaces_one_and_a_second_signal_ends_all_at_once(
    newest_url: str, tmp_path: Path
) -> None:
    with running(tmp_path, newest_url, "--workers", "2", "--drain", "60") as one:
        one.until(lambda: len(one.serving()) == 2)
        (tmp_path / "app.py").write_text("import nothing_of_the_kind\n")
        one.process.send_signal(signal.SIGHUP)
        one.until(lambda: "the other workers are not replaced" in one.said)
        assert len(one.serving()) == 1
        assert one.start("work", "meanwhile", "meanwhile").status_code == 200
        assert one.output("meanwhile") in one.serving().values()
        (tmp_path / "app.py").write_text(PROGRAM)
        one.until(lambda: len(one.serving()) == 2)

        with suppress(httpx2.TimeoutException):
            httpx2.post(f"{one.address}/api/start/held_up/held", json=60, timeout=1, trust_env=False)
        children = one.children
        one.process.terminate()
        one.until(lambda: "stopping: workers hand over" in one.said)
        assert one.process.poll() is None
        one.process.terminate()
        assert one.process.wait(60) == 0
        assert not any(is_at_work(pid) for pid in children)


def test_one_alone_that_is_started_again_need_not_wait_for_its_own_lease(
    newest_url: str, tmp_path: Path
) -> None:
    with running(tmp_path, newest_url, "--lease", "300") as one:
        one.until(lambda: "pages" in one.said)
        one.until(lambda: one.shared_out(1))
        assert one.start("work", "cut-short", "cut-short").status_code == 200
        os.kill(one.process.pid, signal.SIGKILL)
        one.process.wait()
        [dead] = one.workers().values()
        assert dead["leaseLeft"] > 200
    with running(tmp_path, newest_url, "--lease", "300") as other:
        other.until(lambda: "pages" in other.said)
        assert other.output("cut-short") == other.process.pid
        other.until(lambda: other.shared_out(1))


def test_workers_without_a_supervisor_stop(newest_url: str, tmp_path: Path) -> None:
    with running(tmp_path, newest_url, "--workers", "1", "--role", "worker") as one:
        one.until(lambda: "serves (pid" in one.said)
        assert "pages" not in one.said
        children = one.children
        os.kill(one.process.pid, signal.SIGKILL)
        one.until(lambda: not any(psutil.pid_exists(pid) and is_at_work(pid) for pid in children), 30)
        assert one.workers() == {}


def test_what_is_wrong_with_one_is_said_once_and_nobody_is_started(newest_url: str, tmp_path: Path) -> None:
    with running(tmp_path, newest_url, "--workers", "3") as one:
        one.until(lambda: "serves (pid" in one.said)
        one.process.terminate()
        assert one.process.wait(30) == 0
    (tmp_path / "broken.py").write_text("import nothing_of_the_kind\n")
    command = [sys.executable, "-m", "perdure.cli", "run", "broken.py", "--workers", "3", "--port", "0"]
    done = subprocess.run(
        [*command, "--store", newest_url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.count("No module named 'nothing_of_the_kind'") == 1
    assert "before it was ready. The other workers are not started" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_that_waits_for_a_database_is_told_of_once(tmp_path: Path) -> None:
    store = f"postgresql://me:hunter2@127.0.0.1:{free_port()}/claims"
    with running(tmp_path, store, "--workers", "2", "--store-wait", "1") as one:
        assert one.process.wait(60) == 4
        one.until(lambda: "are not started" in one.said)
        assert one.said.count("waiting for the database") == 1
        assert "hunter2" not in one.said
