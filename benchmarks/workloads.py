"""The five workloads, asked of one engine, and what is kept of the answers. One call is one repetition."""

from __future__ import annotations

import os
import signal
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import wait_until_quiet
from benchmarks.process import KINDS, EngineFailed, Kind, MeasuredProcess, running

Row = dict[str, Any]
BRIEF = ("W1", "W2", "W3", "W4")
ENOUGH_CPU = 0.3  # seconds below which the kernel's counter of CPU time is too coarse to tell


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    hello: int = 1_000
    together: int = 100
    single: int = 200
    fan: int = 1_000
    sequence: int = 1_000
    waiting: int = 10_000
    idle_seconds: float = 10.0
    patience: float = 25.0  # seconds to wait for a quiet machine before each workload

    def as_row(self) -> Row:
        return asdict(self)


QUICK = Sizes(hello=100, single=30, fan=100, sequence=100, waiting=300, idle_seconds=1.0, patience=1.0)


def repetition(kind: Kind, wanted: set[str], sizes: Sizes, folder: Path, serve: Any = running) -> Row:
    """One engine through the wanted workloads, in processes of its own, which `serve` starts."""
    row: Row = {"engine": kind.name}
    try:
        if wanted & set(BRIEF):
            with serve(kind, folder) as engine:
                _about(row, engine)
                _warm_up(engine)
                for workload in BRIEF:
                    if workload in wanted and workload in engine.about["workloads"]:
                        row[workload] = _BRIEFLY[workload](engine, sizes)
        if "W5" in wanted and "W5" not in _left_out(row):
            waiting(kind, sizes, folder, row, serve)
    except EngineFailed as failure:
        row["error"] = str(failure)
    return row


def _left_out(row: Row) -> set[str]:
    return {"W5"} - set(row.get("workloads", ("W5",)))


def _about(row: Row, engine: MeasuredProcess) -> None:
    row.update(versions=engine.about["versions"], workloads=engine.about["workloads"])


def _warm_up(engine: MeasuredProcess) -> None:
    engine.ask("hello", prefix="warm", count=30, together=10)


# --------------------------------------------------------------------------------------------------- W1 to W4


def _many(engine: MeasuredProcess, sizes: Sizes) -> Row:
    return hello_many(engine, sizes, "many")


def hello_many(engine: MeasuredProcess, sizes: Sizes, prefix: str) -> Row:
    """W1: hello workflows, many at a time."""
    return measure(
        engine, sizes, lambda answer, used: {
            "per_s": round(sizes.hello / answer["seconds"], 1),
            "cpu_s_per_1000": _cpu(used.cpu, sizes.hello),
            "memory_mb": round(engine.memory / 1024, 1),
        },
        "hello", prefix=prefix, count=sizes.hello, together=sizes.together,
    )  # fmt: skip


def _single(engine: MeasuredProcess, sizes: Sizes) -> Row:
    """W2, with the cost of four commits of the bare SQLite measured right before and right after."""
    if engine.about["engine"] != "perdure":
        return hello_single(engine, sizes, "single")
    found: dict[str, list[float]] = {}
    with running(KINDS["baseline"], engine.log.with_name("baseline")) as disk:
        _ask_disk(disk, sizes, found)
        row = hello_single(engine, sizes, "single")
        _ask_disk(disk, sizes, found)
    return {**row, **{name: round(statistics.median(values), 3) for name, values in found.items()}}


def _ask_disk(disk: MeasuredProcess, sizes: Sizes, found: dict[str, list[float]]) -> None:
    """Four commits and one sync: over what the file holds already, as perdure's are, and at its end."""
    rounds = max(50, sizes.single)
    for longer in (False, True):
        name = "_longer" if longer else ""
        four = disk.ask("commits", rounds=rounds, longer=longer)["four_ms"]
        sync = disk.ask("syncs", rounds=rounds, longer=longer)["sync_ms"]
        found.setdefault(f"four_commits{name}_ms", []).extend(four)
        found.setdefault(f"fdatasync{name}_ms", []).extend(sync)


def hello_single(engine: MeasuredProcess, sizes: Sizes, prefix: str) -> Row:
    """W2: hello workflows, one at a time."""
    return measure(
        engine, sizes, lambda answer, _: {
            "p50_ms": round(percentile(answer["latencies_ms"], 50), 3),
            "p95_ms": round(percentile(answer["latencies_ms"], 95), 3),
        },
        "hello", prefix=prefix, count=sizes.single, together=1,
    )  # fmt: skip


def _fan(engine: MeasuredProcess, sizes: Sizes) -> Row:
    return measure(engine, sizes, _seconds, "fan", count=sizes.fan)


