"""Wide fan-outs, and what others wait meanwhile: `python -m benchmarks.fanout`.

One orchestration asks for many things at once, in several widths, while another client starts small instances one
after the other. A width's time is compared with that of the first, and the longest wait of the other client with
its median, all in one run: both ratios say more than the figures do.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import perdure as df
from benchmarks.report import table

PAUSE = 0.002  # seconds between two starts of the other client
app = df.App("benchmark")


@app.activity
async def echo(value: int) -> int:
    return value


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@app.orchestrator
async def small(context: df.OrchestrationContext, value: int) -> int:
    return value


@app.orchestrator
async def activities(context: df.OrchestrationContext, width: int) -> int:
    return len(await context.task_all([context.call_activity(echo, n) for n in range(width)]))


@app.orchestrator
async def children(context: df.OrchestrationContext, width: int) -> int:
    return len(await context.task_all([context.call_sub_orchestrator(small, n) for n in range(width)]))


@app.orchestrator
async def operations(context: df.OrchestrationContext, width: int) -> int:
    asked = [context.call_entity("@counter@one", "add", 1) for _ in range(width)]
    return len(await context.task_all(asked))


@app.orchestrator
async def timers(context: df.OrchestrationContext, width: int) -> int:
    return len(await context.task_all([context.create_timer(0.1) for _ in range(width)]))


@app.orchestrator
async def events(context: df.OrchestrationContext, width: int) -> int:
    for _ in range(width):
        await context.wait_for_external_event("go")
    return width


KINDS: dict[str, Callable[..., Any]] = {
    one.__name__: one for one in (activities, children, operations, timers, events)
}


@dataclass(frozen=True)
class Found:
    """What one width came to. `waits` are the other client's, in seconds."""

    width: int
    seconds: float
    cpu: float
    waits: list[float]


async def measure(client: df.Client, kind: str, width: int) -> Found:
    """One fan-out, with the other client beside it."""
    waits: list[float] = []
    other = asyncio.create_task(_start_others(client, waits))
    began, cpu = time.perf_counter(), time.process_time()
    instance_id = await client.start_new(KINDS[kind], None, width)
    if kind == "events":
        await _raise_all(client, instance_id, width)
    status = await client.wait_for_completion(instance_id)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    other.cancel()
    if status.output != width:
        raise RuntimeError(
            f"the fan-out of {width} {kind} ended as {status.runtime_status}: {status.failure}"
        )
    return Found(width, seconds, cpu, waits)


async def _start_others(client: df.Client, waits: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await client.start_new(small, None, 1)
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)


async def _raise_all(client: df.Client, instance_id: str, count: int) -> None:
    at_a_time = asyncio.Semaphore(1_000)

    async def one(number: int) -> None:
        async with at_a_time:
            await client.raise_event(instance_id, "go", number)

    await asyncio.gather(*(one(number) for number in range(count)))


async def run(store: str, kind: str, widths: list[int]) -> list[Found]:
    """All widths of one kind on one engine."""
    async with app.running(store=store) as client:
        for _ in range(3):  # what is made once is made now
            await measure(client, kind, 100)
        return [await measure(client, kind, width) for width in widths]


@contextmanager
def _store(name: str) -> Iterator[str]:
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="perdure-fanout-") as folder:
            yield f"sqlite:///{Path(folder)}/hub.db"
        return
    from tests.postgres.servers import Server  # only here: it needs PostgreSQL's programs

    with Server(15) as server, server.database() as url:
        yield url


def rows(kind: str, store: str, repetitions: list[list[Found]]) -> list[list[str]]:
    """Medians over the repetitions, and ratios within each."""
    found = []
    for place, width in enumerate(one.width for one in repetitions[0]):
        own = [repetition[place] for repetition in repetitions]
        base = [repetition[0] for repetition in repetitions]
        waits = [sorted(one.waits) or [0.0] for one in own]
        found.append(
            [
                kind,
                store,
                f"{width:,}",
                f"{statistics.median(one.seconds for one in own):.2f}",
                f"{statistics.median(one.cpu for one in own):.2f}",
                f"{statistics.median(o.cpu / b.cpu for o, b in zip(own, base, strict=True)):.1f}",
                f"{statistics.median(map(statistics.median, waits)) * 1e3:.0f}",
                f"{statistics.median(one[-1] for one in waits) * 1e3:.0f}",
                f"{statistics.median(one[-1] / statistics.median(one) for one in waits):.1f}",
            ]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fanout", description=__doc__)
    parser.add_argument("--widths", default="10000,30000,100000", help="10000,30000,100000")
    parser.add_argument("--kinds", default="activities", help=f"of {','.join(KINDS)} (activities)")
    parser.add_argument("--stores", default="sqlite,postgres", help="of sqlite,postgres")
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    widths = [int(width) for width in given.widths.split(",")]
    lines = []
    for store in given.stores.split(","):
        for kind in given.kinds.split(","):
            repetitions = []
            for _ in range(given.repetitions):
                with _store(store) as url:
                    repetitions.append(asyncio.run(run(url, kind, widths)))
            lines += rows(kind, store, repetitions)
    print(
        table(
            [
                "",
                "store",
                "width",
                "s",
                "CPU s",
                "CPU, times the first",
                "others p50 ms",
                "max ms",
                "max / p50",
            ],
            lines,
            text=(0, 1),
        )
    )


if __name__ == "__main__":
    main()
