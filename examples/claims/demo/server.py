"""The demo's server: `perdure run` in a separate process, so that it can be killed and restarted."""

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import httpx2

REPOSITORY = Path(__file__).parents[3]
AS_CHILD = (sys.executable, "-m", "examples.claims.demo.child")  # then a module: it ends with this process
PATIENCE = 120.0  # seconds until the server must report that it is healthy


class ServerFailed(Exception):
    """The server ended on its own; the text is the end of its log."""


class Server:
    """Start it with `async with`; `keep` restarts it whenever it is killed."""

    def __init__(self, store: Path, port: int = 0, settings: Mapping[str, str] | None = None) -> None:
        """Without a port, it takes the first free one from 7071 on. `settings` are added to its environment."""
        self.store = store
        self._settings = settings or {}
        self.port = port or free_port()
        self.url = f"http://localhost:{self.port}"
        self.token = secrets.token_urlsafe(24)  # the same at every start, so that browsers stay signed in
        self._log = store.with_name(f"{store.name}.log")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def cpu_seconds(self) -> float:
        """The CPU time of the running process, its threads included; 0.0 where the system has no /proc."""
        try:
            times = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return 0.0
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")

    async def __aenter__(self) -> "Server":
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def kill(self) -> None:
        """Send SIGKILL: the server cannot clean up."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    async def keep(self, revived: Callable[[float], Awaitable[None]]) -> None:
        """Restart it after each kill, and report how many seconds it was away. Raises ServerFailed."""
        while self._process:
            code = await self._process.wait()
            if code != -signal.SIGKILL:
                raise ServerFailed(self._last_words())
            died = time.monotonic()
            await self._start()
            await revived(time.monotonic() - died)

    async def _start(self) -> None:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*AS_CHILD, "perdure.cli", "run", "examples.claims:app"),
                *("--store", str(self.store), "--port", str(self.port)),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    **self._settings,
                    "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *python_path()]),
                    "PERDURE_TOKEN": self.token,
                },
            )
        async with asyncio.timeout(PATIENCE), httpx2.AsyncClient(trust_env=False) as http:
            while not await self._is_healthy(http):
                if self._process.returncode is not None:
                    raise ServerFailed(self._last_words())
                await asyncio.sleep(0.05)

    async def _is_healthy(self, http: httpx2.AsyncClient) -> bool:
        try:
            return (await http.get(f"{self.url}/healthz")).is_success
        except httpx2.TransportError:
            return False

    async def _stop(self) -> None:
        if self._process and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text().splitlines()[-15:])


def python_path() -> list[str]:
    return [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]


def free_port(first: int = 7071) -> int:
    """The first free port from 7071 on."""
    for port in range(first, first + 100):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise ServerFailed(f"no free port between {first} and {first + 99}")
