"""Plans of the PostgreSQL store's statements, made when nothing is known of the tables yet, and then kept."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from perdure.store.postgres.connection import ENGINE, open_session
from perdure.store.postgres.statements import statement, statements
from perdure.store.postgres.store import PostgresStore

ALL_OF_A_HUB = {
    *(
        "hubs",
        "next_numbers",
        "counts",
        "dropped_all",
        "audit",
        "keys",
        "encryption_proofs",
        "forget_encryption_keys",
    ),
    "waits_by_event",  # for metrics, with a pause that grows with its duration
    *("expire_dropped", "expire_audit", "expire_workers"),
    *("fill_ring", "left_in_the_ring"),
    *(
        "workers",
        "partitions",
        "void_all",
        "void_own",
        "free_claims",
        "free_partitions",
        "hub",
        "add_partitions",
    ),
}
"""What looks at all of a hub, or at tables that are always small."""


@pytest.fixture
def session(postgres_url: str) -> Iterator[psycopg.Connection[tuple[str]]]:
    """As the engine's, on a hub that is empty."""
    store = PostgresStore(postgres_url, "plans")
    store.open()
    with open_session(store._address, ENGINE) as connection:
        yield connection
    store.close()


def plan_of(session: psycopg.Connection[tuple[str]], name: str) -> list[str]:
    sql = statement(name, "perdure", 1)
    session.execute(f"prepare planned as {sql}".encode())
    count = max(map(int, re.findall(r"\$(\d+)", sql)), default=0)
    nulls = f"({', '.join(['null'] * count)})" if count else ""
    rows = session.execute(f"explain (costs off) execute planned{nulls}".encode()).fetchall()
    session.execute("deallocate planned")
    return [line for (line,) in rows]


def scans_of_all(plan: list[str]) -> list[str]:
    """Scans that go through a whole table, an index, or what an index has of a hub."""
    found = []
    for line, following in zip(plan, [*plan[1:], ""], strict=True):
        if "Seq Scan on" in line:
            found.append(line)
        if ("Index" in line and " using " in line) or "Bitmap Index Scan" in line:
            condition = re.search(r"Index Cond: \((.*)\)", following)
            if condition is None or re.fullmatch(r"\(*hub_no = [^()]*\)*", condition[1]):
                found.append(f"{line.strip()}: {following.strip()}")
    return found


def test_no_statement_goes_through_all_of_a_hub(session: psycopg.Connection[tuple[str]]) -> None:
    found = {name: scans_of_all(plan_of(session, name)) for name in statements() if name not in ALL_OF_A_HUB}

    assert {name: scans for name, scans in found.items() if scans} == {}


def test_every_exception_is_a_statement() -> None:
    assert set(statements()) >= ALL_OF_A_HUB
