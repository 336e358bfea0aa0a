"""`perdure watch`: a terminal that follows an instance."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.cli.test_cli import filled, perdure
from tests.cli.test_run import KEY, PROGRAM, SOURCE, folder, running
from tests.http.conftest import M

__all__ = ["filled", "folder"]


@contextmanager
def watching(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "perdure.cli", "watch", *arguments],
        env={**os.environ, "PYTHONPATH": os.fspath(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_it_follows_to_the_end_and_says_how_that_was(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="watched"))
    with running(folder) as (_, address):
        httpx2.post(f"{address}/api/begin", trust_env=False, timeout=60)
        with watching("w-1", "--store", str(folder / "perdure.db")) as process:
            begun = first_line(process)
            event = httpx2.post(
                f"{address}{M}/instances/w-1/raiseEvent/go",
                json={"n": 7},
                headers=KEY,
                trust_env=False,
                timeout=60,
            )
            rest, complaints = process.communicate(timeout=60)

    assert event.status_code == 202
    assert "Running" in begun and "waiting for the event 'go'" in begun
    assert rest.splitlines()[-1].endswith('Completed  {"n": 7}')
    assert (process.returncode, complaints) == (0, "")


def test_ctrl_c_ends_watching_and_not_the_instance(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="watched"))
    with running(folder) as (_, address):
        httpx2.post(f"{address}/api/begin", trust_env=False, timeout=60)
        with watching("w-1", "--url", address, "--key", KEY["x-functions-key"]) as process:
            assert "Running" in first_line(process)
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=60)
        status = httpx2.get(f"{address}{M}/instances/w-1", headers=KEY, trust_env=False, timeout=60).json()

    assert process.returncode == 130
    assert "Traceback" not in complaints
    assert status["runtimeStatus"] == "Running"


def test_what_has_ended_is_told_once_and_ends_by_its_code(filled: Path) -> None:
    done = perdure("watch", "done", store=filled)
    failed = perdure("watch", "failed", store=filled)

    assert done.exit_code == 0
    [line] = done.stdout.splitlines()
    assert line.endswith('Completed  {"n": 1}')
    assert failed.exit_code == 1
    assert "Failed  ValueError: " in failed.stdout


def test_programs_get_one_document_a_line(filled: Path) -> None:
    [line] = perdure("watch", "done", "--json", store=filled).stdout.splitlines()

    found = json.loads(line)
    assert (found["instanceId"], found["runtimeStatus"], found["output"]) == ("done", "Completed", {"n": 1})


def test_nobody_is_not_watched(filled: Path) -> None:
    result = perdure("watch", "nobody", store=filled)

    assert (result.exit_code, result.stdout) == (3, "")
    assert "no instance 'nobody'" in result.stderr and "PDR-020" in result.stderr
