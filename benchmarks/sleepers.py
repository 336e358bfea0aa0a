"""`python -m benchmarks.sleepers`: a million sleeping instances in a PostgreSQL database, and what they cost.

Each waits for an event with a deadline in 72 hours. The first is run by the engine; the others are its rows again,
each with an id, a salt and a hash chain of its own, written through the store. Then the server is stopped and
started, and a worker begins on what is stored: when it answers, what it holds in memory, what its looks at the
database cost, how long lists and counts take, and what remains of W1 and W2.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.__main__ import revision, save
from benchmarks.install import cache_folder
from benchmarks.machine import facts
from benchmarks.postgres import KINDS, SETTINGS, PostgresBench
from benchmarks.process import MeasuredProcess
from benchmarks.report import table
from benchmarks.stored import AT_ONCE, HUB, asked, copies, question_table
from benchmarks.workloads import Row, Sizes
from perdure.model.instances import PARTITIONS
from perdure.model.records import StoredInstance
from perdure.store.postgres.address import address_of
from perdure.store.postgres.binary import number, numbers
from perdure.store.postgres.connection import ENGINE, open_session
from perdure.store.postgres.statements import statement
from perdure.store.postgres.store import PostgresStore
from tests.postgres.servers import Server

PERDURE = KINDS[0]
LOOKS = {"visible_messages": 3, "next_visible_at": 2, "due_instances": 3}
"""What a worker asks at every look, and how many parameters that has."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sleepers", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--version", type=int, default=15, help="of PostgreSQL: 15, 16 or 18 (15)")
    parser.add_argument("--patience", type=float, default=10.0, help="seconds to wait for a quiet machine")
    parser.add_argument("--no-save", action="store_true", help="print only")
    chosen = parser.parse_args()
    sizes = replace(Sizes(), patience=chosen.patience)
    folder = cache_folder() / "data" / f"sleepers-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    with Server(chosen.version, settings=SETTINGS) as server:
        bench = PostgresBench(server, sizes, folder)
        machine = {**facts(server.directory), "postgres": server.sql("show server_version")[0][0]}
        rows = [_measured("none", bench, server, sizes, folder)]
        begun = time.perf_counter()
        build(chosen.count, bench, folder)
        took = time.perf_counter() - begun
        print(f"{chosen.count:,} sleeping instances stored in {took:.0f} s", flush=True)
        sizes_of = _disk(bench.url)
        server.restart()
        rows.append(
            _measured("sleeping", bench, server, sizes, folder, keep=True)
            | {"count": chosen.count, "build_seconds": round(took, 1), "bytes": sizes_of}
        )
    shutil.rmtree(folder, ignore_errors=True)
    print("\n" + tables(rows))
    if not chosen.no_save:
        result = {
            "taken": time.strftime("%Y-%m-%d %H:%M", time.gmtime()), "revision": revision(), "machine": machine,
            "server": SETTINGS, "sizes": sizes.as_row(), "sleepers": rows,
        }  # fmt: skip
        print(f"\nsaved as benchmarks/results/{save(result, 'sleepers-').name}")


def build(count: int, bench: PostgresBench, folder: Path) -> None:
    """A database with so many that sleep."""
    with bench.serve(PERDURE, folder / "first") as engine:
        engine.ask("start_waiting", prefix="idle", count=1)
    store = PostgresStore(bench.url, HUB)
    first = store.open().next_instance_no
    try:
        original = _original(store)
        for begin in range(first, first + count - 1, AT_ONCE):
            store.commit(copies(original, range(begin, min(begin + AT_ONCE, first + count - 1))))
    finally:
        store.close()
    with psycopg.connect(bench.url, autocommit=True) as connection:
        connection.execute("vacuum analyze")  # as autovacuum does sooner or later


