"""`python -m benchmarks.model`: what many workers on one PostgreSQL would do, from what one and two do here.

A worker goes round: it decides a batch, has the database store it, and begins again. With `together` workflows in
flight each round moves every one of them by a step, and a hello takes four (its start, three results). So there are
two numbers to a round, what it takes however small it is and what each workflow adds, and both are fitted to runs of
one worker at several loads, for the wall clock and for the CPU of worker and database alike.

Workers are the customers of a closed queueing network. Where each has a machine of its own, all of a round but the
database's CPU is a delay, and the database's cores are where they queue; where all share one machine, as in the
measured runs of two workers, they queue for its cores. Mean value analysis, with several cores after Seidmann: a
queue that is as many times faster, and a delay for the rest. The flush of the log is a delay and no queue, because
PostgreSQL flushes for all who wait at once. One more number, contention, makes work dearer for every other worker
that is at it in the same moment, which is at most one a core; it is what two workers need more of the CPU than one.
What is foretold is given with it and without: a pair on one machine also fights for caches that workers apart do not
share.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.__main__ import revision, save
from benchmarks.install import cache_folder
from benchmarks.machine import cpu_of_tree, facts
from benchmarks.postgres import KINDS, SETTINGS, PostgresBench
from benchmarks.report import table
from benchmarks.workloads import Row, Sizes
from tests.postgres.servers import Server

LOADS = (8, 32, 128, 384)  # workflows in flight, a worker
STEPS = 4  # of a hello: its start and three results
ROUNDS = 6  # of every load; the best counts, which others on the machine have disturbed least
WORKERS = (1, 2, 4, 16, 64)  # that the model is asked about
CORES = (2, 8, 32)  # of the database
TOGETHER = 128  # workflows in flight, a worker
LOG_BYTES = 3_560  # of a hello, measured by `benchmarks.postgres`


@dataclass(frozen=True)
class Run:
    """What was measured. Microseconds are of CPU, a hello."""

    workers: int
    together: int
    per_s: float
    worker_us: float
    database_us: float
    foreign_cores: float = 0.0


@dataclass(frozen=True)
class ReportLine:
    """Seconds of a round: what it takes at least, and what each workflow in it adds."""

    least: float
    each: float

    def of(self, together: int) -> float:
        return self.least + self.each * together


@dataclass(frozen=True)
class Model:
    """A round of one worker: by the wall clock, and the CPU it takes of the worker and of the database."""

    wall: ReportLine
    worker: ReportLine
    database: ReportLine
    contention: float = 0.0  # of the work of a round, for every other worker that is at it too

    def apart(self, workers: int, together: int, cores: int) -> float:
        """Hellos a second of workers that have a machine each, and a database of so many cores."""
        demand = self.database.of(together) * self._dearer(workers, cores)
        delay = max(0.0, self.wall.of(together) - self.database.of(together))
        return rounds_per_s(workers, delay, demand, cores) * together / STEPS

    def beside(self, workers: int, together: int, cores: int) -> float:
        """The same where workers and database share a machine of so many cores."""
        used = (self.worker.of(together) + self.database.of(together)) * self._dearer(workers, cores)
        wall = self.wall.of(together) * self._dearer(workers, cores)
        demand = min(used, wall)  # a client's thread works while the database does: more CPU than time
        rounds = rounds_per_s(workers, wall - demand, demand, cores)
        return min(rounds, cores / used) * together / STEPS

    def use_of_database(self, workers: int, together: int, cores: int) -> float:
        """How busy the database's cores are, 0 to 1."""
        rounds = self.apart(workers, together, cores) * STEPS / together
        return rounds * self.database.of(together) * self._dearer(workers, cores) / cores

    def _dearer(self, workers: int, cores: int) -> float:
        return 1 + self.contention * (min(workers, cores) - 1)


def rounds_per_s(customers: int, delay: float, demand: float, servers: int) -> float:
    """Mean value analysis of one station of several servers and a delay."""
    queue_demand = demand / servers
    rest = delay + demand - queue_demand
    waiting, throughput = 0.0, 0.0
    for present in range(1, customers + 1):
        there = queue_demand * (1 + waiting)
        throughput = present / (rest + there)
        waiting = throughput * there
    return throughput


# ------------------------------------------------------------------------------------------------- fitting


def fitted(runs: Sequence[Run]) -> Model:
    """The model of runs of one worker and, for its contention, of two."""
    return with_contention(alone(runs), runs)


def alone(runs: Iterable[Run]) -> Model:
    """From runs of one worker only."""
    ones = [run for run in runs if run.workers == 1]
    return Model(
        _line(ones, lambda run: run.together / run.per_s / STEPS),
        _line(ones, lambda run: run.worker_us * run.together / STEPS / 1e6),
        _line(ones, lambda run: run.database_us * run.together / STEPS / 1e6),
    )


def with_contention(model: Model, runs: Sequence[Run]) -> Model:
    """With what two workers need more of the CPU, a hello, than one at the same load: the median over the loads."""
    by_load = {(run.workers, run.together): run.worker_us + run.database_us for run in runs}
    more = [cpu / by_load[1, load] - 1 for (count, load), cpu in by_load.items() if count == 2]
    return replace(model, contention=max(0.0, statistics.median(more)) if more else 0.0)


def error(model: Model, run: Run, cores: int = 2) -> float:
    """By how much the model is off, as a part of what was measured."""
    return model.beside(run.workers, run.together, cores) / run.per_s - 1


def _line(runs: Sequence[Run], of: Callable[[Run], float]) -> ReportLine:
    """The least squares of relative errors; nothing below zero."""
    points = [(run.together, of(run)) for run in runs]
    weights = [1 / (y * y) if y else 0.0 for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    each = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)) / spread
    return ReportLine(max(0.0, mean_y - each * mean_x), max(0.0, each))


