"""Real brokers on loopback: started with everything they write in one directory, and surely stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

START_WITHIN = 60.0  # seconds
ACCOUNT = "devstoreaccount1"
# The account that every Azurite has, as its documentation prints it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(
    command: list[str], port: int, directory: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own, until the block ends. Raises RuntimeError with what it said."""
    if shutil.which(command[0]) is None:
        raise RuntimeError(
            f"{command[0]} is missing: run `make brokers` (as root), or `make test` which does"
        )
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await(lambda: _is_open(port), process, log)
        yield process
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, sign)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _await(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2_000:]}")
        time.sleep(0.05)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    """A Redis; yields its URL."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    with serving([*command, "--save", ""], port, directory):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def rabbitmq(directory: Path) -> Iterator[str]:
    """A RabbitMQ; yields its URL."""
    port, distribution, epmd = free_port(), free_port(), free_port()
    (directory / "rabbit.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    (directory / "plugins").write_text("[].\n")
    environment = {
        "HOME": str(directory),
        "RABBITMQ_NODENAME": f"perdure{port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbit.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "ERL_EPMD_PORT": str(epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    command = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the wrapper would change to another user
    try:
        with serving([command], port, directory, environment):
            yield f"amqp://guest:guest@127.0.0.1:{port}/"
    finally:  # it puts a daemon of its own into the background
        subprocess.run(
            ["epmd", "-port", str(epmd), "-kill"], env={**os.environ, **environment}, capture_output=True
        )


@contextmanager
def azurite(directory: Path) -> Iterator[str]:
    """Azurite's queues; yields the connection string."""
    port = free_port()
    program = Path(__file__).parents[2] / ".venv" / "azurite" / "node_modules" / ".bin" / "azurite-queue"
    found = os.environ.get("PERDURE_AZURITE") or (str(program) if program.exists() else "azurite-queue")
    command = [found, "--queueHost", "127.0.0.1", "--queuePort", str(port)]
    with serving(
        [*command, "--silent", "--disableTelemetry", "--inMemoryPersistence", "--skipApiVersionCheck"],
        port,
        directory,
    ):
        yield (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
            f"QueueEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
        )
