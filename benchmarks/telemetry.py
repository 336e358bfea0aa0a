"""What telemetry costs: `python -m benchmarks.telemetry`.

W1 (hello: three activities in sequence, 100 workflows at a time) by processes that differ in the setting `telemetry`
alone. Each pair asks each process once, in turn. A figure is the CPU time of a workflow: the least of all pairs,
because other programs of the machine can only add to it, and the quartiles of the ratio to the process with telemetry
off. Two processes are off: their difference is what the measurement cannot tell apart.

`--base TREE` adds a process that runs the code of another checkout, such as one from before telemetry.

At the end a tenth of a thousand workflows a second is sampled for some seconds, and the spans that arrive are
counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import perdure as df
from benchmarks.footprint import measure
from benchmarks.report import table
from benchmarks.sampled import RATIOS, Losses, provide, sink

HERE = Path(__file__).parents[1]
TOGETHER = 100
WARM_UP = 300
MODES = {
    "off": "telemetry=off",
    "off again": "the same: the difference is noise",
    "metrics": "telemetry=auto without a provider: counted, and read every 15 seconds, as by Prometheus",
    **dict.fromkeys(RATIOS, "the same with a provider of the SDK, whose batch processor has the spans"),
}
RATE = 1_000  # workflows a second
SCRAPED_EVERY = 15.0  # seconds
app = df.App("telemetry")


@app.activity
async def echo(value: str) -> str:
    return value


@app.orchestrator
async def hello(context: df.OrchestrationContext, key: str) -> list[str]:
    return [await context.call_activity(echo, f"{part}{key}") for part in "abc"]


# ------------------------------------------------------------------------------------------------ one process


async def serve(mode: str, folder: str) -> None:
    """Read numbers of workflows from stdin; print the CPU time of each workflow in microseconds."""
    setting = {"telemetry": "off"} if mode.startswith("off") else {}
    if mode in RATIOS:
        provide(mode, os.environ["SINK"])
    async with app.running(store=f"sqlite:///{folder}/{mode.replace(' ', '-')}.db", **setting) as client:  # type: ignore[arg-type]
        loop, scraped_at = asyncio.get_running_loop(), time.monotonic()
        print("ready", flush=True)
        while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            scrapes = mode == "metrics" and time.monotonic() - scraped_at >= SCRAPED_EVERY
            scraped_at = time.monotonic() if scrapes else scraped_at
            print(await run(client, int(line), scrapes=scrapes), flush=True)


async def lose(folder: str, seconds: float) -> None:
    """Run a thousand workflows a second; print how many spans of a tenth of them were lost."""
    losses = Losses()
    async with app.running(store=f"sqlite:///{folder}/lost.db") as client:

        async def one(key: str) -> None:
            await client.wait_for_completion(await client.start_new("hello", None, key))

        rate = await losses.pace(one, RATE, seconds)
    found = losses.found()
    row = [f"{rate:.0f}", *(str(found[name]) for name in ("trees", "spans", "lost"))]
    print(table(["workflows a second", "sampled trees", "spans", "lost"], [row]))


async def run(client: df.Client, count: int, *, scrapes: bool) -> float:
    keys = iter(range(count))

    async def caller() -> None:
        for key in keys:
            await client.wait_for_completion(await client.start_new("hello", None, str(key)))

    began = time.process_time()
    await asyncio.gather(*(caller() for _ in range(TOGETHER)))
    if scrapes:
        await asyncio.to_thread(_scrape, client)
    return (time.process_time() - began) / count * 1e6


def _scrape(client: df.Client) -> None:
    from perdure.http.running_engine import engine_of
    from perdure.telemetry.metrics import metrics_of

    metrics = metrics_of(engine_of(client).telemetry)
    assert metrics is not None
    metrics.read()


# ------------------------------------------------------------------------------------------------ side by side


@dataclass
class Served:
    """A process under measurement, and its figures."""

    mode: str
    process: subprocess.Popen[str]
    found: list[float] = field(default_factory=list)

    def ask(self, count: int) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def start(mode: str, tree: Path, folder: str, sink: str) -> Served:
    environment = {
        **os.environ,
        "SINK": sink,
        "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{HERE}",
        "PYTHONHASHSEED": "0",
    }
    command = [sys.executable, "-m", "benchmarks.telemetry", "--worker", mode, "--folder", folder]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return Served(mode, process)


def compare(pairs: int, count: int, base: Path | None) -> list[list[str]]:
    with sink() as address, _folder() as folder:
        served = [start(mode, HERE, folder, address) for mode in MODES]
        if base is not None:
            served.append(start("base", base, folder, address))
        for one in served:
            one.ask(WARM_UP)
        for turn in range(pairs):
            for one in served if turn % 2 else reversed(served):
                one.found.append(one.ask(count))
        for one in served:
            assert one.process.stdin is not None
            one.process.stdin.close()
            one.process.wait()
    first = served[0]
    return [[one.mode, *_compared(one.found, first.found)] for one in served]


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def _compared(found: list[float], to: list[float]) -> list[str]:
    ratios = [one / other for one, other in zip(found, to, strict=True)]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
    return [
        f"{min(found):.1f}",
        f"{median(found):.1f}",
        f"{min(found) / min(to):.3f}",
        f"{median(ratios):.3f}",
        f"{low:.3f} to {high:.3f}",
    ]


def imports(repetitions: int) -> list[list[str]]:
    """CPU time of imports, interleaved: `import perdure` must not load OpenTelemetry or prometheus_client."""
    statements = {
        "perdure": "import perdure",
        "and the extra telemetry": "import perdure, prometheus_client, opentelemetry.trace, opentelemetry.metrics",
    }
    runs: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(repetitions):
        for name, statement in statements.items():
            runs[name].append(measure(statement)[0])
    return [[name, f"{min(found):.0f}", f"{median(found):.0f}"] for name, found in runs.items()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--count", type=int, default=500, help="workflows of each figure")
    parser.add_argument("--base", type=Path, help="another checkout, to compare with")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long spans are counted")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        asyncio.run(serve(chosen.worker, chosen.folder))
        return
    heads = ["telemetry", "CPU us", "median", "least / off", "median ratio", "quartiles"]
    print(table(heads, compare(chosen.pairs, chosen.count, chosen.base)))
    print(table(["import", "CPU ms", "median"], imports(max(5, chosen.pairs // 2))))
    with _folder() as folder:
        asyncio.run(lose(folder, chosen.seconds))


if __name__ == "__main__":
    main()