def errors(runs: Sequence[Run]) -> dict[str, float]:
    """Mean and worst error: of one worker by itself, of two foretold from one, of two left out of the fit in turn."""
    ones, pairs = ([run for run in runs if run.workers == count] for count in (1, 2))
    model = alone(runs)
    left_out = [error(with_contention(model, [one for one in runs if one is not run]), run) for run in pairs]
    found = {
        "one worker": [error(model, run) for run in ones],
        "two foretold from one": [error(model, run) for run in pairs],
        "two with contention, each load left out": left_out,
    }
    return {
        f"{name}, {how}": round(of([abs(one) for one in values]), 3)
        for name, values in found.items()
        if values
        for how, of in (("mean", statistics.mean), ("worst", max))
    }


# ----------------------------------------------------------------------------------------------- measuring


def measured(server: Server, folder: Path, *, goes_ahead: bool) -> list[Run]:
    """One and two workers at all loads, in turns: what else the machine does falls on all alike."""
    found: dict[tuple[int, int], list[Run]] = {}
    with ExitStack() as stack:
        engines = []
        for kind in KINDS[:2]:  # each on a database of its own
            bench = PostgresBench(server, Sizes(), folder, goes_ahead=goes_ahead)
            engines.append((kind.workers, stack.enter_context(bench.serve(kind, folder / kind.name))))
        for no in range(ROUNDS):
            for together in LOADS:
                for workers, engine in engines:
                    run = _once(engine, server, workers, together)
                    found.setdefault((workers, together), []).append(run)
            print(f"round {no + 1} of {ROUNDS}", flush=True)
    return [max(runs, key=lambda run: run.per_s) for _, runs in sorted(found.items())]


def _once(engine: Any, server: Server, workers: int, together: int) -> Run:
    count = max(60, min(together * 24, 3_000)) * workers
    before = cpu_of_tree(server.pid)
    all_together = together * workers
    answer, used = engine.measured("hello", prefix=secrets.token_hex(3), count=count, together=all_together)
    database = cpu_of_tree(server.pid) - before
    return Run(
        workers,
        all_together // workers,
        round(count / answer["seconds"], 1),
        round((used.cpu - database) * 1e6 / count, 1),
        round(database * 1e6 / count, 1),
        round(used.foreign_cores, 2),
    )


# ------------------------------------------------------------------------------------------------ as tables


def tables(runs: Sequence[Run]) -> str:
    """What was measured and what the model makes of it; what it foretells; how far off it is."""
    model = fitted(runs)
    lines = [
        [
            f"{run.workers}",
            f"{run.together}",
            f"{run.per_s:,.0f}",
            f"{model.beside(run.workers, run.together, 2):,.0f}",
            f"{error(model, run):+.0%}",
            f"{run.worker_us:,.0f}",
            f"{run.database_us:,.0f}",
            f"{run.foreign_cores}",
        ]
        for run in runs
    ]
    heads = [
        "workers",
        "in flight each",
        "per s",
        "model",
        "off",
        "worker us",
        "database us",
        "foreign cores",
    ]
    parts = [
        table(heads, lines),
        "\n".join(
            f"{name}: {line.least * 1e6:,.0f} us a round and {line.each * 1e6:,.1f} a workflow"
            for name, line in (("wall", model.wall), ("worker", model.worker), ("database", model.database))
        )
        + f"\ncontention: {model.contention:+.1%} for every other worker",
        "\n".join(f"{name}: {value:.0%}" for name, value in errors(runs).items()),
        *(foretold(model, cores) for cores in CORES),
    ]
    return "\n\n".join(parts)


def foretold(model: Model, cores: int) -> str:
    """What so many workers would do on a database of so many cores."""
    together, free = TOGETHER, replace(model, contention=0.0)
    lines = []
    for workers in WORKERS:
        per_s = model.apart(workers, together, cores)
        use = model.use_of_database(workers, together, cores)
        lines.append(
            [
                f"{workers}",
                f"{per_s:,.0f}",
                f"{free.apart(workers, together, cores):,.0f}",
                f"{per_s / model.apart(1, together, cores):.1f}",
                f"{min(use, 1):.0%}",
                f"{per_s * LOG_BYTES / 1e6:,.0f}",
                "the database's CPU" if use > 0.8 else "the workers",
            ]
        )
    heads = ["workers", "hellos per s", "without contention", "of one", "database busy", "log MB/s", "limit"]
    return f"each on a machine of its own, a database of {cores} cores:\n" + table(heads, lines, text=(0, 6))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("--of", type=Path, help="a file of results: fit those again instead of measuring")
    parser.add_argument(
        "--ahead",
        action="store_true",
        help="schedule what is measured before all others on this machine (root)",
    )
    parser.add_argument("--no-save", action="store_true", help="print only")
    chosen = parser.parse_args()
    if chosen.of is not None:
        print(tables([Run(**row) for row in json.loads(chosen.of.read_text())["model_runs"]]))
        return
    folder = cache_folder() / "data" / f"model-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    with Server(15, settings=SETTINGS) as server:
        machine = {**facts(server.directory), "postgres": server.sql("show server_version")[0][0]}
        runs = measured(server, folder, goes_ahead=chosen.ahead)
    shutil.rmtree(folder, ignore_errors=True)
    print("\n" + tables(runs))
    if not chosen.no_save:
        result: Row = {
            "taken": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "revision": revision(), "machine": machine,
            "server": SETTINGS, "ahead": chosen.ahead, "model_runs": [asdict(run) for run in runs],
            "errors": errors(runs),
        }  # fmt: skip
        print(f"\nsaved as benchmarks/results/{save(result, 'model-').name}")


if __name__ == "__main__":
    main()
