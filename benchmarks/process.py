"""An engine as a process of its own: started, asked, measured, ended."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.install import cache_folder
from benchmarks.machine import Meter, Used, ahead_of_others, memory_of_tree

HERE = Path(__file__).parent


class EngineFailed(Exception):
    """The engine answered with an error, too late, or not at all."""


@dataclass(frozen=True)
class Kind:
    """How to start one engine, if it is installed."""

    name: str
    script: str
    environment: str = ""  # which of install.py's; "" is the harness's own
    arguments: tuple[str, ...] = ()
    workers: int = 1  # processes that share a database

    @property
    def python(self) -> Path:
        if not self.environment:
            return Path(sys.executable)
        return cache_folder() / self.environment / "venv" / "bin" / "python"

    def missing(self) -> str:
        """What has to be done before it can run; "" when nothing has."""
        if not self.python.exists() or (self.environment == "restate" and restate_server() is None):
            return f"not installed: run `python -m benchmarks.install {self.environment}`"
        return ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("baseline", "run_baseline.py"),
        Kind("perdure", "run_perdure.py"),
        Kind("restate", "run_restate.py", "restate"),
        Kind("dbos", "run_dbos.py", "dbos"),
        Kind("dbos-sync", "run_dbos.py", "dbos", ("sync",)),
    )
}


def restate_server() -> Path | None:
    """The server's program, which npm has put there for this machine."""
    packages = cache_folder() / "restate" / "node_modules" / "@restatedev"
    return next(iter(sorted(packages.glob("restate-server-*/bin/restate-server"))), None)


@dataclass
class MeasuredProcess:
    """An engine that serves. `ready_seconds` is from the start of its process."""

    process: subprocess.Popen[bytes]
    log: Path
    ready_seconds: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)
    beside: tuple[int, ...] = ()  # other processes that work for it, such as a database server
    goes_ahead: bool = False  # of everybody else, while it is measured

    @property
    def roots(self) -> tuple[int, ...]:
        """The processes whose work, with that of their descendants, counts as this engine's."""
        return (self.process.pid, *self.beside)

    @property
    def memory(self) -> float:
        """KiB."""
        return memory_of_tree(self.process.pid)

    def meter(self) -> Meter:
        return Meter(*self.roots)

    def ask(self, do: str, patience: float = 300, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(do, **arguments)
        return self.answer(patience)

    def send(self, do: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise EngineFailed(f"it has ended:\n{self.last_words()}") from None

    def measured(self, do: str, patience: float = 300, **arguments: Any) -> tuple[dict[str, Any], Used]:
        """Ask, and measure what it costs meanwhile."""
        with ahead_of_others(self.roots) if self.goes_ahead else nullcontext():
            meter = self.meter()
            return self.ask(do, patience, **arguments), meter.stop()

    def answer(self, patience: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if not ready.select(patience):
                raise EngineFailed(f"no answer within {patience:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise EngineFailed(f"it has ended:\n{self.last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineFailed(f"{answer['error']}\n{self.last_words()}")
        return answer

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


@contextmanager
def running(kind: Kind, folder: Path, *, keep: bool = False) -> Iterator[MeasuredProcess]:
    """The engine, serving the data in the folder, which is emptied before unless it is to be kept."""
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_name(folder.name + ".log")
    begun = time.perf_counter()
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [str(kind.python), str(HERE / "engines" / kind.script), str(folder), *kind.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(kind),
            start_new_session=True,
        )
    engine = MeasuredProcess(process, log)
    try:
        engine.about = engine.answer(patience=120)
        engine.ready_seconds = time.perf_counter() - begun
        yield engine
    finally:
        _end(process)


def _environment(kind: Kind) -> dict[str, str]:
    environment = dict(os.environ)
    environment.pop("PYTHONPATH", None)
    if not kind.environment:
        source = str(HERE.parent / "src")
        environment["PYTHONPATH"] = source if Path(source).is_dir() else ""
    if (server := restate_server()) is not None:
        environment["RESTATE_SERVER"] = str(server)
    return environment


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate it, and then its whole session, which contains only processes of this run."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
