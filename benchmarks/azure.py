"""An Azure app beside the same program on perdure's own context: `python -m benchmarks.azure`.

Both run in this process on SQLite, in interleaved pairs, and the CPU of a pair is compared: three activities, many
instances at a time; activities in sequence; activities in parallel; and starts by the SDK's own client, beside those
by perdure's. Ratios of one run say more than the figures do. The last rows are the memory of
an instance that sleeps, which waits for an event and a timer, and the load of an app.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
import tracemalloc
import uuid
import warnings
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import perdure as df
from benchmarks.report import table

TOGETHER = 100
STARTS = 32
FUNCTIONS = 50
SLEEPING = 1_000
APP = """
from datetime import timedelta
import azure.durable_functions as df
app = df.DFApp()
@app.activity_trigger(input_name="value")
async def echo(value):
    return value
@app.orchestration_trigger(context_name="context")
def three(context):
    for n in range(3):
        yield context.call_activity("echo", n)
    return 3
@app.orchestration_trigger(context_name="context")
def sequence(context):
    for n in range(context.get_input()):
        yield context.call_activity("echo", n)
    return context.get_input()
@app.orchestration_trigger(context_name="context")
def parallel(context):
    return len((yield context.task_all([context.call_activity("echo", n) for n in range(context.get_input())])))
@app.orchestration_trigger(context_name="context")
def sleeping(context):
    yield context.call_activity("echo", 1)
    deadline = context.create_timer(context.current_utc_datetime + timedelta(days=3))
    context.set_custom_status("waits")
    yield context.task_any([context.wait_for_external_event("Go"), deadline])
"""


def own_app() -> df.App:
    """The same programs on perdure's own context."""
    app = df.App("benchmark")

    @app.activity
    async def echo(value: int) -> int:
        return value

    @app.orchestrator
    def three(context: df.OrchestrationContext) -> Any:
        for n in range(3):
            yield context.call_activity("echo", n)
        return 3

    @app.orchestrator
    def sequence(context: df.OrchestrationContext) -> Any:
        for n in range(context.get_input()):
            yield context.call_activity("echo", n)
        return context.get_input()

    @app.orchestrator
    def parallel(context: df.OrchestrationContext) -> Any:
        return len(
            (yield context.task_all([context.call_activity("echo", n) for n in range(context.get_input())]))
        )

    @app.orchestrator
    def sleeping(context: df.OrchestrationContext) -> Any:
        yield context.call_activity("echo", 1)
        deadline = context.create_timer(timedelta(days=3))
        context.set_custom_status("waits")
        yield context.task_any([context.wait_for_external_event("Go"), deadline])

    return app


def azure_app(folder: Path) -> df.App:
    """The app in a folder, as `perdure run` loads it."""
    (folder / "host.json").write_text('{"version": "2.0"}')
    (folder / "function_app.py").write_text(APP)
    from perdure.hosts.azure_functions.application import load

    return load(folder).app


async def together(client: df.Client, name: str, input_: Any, count: int) -> None:
    ids = await asyncio.gather(*(client.start_new(name, None, input_) for _ in range(count)))
    await asyncio.gather(*(client.wait_for_completion(one) for one in ids))


Work = Callable[[df.Client, int], Awaitable[None]]
WORK: dict[str, tuple[Work, int]] = {
    "three activities, 100 at a time": (lambda client, size: together(client, "three", None, size), 300),
    "activities in sequence": (lambda client, size: together(client, "sequence", size, 1), 1_000),
    "activities in parallel": (lambda client, size: together(client, "parallel", size, 1), 1_000),
}


async def measured(app: df.App, work: Work, size: int) -> tuple[float, float]:
    """Seconds of CPU and of the wall clock."""
    with tempfile.TemporaryDirectory() as folder:
        async with app.running(store=f"sqlite:///{folder}/hub.db") as client:
            await work(client, 3)
            cpu, wall = time.process_time(), time.perf_counter()
            await work(client, size)
            return time.process_time() - cpu, time.perf_counter() - wall


