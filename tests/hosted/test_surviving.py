"""The traps on stores that outlive the process: the engine stops in each step, is killed, or loses its worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure.hosts.azure_functions.application import load
from perdure.model.instances import RuntimeStatus
from perdure.testing import DurableEnvironment, environment
from tests.hosted.programs import APPS, COMPLETED, Program

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SOURCE = Path(__file__).parents[2] / "src"
TOKEN = "the-token-of-the-hosted-app"
KEY = {"x-functions-key": TOKEN}
LONGEST = 40  # steps of time
BY_THE_CLOCK = frozenset({"reused_timer", "cancelled_timers", "failed_inner", "long_timer", "retried"})
ONE_AT_A_TIME = frozenset({"entities", "identity", "plain_generations"})
"""Programs that wait for hours or measure time, and those whose output is about one instance of that id."""
PATIENCE = 200  # seconds: processes start and stop here, on machines that may be slow


async def restarting(env: DurableEnvironment, program: Program) -> Any:
    """Run a program, and restart the engine after each event and each advance of the clock."""
    instance_id = await env.client.start_new(program.name, program.name, program.input)
    await env.restart()
    for name, data in program.events:
        await env.settled()
        await env.client.raise_event(instance_id, name, data)
        await env.restart()
    for _ in range(LONGEST):
        await env.settled()
        status = await env.client.get_status(instance_id)
        if status.is_finished:
            return status
        await env.restart()
        due = env.engine.store.get(instance_id).row.due_at  # type: ignore[union-attr]
        await env.advance(days=60) if due is None else await env.advance(
            seconds=max(due - env.clock.now(), 0) / 1e6
        )
    return await env.client.get_status(instance_id)


@pytest.mark.parametrize("program", COMPLETED, ids=lambda one: one.name)
async def test_a_program_comes_to_the_same_when_the_engine_restarts_in_each_step(
    program: Program, tmp_path: Path
) -> None:
    async with environment(load(APPS / "traps").app, store=f"sqlite:///{tmp_path}/hub.db") as env:
        status = await restarting(env, program)

    assert (status.runtime_status, status.output) == (RuntimeStatus.Completed, program.output), status.failure


@contextmanager
def served(place: Path, store: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`perdure run` of the app `traps` in a process of its own, and its address. It ends by SIGKILL."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "perdure.cli",
            "run",
            os.fspath(APPS / "traps"),
            "--store",
            store,
            "--port",
            "0",
            *options,
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.fspath(SOURCE), "COLUMNS": "200", "PERDURE_TOKEN": TOKEN},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        told = iter(process.stderr.readline, "")
        found = next(found for line in told if (found := re.search(r"pages +(http://\S+)/", line)))
        yield process, f"{found[1]}/runtime/webhooks/durabletask"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()


def start(api: str, name: str, instance_id: str, input_: Any = None) -> None:
    address = f"{api}/orchestrators/{name}/{instance_id}"
    httpx2.post(address, json=input_, headers=KEY, timeout=PATIENCE).raise_for_status()


def raise_event(api: str, instance_id: str, name: str, data: Any) -> None:
    address = f"{api}/instances/{instance_id}/raiseEvent/{name}"
    httpx2.post(address, json=data, headers=KEY, timeout=PATIENCE).raise_for_status()


def outcome(api: str, instance_id: str) -> Any:
    """The output, once it is there; the server is asked to wait for it."""
    while True:
        answer = httpx2.get(f"{api}/instances/{instance_id}?wait=30", headers=KEY, timeout=PATIENCE)
        if answer.status_code != 202:
            break
    status = answer.json()
    assert status["runtimeStatus"] == "Completed", status
    return status["output"]


@pytest.mark.timeout(500)
def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    store = "sqlite:///hub.db"
    with served(tmp_path, store) as (_, api):
        start(api, "newest_wait", "w")
        start(api, "names", "n")
    with served(tmp_path, store) as (_, api):
        raise_event(api, "w", "GO", "a")
    with served(tmp_path, store) as (_, api):
        raise_event(api, "w", "go", "b")
        start(api, "entities", "e")
        assert outcome(api, "w") == [True, "a", True, "b"]
    with served(tmp_path, store) as (_, api):
        assert outcome(api, "n")[:3] == ["A", 4, 6]
        assert outcome(api, "e") == [5, "broken: counter with@sign", 5, 0]


@pytest.mark.long
@pytest.mark.timeout(500)
def test_another_worker_takes_over_what_a_killed_one_runs(tmp_path: Path, newest_url: str) -> None:
    copies = 3  # ids on several partitions, of which each worker owns a part
    programs = [one for one in COMPLETED if one.name not in BY_THE_CLOCK | ONE_AT_A_TIME]
    running = [(one, f"{one.name}-{n}") for one in programs for n in range(copies)]
    with ExitStack() as others:
        with served(tmp_path, newest_url, "--lease", "2") as (_, first):
            _, api = others.enter_context(served(tmp_path, newest_url, "--lease", "2"))
            for program, instance_id in running:
                start(first, program.name, instance_id, program.input)
        for program, instance_id in running:
            for name, data in program.events:
                raise_event(api, instance_id, name, data)
        for program, instance_id in running:
            assert outcome(api, instance_id) == program.output, instance_id
