"""Activities that other processes import: at the top level of a module, as the guide says."""

import asyncio
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from perdure import ActivityContext


@dataclass
class Photo:
    path: str
    width: int


def describe(photo: Photo, context: ActivityContext) -> dict:
    return {
        "photo": [photo.path, photo.width],
        "pid": os.getpid(),
        "call": [context.instance_id, context.activity_name, context.attempt],
        "key": context.idempotency_key,
    }


async def describe_async(photo: Photo) -> dict:
    await asyncio.sleep(0)
    return {"photo": [photo.path, photo.width], "pid": os.getpid()}


def fail(amount: int) -> None:
    raise ValueError(f"no {amount}")


def leave() -> None:
    raise SystemExit(3)


def die_once(marker: str) -> int:
    """Kills its own process the first time."""
    if not os.path.exists(marker):
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die_always(marker: str) -> None:
    with open(marker, "a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_file(path: str, context: ActivityContext) -> str:
    """Works until a file appears, and says how often it has looked."""
    Path(f"{path}.{context.attempt}.begun").touch()
    looks = 0
    while not os.path.exists(path) and not context.is_cancelled:
        looks += 1
        context.heartbeat([looks, 0])
        time.sleep(0.01)
    if context.is_cancelled:
        Path(f"{path}.cancelled").write_text(context.cancel_reason)
    return "done"


async def wait_for_ever(path: str) -> None:
    _touch(f"{path}.1.begun")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        _touch(f"{path}.cancelled")
        raise


def _touch(path: str) -> None:
    Path(path).touch()


def hang(path: str) -> None:
    """Heeds nothing."""
    Path(f"{path}.1.begun").write_text(str(os.getpid()))
    while True:
        time.sleep(0.05)


def quick() -> int:
    return os.getpid()


class Declined(Exception):
    pass


class FraudSuspected(Declined):
    pass


def refuse(marker: str) -> None:
    _count(marker)
    raise ExceptionGroup("unhandled errors in a TaskGroup", [FraudSuspected("card 4711 was declined")])


def unrecorded(marker: str) -> object:
    _count(marker)
    return object()


async def unrecorded_async(marker: str) -> object:
    return unrecorded(marker)


def _count(marker: str) -> None:
    with open(marker, "a") as file:
        file.write("x")
