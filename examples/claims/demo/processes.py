"""The services of the demo: processes of their own, which the killing of the server does not touch."""

import asyncio
import importlib.util
import os
import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from examples.claims.connections import home
from examples.claims.demo.server import AS_CHILD, REPOSITORY, ServerFailed, free_port, python_path

PATIENCE = 180.0  # seconds until a service must answer; fraud scoring trains its model first
FIRST_PORT = 7081
NAMES = ("fraud", "photos", "bank", "post")
NEEDED = {"fraud": "sklearn", "photos": "skimage"}  # of the extra `demo`; without them a stand-in serves

# Each request has a thread of its own. More threads within one wait for each other, and busily, on a loaded machine.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@asynccontextmanager
async def services(
    names: Collection[str] = NAMES, *, any_port: bool = False
) -> AsyncIterator[Mapping[str, str]]:
    """Start the services at the same time; gives the address of each, as it prints it when it can answer.

    `any_port` leaves the ports to the system, so that several demos can run at once.
    """
    async with AsyncExitStack() as stack:
        started = {
            name: await stack.enter_async_context(
                _running(name, 0 if any_port else free_port(FIRST_PORT + 10 * number))
            )
            for number, name in enumerate(NAMES)
            if name in names and _is_here(name)
        }
        async with asyncio.timeout(PATIENCE):
            urls = {name: await _address(name, process) for name, process in started.items()}
        yield urls


def environment(urls: Mapping[str, str], office: str) -> dict[str, str]:
    """What the server must know of the services and of the office."""
    return {f"CLAIMS_{name.upper()}_URL": url for name, url in urls.items()} | {"CLAIMS_OFFICE_URL": office}


@asynccontextmanager
async def _running(name: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    with (home() / f"claims-{name}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(*AS_CHILD, f"examples.claims.services.{name}", "--port", str(port), "--home", str(home())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={
                **ONE_THREAD,
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *python_path()]),
            },
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def _address(name: str, process: asyncio.subprocess.Process) -> str:
    """The address in the line that a service prints when it listens."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode().strip()
    if "http://" not in line:
        raise ServerFailed(f"the service {name} did not start: see {home() / f'claims-{name}.log'}")
    return "http://" + line.partition("http://")[2]


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
