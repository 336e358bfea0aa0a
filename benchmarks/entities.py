"""Operations of entities a second: `python -m benchmarks.entities`.

An increment is one operation that changes the state of a counter, class style. Who asks for it differs: a client
signal after signal, an orchestration call after call or all at once, many orchestrations one call each. The store is
SQLite at full durability. Commits are counted, because they are what a disk charges for.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import perdure as df
from benchmarks.report import table

app = df.App("benchmark")


@app.entity
class Counter:
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@app.orchestrator
async def one_by_one(context: df.OrchestrationContext, calls: int) -> int:
    for _ in range(calls):
        last = await context.call_entity("@counter@one", "add", 1)
    return int(last)


@app.orchestrator
async def at_once_one(context: df.OrchestrationContext, calls: int) -> int:
    answers = await context.task_all([context.call_entity("@counter@one", "add", 1) for _ in range(calls)])
    return len(answers)


@app.orchestrator
async def at_once_many(context: df.OrchestrationContext, calls: int) -> int:
    entities = [f"@counter@{number}" for number in range(calls)]
    answers = await context.task_all([context.call_entity(entity, "add", 1) for entity in entities])
    return len(answers)


@app.orchestrator
async def once(context: df.OrchestrationContext, entity: str) -> int:
    async with context.lock(entity):
        return int(await context.call_entity(entity, "add", 1))


async def _finish(client: df.Client, orchestrator: Callable[..., object], input_: object) -> None:
    await client.wait_for_completion(await client.start_new(orchestrator, None, input_))


async def _signals(client: df.Client, count: int, keys: int) -> None:
    at_a_time = asyncio.Semaphore(1_000)

    async def signal(number: int) -> None:
        async with at_a_time:
            await client.signal_entity(f"@counter@{number % keys}", "add", 1)

    await asyncio.gather(*(signal(number) for number in range(count)))


async def _sections(client: df.Client, count: int) -> None:
    ids = await asyncio.gather(*(client.start_new(once, None, "@counter@one") for _ in range(count)))
    await asyncio.gather(*(client.wait_for_completion(one) for one in ids))


Work = Callable[[df.Client, int], Awaitable[None]]
WORK: dict[str, Work] = {
    "one entity, calls one by one": lambda c, n: _finish(c, one_by_one, n),
    "one entity, calls at once": lambda c, n: _finish(c, at_once_one, n),
    "a thousand entities, calls at once": lambda c, n: _finish(c, at_once_many, n),
    "one entity, signals of clients": lambda c, n: _signals(c, 10 * n, 1),
    "a thousand entities, signals of clients": lambda c, n: _signals(c, 10 * n, 1_000),
    "one entity, a critical section each": lambda c, n: _sections(c, n),
}


async def measure(name: str, calls: int, folder: Path) -> tuple[float, float]:
    """Increments a second, and commits for a thousand of them."""
    commits = 0
    async with app.running(store=f"sqlite:///{folder}/hub.db") as client:
        await WORK[name](client, 20)  # what is made once is made now
        await client.signal_entity("@counter@one", "add", 0)
        engine = client.gateway

        def count(batch: object, seconds: float) -> None:
            nonlocal commits
            commits += 1

        engine.loop._committed = count  # type: ignore[attr-defined]
        began = time.perf_counter()
        await WORK[name](client, calls)
        took = time.perf_counter() - began
    done = calls * (10 if "signals" in name else 1)
    return done / took, 1_000 * commits / done


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.entities", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--repetitions", type=int, default=3)
    given = parser.parse_args()
    rows = []
    for name in WORK:
        found = []
        for _ in range(given.repetitions):
            with tempfile.TemporaryDirectory(prefix="perdure-entities-") as folder:
                found.append(asyncio.run(measure(name, given.calls, Path(folder))))
        rates, commits = zip(*found, strict=True)
        rows.append([name, f"{statistics.median(rates):,.0f}", f"{statistics.median(commits):.1f}"])
    print(table(["increments", "a second", "commits for 1,000"], rows))


if __name__ == "__main__":
    main()