def _sequence(engine: MeasuredProcess, sizes: Sizes) -> Row:
    return measure(engine, sizes, _seconds, "sequence", count=sizes.sequence)


_BRIEFLY = {"W1": _many, "W2": _single, "W3": _fan, "W4": _sequence}


def measure(engine: MeasuredProcess, sizes: Sizes, kept: Any, do: str, **arguments: Any) -> Row:
    """Wait for a quiet machine, ask, and keep what `kept` makes of the answer."""
    was_quiet = wait_until_quiet(engine.roots, sizes.patience)
    answer, used = engine.measured(do, **arguments)
    row: Row = {**kept(answer, used), **used.as_row()}
    if not was_quiet:
        row["was_noisy"] = True
    return row


def _seconds(answer: Row, _: object) -> Row:
    return {"seconds": round(answer["seconds"], 4)}


def _cpu(seconds: float, count: int) -> float | None:
    return round(seconds * 1_000 / count, 3) if seconds > ENOUGH_CPU else None


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


# --------------------------------------------------------------------------------------------------------- W5


def waiting(kind: Kind, sizes: Sizes, folder: Path, row: Row, serve: Any = running) -> None:
    """W5: many instances that wait for an event. Fresh processes, so that memory can be compared."""
    with serve(kind, folder) as engine:
        _about(row, engine)
        _warm_up(engine)
        count = min(sizes.waiting, engine.about["most_waiting"])
        base = _memory(engine)
        row["W5 start"] = {
            "count": count,
            **measure(engine, sizes, _seconds, "start_waiting", prefix="idle", count=count),
        }
        time.sleep(min(2.0, sizes.idle_seconds))
        row["W5 memory"] = {"base_mb": round(base / 1024, 1), "kb_each": _each(_memory(engine), base, count)}
        meter = engine.meter()
        time.sleep(sizes.idle_seconds)
        row["W5 idle"] = {"cpu_s_per_10_s": round(meter.stop().cpu * 10 / sizes.idle_seconds, 3)}
        row["W5 finish"] = measure(engine, sizes, _seconds, "finish_waiting", prefix="idle", count=count)
    if kind.script == "run_perdure.py" and kind.workers == 1:
        _evicted(kind, folder, row, count, serve)
        _restarted(kind, sizes, folder, row, count, serve)


def _evicted(kind: Kind, folder: Path, row: Row, count: int, serve: Any) -> None:
    """Only perdure: what an instance costs that has been put away. Ends as a crash would end it."""
    with serve(kind, folder) as engine:
        _warm_up(engine)
        base = _memory(engine)
        engine.ask("start_waiting", prefix="idle", count=count)
        left = engine.ask("evict")["warm"]
        row["W5 evicted"] = {"kb_each": _each(_memory(engine), base, count), "still_warm": left}
        os.kill(engine.process.pid, signal.SIGKILL)


def _restarted(kind: Kind, sizes: Sizes, folder: Path, row: Row, count: int, serve: Any) -> None:
    """Only perdure: the killed engine's data are served again, and every instance gets its event."""
    wait_until_quiet((), sizes.patience)
    with serve(kind, folder, keep=True) as engine:
        first = engine.ask("hello", prefix="first", count=1, together=1)["seconds"]
        row["W5 restart"] = {
            "process_seconds": round(engine.ready_seconds + first, 3),
            "open_seconds": round(engine.about["open_seconds"], 4),
            "first_hello_ms": round(first * 1e3, 2),
        }
        row["W5 finish cold"] = measure(engine, sizes, _seconds, "finish_waiting", prefix="idle", count=count)


def _memory(engine: MeasuredProcess) -> float:
    if engine.about["engine"].startswith("perdure"):
        engine.ask("tidy")
    return engine.memory


def _each(now: float, base: float, count: int) -> float:
    return round((now - base) / count, 2)


# ------------------------------------------------------------------------------------------------- beside CPU


def beside_cpu(counts: list[int], sizes: Sizes, folder: Path) -> list[Row]:
    """W1 and W2 of perdure alone, and beside so many CPU-bound activities: on threads, then on a process pool."""
    rows = []
    with running(KINDS["perdure"], folder) as engine:
        _warm_up(engine)
        burners = [("", 0), *(("threads", n) for n in counts), *(("processes", n) for n in counts)]
        for place, count in burners:
            burn = "burn_elsewhere" if place == "processes" else "burn"
            if count:
                engine.ask(burn, count=count)
            # Its own processes are busy now, which is no noise: only others count.
            rows.append(
                {
                    "busy": count,
                    "on": place,
                    "W1": hello_many(engine, sizes, f"many{place}{count}."),
                    "W2": hello_single(engine, sizes, f"single{place}{count}."),
                }
            )
            if count:
                engine.ask(burn, count=0)
    return rows
