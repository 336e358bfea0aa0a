"""`python -m benchmarks.commit`: what a batch costs, asked in one pipeline, in one statement, or one by one.

The same batches in three ways, in turn, on one PostgreSQL server: as perdure asks them (a few prepared statements,
sent together, one implicit transaction); as one prepared statement that calls a function of the database with the
same statements in it; and one by one between BEGIN and COMMIT. Each batch updates so many instances and writes a
history row for each, behind the fence. All sessions have the same settings.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from benchmarks.postgres import SETTINGS
from benchmarks.report import table
from perdure.model.records import Batch
from perdure.store.postgres.address import address_of
from perdure.store.postgres.commit import calls_of
from perdure.store.postgres.connection import ENGINE, open_session
from perdure.store.postgres.pipeline import Statement, Wire
from perdure.store.postgres.statements import statement
from perdure.store.postgres.store import PostgresStore
from perdure.testing.conformance import episode, instance, update_of
from perdure.testing.shared_store_suite import HOUR, profile
from tests.postgres.servers import Server

SIZES = (1, 30, 500)  # instances of a batch
UNCOUNTED = 10  # rounds beforehand
TYPED = re.compile(r"\$(\d+)::(\w+(?:\[\])?)")

Way = Callable[[list[Statement]], object]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.commit", description=__doc__)
    parser.add_argument("--version", type=int, default=15, help="of PostgreSQL: 15, 16 or 18 (15)")
    parser.add_argument("--rounds", type=int, default=300, help="batches of a size in each way (300)")
    chosen = parser.parse_args()
    with Server(chosen.version, settings=SETTINGS) as server, server.database() as url:
        rows = rows_of(url, chosen.rounds)
    print(table(("instances", "pipeline ms, median (best)", "one statement", "one by one"), rows))


def rows_of(url: str, rounds: int) -> list[tuple[str, ...]]:
    store = PostgresStore(url, "bench")
    store.register(profile("bench", HOUR))
    opening = store.open()
    store.commit(Batch(1, new_instances=[instance(no) for no in range(1, max(SIZES) + 1)]))
    wire: Any = store._wire

    def calls(size: int, number: int) -> list[Statement]:
        return calls_of(batch_of(size, number), opening.incarnation, opening.partitions)

    rows = []
    with open_session(address_of(url), ENGINE) as other:
        asked = Asked(other, wire, calls(1, 0))
        for size in SIZES:
            took = measured((wire.ask, asked.in_one_statement, asked.one_by_one), calls, size, rounds)
            rows.append((str(size), *(f"{statistics.median(ms):.2f} ({min(ms):.2f})" for ms in took)))
    store.close()
    return rows


def measured(
    ways: tuple[Way, ...], calls: Callable[[int, int], list[Statement]], size: int, rounds: int
) -> list[list[float]]:
    """Milliseconds of each batch, for each way."""
    took: list[list[float]] = [[] for _ in ways]
    for no in range(rounds + UNCOUNTED):
        for at, ask in enumerate(ways):
            batch = calls(size, (no * len(ways) + at + 1) * 1_000 + size)
            since = time.perf_counter()
            ask(batch)
            if no >= UNCOUNTED:
                took[at].append((time.perf_counter() - since) * 1e3)
    return took


def batch_of(size: int, number: int) -> Batch:
    """An episode of so many instances; the number is one that no batch had before."""
    events = b'[{"type":"TaskScheduled","id":%d,"name":"say_hello"},{"type":"TaskCompleted"}]' % number
    return Batch(
        number,
        updates=[update_of(instance(no), updated_at=number) for no in range(1, size + 1)],
        history=[episode(no, number, events=events) for no in range(1, size + 1)],
    )


class Asked:
    """The same statements on a connection of its own, in the two other ways. Everything is prepared beforehand."""

    def __init__(self, connection: psycopg.Connection[Any], wire: Wire, calls: list[Statement]) -> None:
        self._pgconn = connection.pgconn
        kinds: list[str] = []
        body: list[str] = []
        for name, values, _ in calls:
            sql = statement(name, wire._schema, wire.hub_no)
            self._done(self._pgconn.prepare(name.encode(), sql.encode()))
            own = {int(no): kind for no, kind in TYPED.findall(sql)}
            renumbered = re.sub(r"\$(\d+)", partial(_moved, len(kinds)), sql)
            body.append(f"{renumbered} into answer;" if " select case " in sql else f"{renumbered};")
            kinds += [own[no] for no in range(1, len(values) + 1)]
        connection.execute(
            f"create function bench_commit({', '.join(kinds)}) returns void language plpgsql as "
            f"$body$ declare answer text; begin {' '.join(body)} end $body$"
        )
        marks = ", ".join(f"${no}::{kind}" for no, kind in enumerate(kinds, 1))
        self._done(self._pgconn.prepare(b"commit", f"select bench_commit({marks})".encode()))

    def in_one_statement(self, calls: list[Statement]) -> None:
        self._run(b"commit", tuple(value for call in calls for value in call.values))

    def one_by_one(self, calls: list[Statement]) -> None:
        self._done(self._pgconn.exec_(b"begin"))
        for name, values, _ in calls:
            self._run(name.encode(), values)
        self._done(self._pgconn.exec_(b"commit"))

    def _run(self, name: bytes, values: tuple[bytes | None, ...]) -> None:
        sent: Any = values  # psycopg's annotation has no None, which is NULL
        self._done(self._pgconn.exec_prepared(name, sent, [1] * len(values), 1))

    def _done(self, result: Any) -> None:
        if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            raise SystemExit(result.error_message.decode())


def _moved(by: int, found: re.Match[str]) -> str:
    return f"${int(found[1]) + by}"


if __name__ == "__main__":
    main()
