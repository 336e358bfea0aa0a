"""`python -m benchmarks.postgres`: perdure with one and with two workers, DBOS and pgbench on one PostgreSQL server.

The server is made for the run, on this machine and its disk, as durable as one is by default, and is gone
afterwards; every engine gets an empty database. Its CPU counts as that of the engine it works for.
"""

from __future__ import annotations

import argparse
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import report
from benchmarks.__main__ import revision, save
from benchmarks.install import cache_folder
from benchmarks.machine import Meter, Used, ahead_of_others, facts, wait_until_quiet
from benchmarks.process import Kind, MeasuredProcess, running
from benchmarks.workloads import QUICK, Row, Sizes, repetition
from tests.postgres.servers import DEBIAN, Server

WORKLOADS = ("W1", "W2", "W3", "W4", "W5")
KINDS = (
    Kind("perdure-postgres", "run_perdure.py"),
    Kind("perdure-postgres-2", "run_perdure.py", workers=2),
    Kind("dbos-postgres-sync", "run_dbos.py", "dbos", ("sync",)),
    Kind("dbos-postgres", "run_dbos.py", "dbos"),
)
OURS = "perdure-postgres"
SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "2GB"}
PGBENCH = DEBIAN / "pgbench"
ACTIVITIES = 3  # of one hello


def main() -> None:
    chosen = _arguments()
    sizes = QUICK if chosen.quick else Sizes()
    sizes = replace(sizes, patience=sizes.patience if chosen.patience is None else chosen.patience)
    folder = cache_folder() / "data" / f"postgres-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    rows: list[Row] = []
    with Server(chosen.version, settings=SETTINGS) as server:
        machine = {**facts(server.directory), "postgres": server.sql("show server_version")[0][0]}
        bench = PostgresBench(server, sizes, folder, chosen.more_hellos, goes_ahead=chosen.ahead)
        for no in range(chosen.repeat):
            kinds = [kind for kind in KINDS if kind.name in chosen.engines and not kind.missing()]
            for kind in [*kinds[no % len(kinds) :], *kinds[: no % len(kinds)]]:
                rows.append({"repetition": no + 1, **bench.row(kind, set(chosen.workloads))})
                print(f"{no + 1}/{chosen.repeat} {kind.name}: {_brief(rows[-1])}", flush=True)
            rows.append({"repetition": no + 1, **bench.commits()})
            print(f"{no + 1}/{chosen.repeat} pgbench: {rows[-1]}", flush=True)
        written = [
            bench.written(kind) for kind in KINDS[:3] if kind.name in chosen.engines and not kind.missing()
        ]
    shutil.rmtree(folder, ignore_errors=True)
    rows.sort(key=lambda row: [*(kind.name for kind in KINDS), "pgbench"].index(row["engine"]))
    print("\n" + tables(rows) + "\n\n" + written_table(written))
    if not chosen.no_save and not chosen.quick:
        result = {
            "taken": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "revision": revision(), "machine": machine,
            "server": SETTINGS, "sizes": sizes.as_row(), "more_hellos": chosen.more_hellos, "ahead": chosen.ahead,
            "runs": rows, "written": written,
        }  # fmt: skip
        print(f"\nsaved as benchmarks/results/{save(result, 'postgres-').name}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.postgres", description=__doc__)
    names = [kind.name for kind in KINDS]
    listed = _listed
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the median counts (3)")
    parser.add_argument("--engines", type=listed, default=names, help=f"of {','.join(names)}")
    parser.add_argument("--workloads", type=listed, default=WORKLOADS, help="of W1,W2,W3,W4,W5")
    parser.add_argument("--version", type=int, default=15, help="of PostgreSQL: 15, 16 or 18 (15)")
    parser.add_argument("--more-hellos", type=int, default=5, help="so many times the hellos for perdure (5)")
    parser.add_argument("--quick", action="store_true", help="small sizes, not saved: does it work at all?")
    parser.add_argument(
        "--patience", type=float, help="seconds to wait for a quiet machine before each workload"
    )
    parser.add_argument(
        "--ahead",
        action="store_true",
        help="schedule what is measured before all others on this machine (root)",
    )
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _brief(row: Row) -> str:
    wanted = {"per_s": "/s", "p50_ms": " ms", "seconds": " s", "kb_each": " KB", "process_seconds": " s"}
    found = [
        f"{part} {values[key]:,}{unit}"
        for part, values in row.items()
        if isinstance(values, dict)
        for key, unit in wanted.items()
        if key in values
    ]
    return ", ".join([*found, *([f"FAILED: {row['error']}"] if "error" in row else [])])