def _original(store: PostgresStore) -> StoredInstance:
    """The one that the engine has run."""
    [row] = store.rows(["idle0"])
    found = store.history_of(row.instance_no, 1)
    assert found is not None
    found.waits = list(store.waits([row.instance_no]))
    return found


def _measured(
    what: str, bench: PostgresBench, server: Server, sizes: Sizes, folder: Path, *, keep: bool = False
) -> Row:
    with bench.serve(PERDURE, folder / what, keep=keep) as engine:
        first = engine.ask("hello", prefix="first", count=1, together=1)["seconds"]
        row: Row = {
            "stored": what,
            "open_seconds": round(engine.about["open_seconds"], 3),
            "process_seconds": round(engine.ready_seconds + first, 3),
            "memory_mb": round(engine.memory / 1024, 1),
            "looks": _looks(bench.url),
            "idle_cpu_s_per_10_s": _idle(engine),
        }
        row |= asked(engine, sizes)
    return row


def _idle(engine: MeasuredProcess) -> float:
    meter = engine.meter()
    time.sleep(10)
    return round(meter.stop().cpu, 3)


def _looks(url: str) -> Row:
    """The plans of what a worker asks again and again: milliseconds and pages, and the indexes they go through."""
    found: Row = {}
    now = number(time.time_ns() // 1_000)
    values = [numbers(range(PARTITIONS)), now, number(2_000)]
    with open_session(address_of(url), ENGINE) as connection:
        [(hub_no,)] = connection.execute("select hub_no from perdure.hubs").fetchall()
        for name, count in LOOKS.items():
            sql = f"explain (analyze, buffers, format json) {statement(name, 'perdure', hub_no)}"
            for _ in range(3):
                answer = connection.pgconn.exec_params(sql.encode(), values[:count], None, [1] * count)
            plan: Any = json.loads(answer.get_value(0, 0) or b"[]")[0]
            found[name] = {
                "ms": plan["Execution Time"],
                "pages": plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"],
                "through": sorted(set(_indexes(plan["Plan"]))),
            }
    return found


def _indexes(plan: Any) -> list[str]:
    inner = [name for part in plan.get("Plans", ()) for name in _indexes(part)]
    own = plan.get("Index Name") or (plan["Relation Name"] if plan["Node Type"] == "Seq Scan" else None)
    return [*inner, *([own] if own else [])]


def _disk(url: str) -> Row:
    """Bytes of every table that has any, and of its indexes."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "select relname, pg_table_size(oid), pg_indexes_size(oid) from pg_class "
            "where relnamespace = 'perdure'::regnamespace and relkind = 'r' and pg_table_size(oid) > 100000 "
            "order by 2 desc"
        ).fetchall()
    return {name: {"rows": heap, "indexes": indexes} for name, heap, indexes in rows}


def tables(rows: Sequence[Row]) -> str:
    """Figures, disk, looks, questions."""
    heads = ("open_seconds", "process_seconds", "memory_mb", "idle_cpu_s_per_10_s", "W1", "W2")
    figures = [[row["stored"], *(f"{row[head]:,}" for head in heads)] for row in rows]
    full = rows[-1]
    disk = [
        [name, *(f"{part[kind] / full['count']:,.0f}" for kind in ("rows", "indexes"))]
        for name, part in full["bytes"].items()
    ]
    looks = [
        [
            name,
            *(f"{row['looks'][name]['ms']:.3f} ({row['looks'][name]['pages']})" for row in rows),
            ", ".join(full["looks"][name]["through"]),
        ]
        for name in LOOKS
    ]
    return "\n\n".join(
        [
            table(
                ["stored", "open s", "restart s", "memory MB", "idle CPU s/10 s", "W1 per s", "W2 p50 ms"],
                figures,
            ),
            table(["bytes each", "rows", "indexes"], disk),
            table(["a look: ms (pages)", "none", "sleeping", "through"], looks, text=(0, 3)),
            question_table(list(rows)),
        ]
    )


if __name__ == "__main__":
    main()
