"""The engine's side of the protocol, and the client loop that is the same for every engine.

The harness writes one JSON command a line to stdin: `{"do": "hello", "count": 1000, "together": 100}`. The
engine answers with one JSON line on stdout, `{"seconds": …}` or `{"error": …}`. Only the standard library:
this file runs in the environment of every peer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable
from typing import Any


class EngineOverWire:
    """What an engine has to be able to do. The workloads are written once, below, in terms of this."""

    name = ""
    workloads: tuple[str, ...] = ("W1", "W2", "W3", "W4", "W5")
    most_together = 1_000  # workflows at a time that it can bear
    most_waiting = 1_000_000  # instances for W5 that it can bear in reasonable time

    async def open(self, folder: str) -> dict[str, str]:
        """Start serving data in this folder; returns the versions of what is measured."""
        raise NotImplementedError

    async def close(self) -> None:
        """Stop serving; data stay."""

    async def hello(self, key: str) -> list[str]:
        """Run one workflow of three activities in sequence, and return their three results."""
        raise NotImplementedError

    async def fan(self, count: int) -> int:
        """Run one workflow of `count` activities in parallel; returns how many results it saw."""
        raise NotImplementedError

    async def sequence(self, count: int) -> int:
        """Run one workflow of `count` activities in sequence; returns how many results it saw."""
        raise NotImplementedError

    async def start_waiting(self, keys: list[str]) -> None:
        """Start one workflow a key that waits for an event; return when all of them wait."""
        raise NotImplementedError

    async def finish_waiting(self, keys: list[str]) -> None:
        """Send each its event, and return when all have finished."""
        raise NotImplementedError


async def bounded(work: Callable[[Any], Awaitable[Any]], items: Iterable[Any], together: int) -> list[Any]:
    """Do the work for each item, so many at a time."""
    left = iter(items)
    results: list[Any] = []

    async def one_after_another() -> None:
        results.extend([await work(item) for item in left])

    await asyncio.gather(*[one_after_another() for _ in range(together)])
    return results


class Driver:
    """Carries out the harness's commands."""

    def __init__(self, engine: EngineOverWire) -> None:
        self.engine = engine

    async def hello(self, prefix: str, count: int, together: int) -> dict[str, Any]:
        latencies: list[float] = []

        async def one(no: int) -> None:
            begun = time.perf_counter()
            results = await self.engine.hello(f"{prefix}{no}")
            latencies.append((time.perf_counter() - begun) * 1e3)
            if len(results) != 3:
                raise RuntimeError(f"hello came back with {results!r}")

        seconds = await timed(bounded(one, range(count), min(together, self.engine.most_together)))
        return {"seconds": seconds, "latencies_ms": [round(one, 4) for one in latencies]}

    async def fan(self, count: int) -> dict[str, Any]:
        return {"seconds": await timed(self._expect(self.engine.fan(count), count))}

    async def sequence(self, count: int) -> dict[str, Any]:
        return {"seconds": await timed(self._expect(self.engine.sequence(count), count))}

    async def start_waiting(self, prefix: str, count: int) -> dict[str, Any]:
        return {"seconds": await timed(self.engine.start_waiting(_keys(prefix, count)))}

    async def finish_waiting(self, prefix: str, count: int) -> dict[str, Any]:
        return {"seconds": await timed(self.engine.finish_waiting(_keys(prefix, count)))}

    async def _expect(self, answer: Awaitable[int], wanted: int) -> None:
        found = await answer
        if found != wanted:
            raise RuntimeError(f"{wanted} results were expected, {found} came")


async def timed(work: Awaitable[Any]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    await work
    return time.perf_counter() - begun


def _keys(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{no}" for no in range(count)]


def serve(engine: EngineOverWire) -> None:
    """Run the engine until stdin ends. The first argument is its data folder."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer

    def say(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    asyncio.run(_serve(engine, sys.argv[1], say))
    answers.flush()
    os._exit(0)  # some peers leave threads behind that never end


async def _serve(engine: EngineOverWire, folder: str, say: Callable[[dict[str, Any]], None]) -> None:
    begun = time.perf_counter()
    versions = await engine.open(folder)
    say(
        {
            "engine": engine.name,
            "versions": versions,
            "open_seconds": time.perf_counter() - begun,
            "workloads": engine.workloads,
            "most_waiting": engine.most_waiting,
        }
    )
    driver = Driver(engine)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            verb = command.pop("do")
            action = getattr(engine, f"do_{verb}", None) or getattr(driver, verb)
            try:
                say(await action(**command))
            except Exception as error:
                traceback.print_exc()
                say({"error": f"{type(error).__name__}: {error}"[:500]})
    finally:
        await engine.close()