# ------------------------------------------------------------------------------------------- several workers


@dataclass
class Several:
    """Worker processes that share one hub: asked like one engine, each given its share of what is to be done."""

    engines: Sequence[MeasuredProcess]

    @property
    def about(self) -> Row:
        return self.engines[0].about

    @property
    def roots(self) -> tuple[int, ...]:
        return tuple({root: None for engine in self.engines for root in engine.roots})

    @property
    def memory(self) -> float:
        return sum(engine.memory for engine in self.engines)

    def meter(self) -> Meter:
        return Meter(*self.roots)

    def measured(self, do: str, patience: float = 300, **arguments: Any) -> tuple[Row, Used]:
        with ahead_of_others(self.roots) if self.engines[0].goes_ahead else nullcontext():
            meter = self.meter()
            return self.ask(do, patience, **arguments), meter.stop()

    def ask(self, do: str, patience: float = 300, **arguments: Any) -> Row:
        """What is many is divided; what is one is asked of the first."""
        asked = self.engines if do in _DIVIDED and arguments.get("together", 2) > 1 else self.engines[:1]
        for no, engine in enumerate(asked):
            engine.send(do, **_share(arguments, no, len(asked)))
        answers = [engine.answer(patience) for engine in asked]
        return {
            **answers[0],
            "seconds": max(answer.get("seconds", 0.0) for answer in answers),
            "latencies_ms": [one for answer in answers for one in answer.get("latencies_ms", ())],
        }


_DIVIDED = frozenset({"hello", "start_waiting", "finish_waiting", "tidy"})


def _share(arguments: Row, no: int, among: int) -> Row:
    mine = dict(arguments)
    for name in ("count", "together"):
        if name in mine:
            mine[name] = mine[name] // among
    if "prefix" in mine:
        mine["prefix"] += f"of{no}."
    return mine


# ------------------------------------------------------------------------------------------------- the bench