async def starts(app: df.App, count: int, at_once: int) -> tuple[float, float]:
    """Seconds of the wall clock that so many starts take: by perdure's client, and by the SDK's in process."""
    from perdure.hosts.azure_functions import sdk
    from perdure.hosts.azure_functions.in_process import HubDoor

    with tempfile.TemporaryDirectory() as folder:
        async with app.running(store=f"sqlite:///{folder}/hub.db") as client:
            door = HubDoor()
            theirs = sdk.client_of(door.text_for(client), str(uuid.uuid4()))
            taken = []
            for one in (client, theirs):
                began = time.perf_counter()
                for _ in range(count // at_once):
                    await asyncio.gather(*(one.start_new("three", None, 1) for _ in range(at_once)))
                taken.append(time.perf_counter() - began)
            door.close()
    return taken[0], taken[1]


async def memory(app: df.App, count: int) -> float:
    """Bytes of Python's memory that each instance takes which waits for an event and a timer."""
    with tempfile.TemporaryDirectory() as folder:
        async with app.running(store=f"sqlite:///{folder}/hub.db") as client:
            await asleep(client, 100)  # what is made once
            gc.collect()
            tracemalloc.start()
            try:
                await asleep(client, count)
                gc.collect()
                return tracemalloc.get_traced_memory()[0] / count
            finally:
                tracemalloc.stop()


async def asleep(client: df.Client, count: int) -> None:
    """Start instances, and return when all of them wait."""
    ids = [await client.start_new("sleeping") for _ in range(count)]
    for one in ids:
        while (status := await client.get_status(one)) is None or status.custom_status != "waits":  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def loading(functions: int) -> float:
    """Seconds that the load of an app of so many functions adds to the import of the packages."""
    from perdure.hosts.azure_functions.application import load

    step = '@app.activity_trigger(input_name="x")\ndef step{n}(x):\n    return x\n'
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "host.json").write_text('{"version": "2.0"}')
        (folder / "function_app.py").write_text(APP + "".join(step.format(n=n) for n in range(functions)))
        began = time.perf_counter()
        load(folder)
        return time.perf_counter() - began


async def run(repeat: int) -> list[list[str]]:
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        azure, own = azure_app(Path(folder)), own_app()
        for name, (work, size) in WORK.items():
            pairs = [
                (await measured(own, work, size), await measured(azure, work, size)) for _ in range(repeat)
            ]
            cpu = statistics.median(theirs[0] / ours[0] for ours, theirs in pairs)
            wall = statistics.median(ours[1] / theirs[1] for ours, theirs in pairs)
            ours, theirs = (statistics.median(pair[at][0] for pair in pairs) for at in (0, 1))
            rows.append([name, f"{ours:.3f} s", f"{theirs:.3f} s", f"{cpu:.2f}", f"{wall:.2f}"])
        for at_once in (1, STARTS):
            pairs_of_starts = [await starts(azure, 320, at_once) for _ in range(repeat)]
            ours, theirs = (statistics.median(pair[at] for pair in pairs_of_starts) for at in (0, 1))
            share = statistics.median(one / other for one, other in pairs_of_starts)
            rows.append(
                [f"320 starts, {at_once} at once", f"{ours:.3f} s", f"{theirs:.3f} s", "", f"{share:.2f}"]
            )
        ours, theirs = await memory(own, SLEEPING), await memory(azure, SLEEPING)
        ratio = f"{theirs / ours:.2f} (memory)"
        rows.append(["an instance that sleeps", f"{ours / 1e3:.1f} KB", f"{theirs / 1e3:.1f} KB", ratio, ""])
    rows.append([f"load an app of {FUNCTIONS} functions", "", f"{loading(FUNCTIONS):.3f} s", "", ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.azure", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="pairs, of which the median counts (3)")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    heads = ["", "perdure's own", "Azure app", "CPU ratio", "throughput ratio"]
    print(table(heads, asyncio.run(run(chosen.repeat))))


if __name__ == "__main__":
    main()
