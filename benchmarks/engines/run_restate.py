"""Restate: its server (one node, RocksDB, log synced), one granian process with the service, and a client here."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
from wire import EngineOverWire, bounded, serve

SERVER = Path(os.environ["RESTATE_SERVER"])
QUIET = {"DO_NOT_TRACK": "1", "RESTATE_DISABLE_TELEMETRY": "true", "RUST_LOG": "warn"}
STARTED = "select count(*) c from sys_invocation where target_service_name = 'idle' and status in "


class Restate(EngineOverWire):
    name = "restate"

    async def open(self, folder: str) -> dict[str, str]:
        ingress, admin, node, service = _free_ports(4)
        self._ingress, self._admin = f"http://127.0.0.1:{ingress}", f"http://127.0.0.1:{admin}"
        self._processes = [
            self._start_server(folder, ingress, admin, node),
            self._start_service(folder, service),
        ]
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600)
        )
        await self._until_ready("get", f"{self._admin}/health")
        await self._until_ready(
            "post", f"{self._admin}/deployments", json={"uri": f"http://127.0.0.1:{service}"}
        )
        await self._until_ready("post", f"{self._ingress}/bench/hello", json="x")
        package = json.loads((SERVER.parent.parent / "package.json").read_text())
        return {
            "restate-server": package["version"],
            "restate-sdk": version("restate-sdk"),
            "granian": version("granian"),
        }

    def _start_server(self, folder: str, ingress: int, admin: int, node: int) -> subprocess.Popen[bytes]:
        addresses = {
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}/",
        }
        return subprocess.Popen(
            [SERVER, "--base-dir", folder, "--node-name", "bench"], env={**os.environ, **QUIET, **addresses}
        )

    def _start_service(self, folder: str, port: int) -> subprocess.Popen[bytes]:
        granian = [str(Path(sys.executable).parent / "granian"), "--interface", "asgi", "--http", "2"]
        listen = ["--host", "127.0.0.1", "--port", str(port), "--loop", "uvloop", "--log-level", "error"]
        return subprocess.Popen([*granian, *listen, "restate_service:app"], cwd=Path(__file__).parent)

    async def _until_ready(self, method: str, url: str, **more: Any) -> None:
        until = time.monotonic() + 60
        trouble: object = ""
        while time.monotonic() < until:
            if any(process.poll() is not None for process in self._processes):
                raise RuntimeError("a process of Restate has ended: see the log")
            try:
                async with self._http.request(method, url, **more) as response:
                    if response.status < 300:
                        return
                    trouble = await response.text()
            except aiohttp.ClientError as error:
                trouble = error
            await asyncio.sleep(0.2)
        raise RuntimeError(f"Restate did not become ready: {trouble}"[:300])

    async def close(self) -> None:
        await self._http.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(20)

    async def hello(self, key: str) -> list[str]:
        return await self._post("/bench/hello", key)

    async def fan(self, count: int) -> int:
        return await self._post("/bench/fan", count)

    async def sequence(self, count: int) -> int:
        return await self._post("/bench/sequence", count)

    async def start_waiting(self, keys: list[str]) -> None:
        await bounded(lambda key: self._post(f"/idle/{key}/run/send", key), keys, 64)
        while await self._waiting() < len(keys):  # noqa: ASYNC110
            await asyncio.sleep(0.2)

    async def finish_waiting(self, keys: list[str]) -> None:
        await bounded(lambda key: self._post(f"/idle/{key}/signal", "yes"), keys, 64)
        await bounded(self._attach, keys, 64)

    async def _waiting(self) -> int:
        query = {"query": STARTED + "('running', 'suspended')"}
        wanted = {"accept": "application/json"}
        async with self._http.post(f"{self._admin}/query", json=query, headers=wanted) as response:
            return int((await response.json())["rows"][0]["c"])

    async def _attach(self, key: str) -> None:
        async with self._http.get(f"{self._ingress}/restate/workflow/idle/{key}/attach") as response:
            if response.status != 200:
                raise RuntimeError(await response.text())

    async def _post(self, path: str, body: object) -> Any:
        async with self._http.post(self._ingress + path, json=body) as response:
            text = await response.text()
            if response.status >= 300:
                raise RuntimeError(f"{response.status} {text[:200]}")
            return json.loads(text) if text else None


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    serve(Restate())