class PostgresBench:
    """One server, and what is asked of the engines on it."""

    def __init__(
        self, server: Server, sizes: Sizes, folder: Path, more_hellos: int = 1, *, goes_ahead: bool = False
    ) -> None:
        self._server = server
        self._sizes = sizes
        self.folder = folder
        self._more_hellos = more_hellos
        self._database = ""
        self._goes_ahead = goes_ahead

    def row(self, kind: Kind, wanted: set[str]) -> Row:
        """One engine through the workloads."""
        sizes = self._sizes
        if kind.name.startswith("perdure"):
            sizes = replace(sizes, hello=sizes.hello * self._more_hellos)
        row = repetition(kind, wanted, sizes, self.folder / kind.name, self.serve)
        self._drop()
        return row

    @property
    def url(self) -> str:
        """Of the present database."""
        return self._server.url_of(self._database)

    @contextmanager
    def serve(self, kind: Kind, folder: Path, *, keep: bool = False) -> Iterator[Any]:
        """The engine's workers, on an empty database unless what is there is to be kept."""
        if not keep:
            self._drop()
            self._database = f"bench_{secrets.token_hex(4)}"
            self._server.sql(f"create database {self._database}")
        url = self.url
        with ExitStack() as stack:
            engines = []
            for no in range(kind.workers):
                own = replace(kind, arguments=(*kind.arguments, url))
                engines.append(stack.enter_context(running(own, folder / str(no))))
                engines[-1].beside = (self._server.pid,)
                engines[-1].goes_ahead = self._goes_ahead
            if kind.workers > 1:
                for engine in engines:
                    engine.ask("settle", workers=kind.workers)
            if not keep:  # so that all connections are there
                for engine in engines:
                    engine.ask("hello", prefix="connect", count=100, together=100)
            yield engines[0] if kind.workers == 1 else Several(engines)

    def _drop(self) -> None:
        if self._database:
            self._server.sql(f"drop database if exists {self._database} with (force)")

    def commits(self, seconds: int = 4) -> Row:
        """What the server does when a commit is one row and nothing else: pgbench with one and with eight clients."""
        if not PGBENCH.exists():
            return {"engine": "pgbench", "error": f"{PGBENCH} is missing"}
        self._drop()
        self._database = f"bench_{secrets.token_hex(4)}"
        self._server.sql(f"create database {self._database}")
        self._server.sql("create table t (id bigserial primary key, k text, v text)", self._database)
        script = self.folder / "insert.sql"
        script.write_text("insert into t (k, v) values ('k' || :client_id, repeat('x', 100));\n")
        row: Row = {"engine": "pgbench"}
        for clients in (1, 8):
            wait_until_quiet((self._server.pid,), self._sizes.patience)
            bench = subprocess.Popen(
                [PGBENCH, "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-T", str(seconds),
                 "-f", script, self.url],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            roots = (bench.pid, self._server.pid)
            time.sleep(0.3)  # its connections are there
            with ahead_of_others(roots) if self._goes_ahead else nullcontext():
                meter = Meter(*roots)
                told, _ = bench.communicate()
            found = re.search(r"^tps = ([\d.]+)", told, re.MULTILINE)
            assert found is not None, told
            row[f"{clients} clients"] = {"commits_per_s": round(float(found[1])), **meter.stop().as_row()}
        self._drop()
        return row

    # ------------------------------------------------------------------------------------- what is written

    def written(self, kind: Kind, count: int = 1_000) -> Row:
        """What a thousand activities of W1 and of W2 leave in the write-ahead log: bytes, commits, rows."""
        row: Row = {"engine": kind.name}
        with self.serve(kind, self.folder / kind.name) as engine, self._asking() as ask:
            engine.ask("hello", prefix="warm", count=30, together=10)
            for workload, together in (("W1", 100), ("W2", 1)):
                [(begin,)] = ask("select pg_current_wal_insert_lsn()::text")
                engine.ask("hello", prefix=workload, count=count, together=together)
                [(end,)] = ask("select pg_current_wal_insert_lsn()::text")
                row[workload] = _of_the_log(ask, begin, end, count * ACTIVITIES / 1_000)
        self._drop()
        return row

    @contextmanager
    def _asking(self) -> Iterator[Any]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("create extension if not exists pg_walinspect")
            yield lambda sql, *values: connection.execute(sql, values).fetchall()


def _of_the_log(ask: Any, begin: str, end: str, thousands: float) -> Row:
    """What lies between two places of the log, a thousand activities each. Needs pg_walinspect (PostgreSQL 15)."""
    ask("select pg_switch_wal()")
    found = dict.fromkeys(("bytes", "images", "commits", "inserted", "updated", "deleted"), 0)
    kinds = ask(
        'select "resource_manager/record_type", count::bigint, combined_size::bigint, fpi_size::bigint '
        "from pg_get_wal_stats(%s::pg_lsn, %s::pg_lsn, true)",
        begin,
        end,
    )
    for kind, count, size, images in kinds:
        found["bytes"] += size
        found["images"] += images
        name = _COUNTED.get(kind.removesuffix("+INIT"))
        if name is not None:
            found[name] += count
    return {name: round(value / thousands, 1) for name, value in found.items()}


_COUNTED = {
    "Transaction/COMMIT": "commits",
    "Heap/INSERT": "inserted",
    "Heap/UPDATE": "updated",
    "Heap/HOT_UPDATE": "updated",
    "Heap/DELETE": "deleted",
}


# ------------------------------------------------------------------------------------------------- as tables


def tables(rows: Sequence[Row]) -> str:
    """Figures, ratios, pgbench beside them."""
    engines = [row for row in rows if row["engine"] != "pgbench"]
    runs = report.Runs(engines, OURS)
    parts = [report.figures(runs, report.COLUMNS)]
    if any("W5 start" in row for row in engines):
        parts.append(report.figures(runs, report.WAITING_COLUMNS))
    parts.append(_ratios(runs))
    disk = report.Runs([row for row in rows if row["engine"] == "pgbench"])
    lines = [
        [f"{clients} clients", f"{disk.median('pgbench', f'{clients} clients', 'commits_per_s') or 0:,.0f}"]
        for clients in (1, 8)
    ]
    parts.append(report.table(["pgbench", "single-row commits per s"], lines))
    return "\n\n".join(part for part in parts if part)


def _ratios(runs: report.Runs) -> str:
    columns = [c for c in report.COLUMNS if c[2] not in ("p95_ms", "cpu_s_per_1000")]
    lines = [
        [f"one worker / {peer}", *(_times(runs.ratio(part, key, peer)) for _, part, key in columns)]
        for peer in runs.engines
        if peer != OURS
    ]
    return report.table(["times as fast", *(c[1] for c in columns)], lines)


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def written_table(rows: Sequence[Row]) -> str:
    """What a thousand activities leave in the log."""
    heads = ("bytes", "images", "commits", "inserted", "updated", "deleted")
    lines = [
        [f"{row['engine']} {workload}", *(f"{row[workload][head]:,.0f}" for head in heads)]
        for row in rows
        for workload in ("W1", "W2")
    ]
    return report.table(["per 1,000 activities", *heads], lines)


if __name__ == "__main__":
    main()
