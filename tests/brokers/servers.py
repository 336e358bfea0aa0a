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
from dataclasses import dataclass, field
from pathlib import Path

from tests.postgres.servers import free_port

START_WITHIN = 60.0  # seconds
ACCOUNT = "devstoreaccount1"
# The account that every Azurite has, as its documentation prints it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass
class Server:
    """A broker that can be killed and started again with all that it had written."""

    url: str
    command: list[str]
    port: int
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens. Raises RuntimeError with what it said."""
        if shutil.which(self.command[0]) is None:
            raise RuntimeError(
                f"{self.command[0]} is missing: run `make brokers` (as root), or `make test` which does"
            )
        log = self.directory / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                cwd=self.directory,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        _await(lambda: _is_open(self.port), self.process, log)

    def kill(self) -> None:
        """End it as a power cut would: at once, all its processes, and nothing is written any more."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)

    def stop(self) -> None:
        """End it, gently if it will."""
        if self.process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, sign)
                self.process.wait(60)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """A server in a process group of its own, until the block ends."""
    try:
        server.start()
        yield server
    finally:
        server.stop()


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
def redis(directory: Path, *, durable: bool = False) -> Iterator[Server]:
    """A Redis; durable, it has everything on disk before it answers."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    kept = ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
    with serving(
        Server(f"redis://127.0.0.1:{port}/0", [*command, "--save", "", *kept], port, directory)
    ) as server:
        yield server


@contextmanager
def rabbitmq(directory: Path, *, durable: bool = False) -> Iterator[Server]:
    """A RabbitMQ; persistent messages in durable queues are on disk when it confirms them, in any case."""
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
    url = f"amqp://guest:guest@127.0.0.1:{port}/"
    try:
        with serving(Server(url, [command], port, directory, environment)) as server:
            yield server
    finally:  # it puts a daemon of its own into the background
        subprocess.run(
            ["epmd", "-port", str(epmd), "-kill"], env={**os.environ, **environment}, capture_output=True
        )


@contextmanager
def azurite(directory: Path, *, durable: bool = False) -> Iterator[Server]:
    """Azurite's queues, by their connection string; durable, it writes everything to disk every five seconds."""
    port = free_port()
    program = Path(__file__).parents[2] / ".venv" / "azurite" / "node_modules" / ".bin" / "azurite-queue"
    found = os.environ.get("PERDURE_AZURITE") or (str(program) if program.exists() else "azurite-queue")
    command = [found, "--queueHost", "127.0.0.1", "--queuePort", str(port)]
    kept = ["--location", str(directory)] if durable else ["--inMemoryPersistence"]
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"QueueEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )
    with serving(
        Server(
            connection,
            [*command, "--silent", "--disableTelemetry", "--skipApiVersionCheck", *kept],
            port,
            directory,
        )
    ) as server:
        yield server
