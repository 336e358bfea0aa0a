"""The services of the demo: processes of their own, which the killing of the server does not touch."""

import asyncio
import importlib.util
import os
import secrets
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx2

from examples.claims.connections import home
from examples.claims.demo.server import REPOSITORY, ServerFailed, free_port, python_path

PATIENCE = 60.0  # seconds until a service must answer; fraud scoring trains its model first
FIRST_PORT = 7081
NAMES = ("fraud", "photos", "bank", "post")
NEEDED = {"fraud": "sklearn", "photos": "skimage"}  # of the extra `demo`; without them a stand-in serves


@asynccontextmanager
async def services() -> AsyncIterator[Mapping[str, str]]:
    """Start all services at the same time; gives the address of each."""
    ports = {name: free_port(FIRST_PORT + 10 * number) for number, name in enumerate(NAMES) if _is_here(name)}
    async with AsyncExitStack() as stack:
        for name, port in ports.items():
            await stack.enter_async_context(_running(name, port))
        urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        async with asyncio.timeout(PATIENCE), httpx2.AsyncClient(trust_env=False) as http:
            await asyncio.gather(*(_healthy(http, url) for url in urls.values()))
        yield urls


def environment(urls: Mapping[str, str], office: str) -> dict[str, str]:
    """What the server must know of the services and of the office."""
    return {f"CLAIMS_{name.upper()}_URL": url for name, url in urls.items()} | {"CLAIMS_OFFICE_URL": office}


@asynccontextmanager
async def _running(name: str, port: int) -> AsyncIterator[None]:
    with (home() / f"claims-{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"examples.claims.services.{name}"),
            *("--port", str(port), "--home", str(home())),
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *python_path()])},
        )
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _healthy(http: httpx2.AsyncClient, url: str) -> None:
    while True:
        try:
            if (await http.get(f"{url}/health")).is_success:
                return
        except httpx2.TransportError:
            await asyncio.sleep(0.1)


def _is_here(name: str) -> bool:
    wanted = [f"examples.claims.services.{name}.__main__", *([NEEDED[name]] if name in NEEDED else [])]
    try:
        return all(importlib.util.find_spec(module) is not None for module in wanted)
    except ModuleNotFoundError:
        return False


def share_secrets() -> None:
    """Make the key of fraud scoring, which the server names and never keeps."""
    os.environ.setdefault("CLAIMS_FRAUD_KEY", secrets.token_urlsafe(24))
    os.environ.setdefault("CLAIMS_PHOTOS", str(Path(home()) / "photos"))


__all__ = ["ServerFailed", "environment", "services", "share_secrets"]
