"""The trace of one instance from its history: `python -m benchmarks.traces`.

The history has 1,000 events or more, in a SQLite file: activities one after the other, each scheduled, completed and
answered with the next. Read, made into spans, and written as OTLP's JSON; CPU time of this thread, the least of many
rounds. The goal is 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import perdure as df
from benchmarks.report import table
from perdure.store import open_store
from perdure.telemetry.otlp import document_of
from perdure.telemetry.trees import tree_of

GOAL = 100.0  # ms


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traces", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'traces.db'}"
        asyncio.run(_run(store, given.events))
        print(table(["what", "least", "unit"], _measured(store, given.rounds)))


async def _run(store: str, events: int) -> None:
    app = df.App("traces")

    @app.activity
    def work(n: int) -> int:
        return n

    @app.orchestrator
    async def main(context: df.OrchestrationContext, n: int) -> None:
        for i in range(n):
            await context.call_activity(work, i)

    async with app.running(store=store) as client:
        await client.start_new(main, "one", -(-events // 2))
        await client.wait_for_completion("one")


def _measured(store: str, rounds: int) -> list[list[str]]:
    opened = open_store(store, "traces")
    try:
        spans = tree_of(opened, "one", "traces").spans
        made = _least(rounds, lambda: tree_of(opened, "one", "traces"))
        written = _least(rounds, lambda: msgspec.json.encode(document_of(spans, "traces", 0)))
    finally:
        opened.close_reader()
    return [
        ["spans", f"{len(spans):,}", ""],
        ["read, and made into spans", f"{made:.1f}", "ms"],
        ["written as JSON", f"{written:.1f}", "ms"],
        ["together", f"{made + written:.1f}", f"ms (goal: {GOAL:.0f})"],
    ]


def _least(rounds: int, work: Callable[[], Any]) -> float:
    found = []
    for _ in range(rounds):
        began = time.thread_time()
        work()
        found.append((time.thread_time() - began) * 1e3)
    return min(found)


if __name__ == "__main__":
    main()
