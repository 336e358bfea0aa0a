"""The database's notes show what must never happen, when it is made to happen by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import perdure as df
from perdure.model.instances import PARTITIONS
from tests.postgres.evidence import SETTINGS, Evidence, Life, Stale
from tests.postgres.servers import NEWEST, Server

Connection = psycopg.Connection[Any]
DONE = b'[{"type":"TaskCompleted","task_id":0,"result":{"key":"k","run":"r"}}]'


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(NEWEST, settings=SETTINGS) as server:
        yield server


@pytest.fixture
async def url(server: Server) -> Any:
    with server.database() as url:
        async with df.App("evidence").running(store=url, accept_only=True):
            pass  # the tables are there
        yield url


@pytest.fixture
def evidence(url: str) -> Iterator[Evidence]:
    evidence = Evidence(url)
    evidence.gather()
    yield evidence
    evidence.close()


@pytest.fixture
def first(url: str, evidence: Evidence) -> Iterator[Connection]:
    yield from _worker(url, 1_001)


@pytest.fixture
def second(url: str, evidence: Evidence) -> Iterator[Connection]:
    yield from _worker(url, 1_002)


def _worker(url: str, incarnation: int) -> Iterator[Connection]:
    """A connection that enters as a worker does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "insert into perdure.workers (incarnation, hub_no, worker, role, pools, functions, state, started_at,"
            " lease_until) values (%s, 1, %s, 'worker', '', '{}', 'living', 0, 0)",
            (incarnation, f"w{incarnation}"),
        )
        yield connection


def _record(connection: Connection, episode: int, events: bytes = b"[]") -> None:
    connection.execute(
        "insert into perdure.history (hub_no, instance_no, execution_no, episode, at, events, digest, hash)"
        " values (1, 7, 1, %s, 0, %s, '', '')",
        (episode, events),
    )


def _void(connection: Connection, incarnation: int) -> None:
    connection.execute("update perdure.workers set state = 'void' where incarnation = %s", (incarnation,))


def _give(connection: Connection, incarnation: int) -> None:
    connection.execute("update perdure.partitions set incarnation = %s", (incarnation,))


def test_a_commit_after_a_takeover_is_found(
    evidence: Evidence, first: Connection, second: Connection
) -> None:
    _record(first, 0)
    with first.transaction():
        _record(first, 1)
    _void(second, 1_001)
    _record(second, 2)
    assert evidence.stale() == Stale(0, 0)
    assert evidence.takeovers() == 1
    assert evidence.commits() == 3
    _record(first, 3)
    first.execute("update perdure.inbox set visible_at = 0")
    assert evidence.stale() == Stale(2, 1)


def test_a_commit_that_began_before_the_takeover_and_ends_after_it_is_found(
    evidence: Evidence, first: Connection, second: Connection
) -> None:
    with first.transaction():
        _record(first, 0)
        _void(second, 1_001)
    assert evidence.stale() == Stale(1, 1)


def test_what_nobody_in_particular_wrote_is_found(evidence: Evidence, url: str, first: Connection) -> None:
    _record(first, 0)
    assert evidence.unattributed() == {}
    with psycopg.connect(url) as connection:
        _record(connection, 1)
    assert evidence.unattributed() == {"insert of history": 1}


def test_a_result_that_is_applied_twice_is_found(evidence: Evidence, first: Connection) -> None:
    columns = first.execute(
        "select column_name, data_type from information_schema.columns where table_schema = 'perdure'"
        " and table_name = 'instances' and is_nullable = 'NO'"
    ).fetchall()
    some = {"bigint": 7, "integer": 1, "text": "claim-7", "bytea": b""}
    names = ", ".join(name for name, _ in columns)
    places = ", ".join("%s" for _ in columns)
    values = [1 if name == "hub_no" else some[kind] for name, kind in columns]
    first.execute(f"insert into perdure.instances ({names}) values ({places})", values)
    _record(first, 0, DONE)
    assert evidence.twice() == []
    _record(first, 1, DONE)
    assert evidence.twice() == ["claim-7: task 0 2 times"]
    assert evidence.results() == [{"key": "k", "run": "r"}] * 2


def test_an_outage_lasts_until_a_living_worker_owns_everything(
    evidence: Evidence, first: Connection, second: Connection
) -> None:
    _give(first, 1_001)
    died = time.time()
    dead, living = Life("w1001", died - 60, died), Life("w1002", died - 60)
    _give(second, 1_002)
    (outage,) = evidence.outages([dead, living])
    assert (outage.worker, outage.what, outage.partitions) == ("w1001", "killed", PARTITIONS)
    assert 0 < outage.seconds < 60
    never, _ = evidence.outages([dead, Life("w1002", died - 60, died - 1)])
    assert never.seconds == float("inf"), "its new owner was dead before"
    (paused,) = evidence.outages([Life("w1001", died - 60, pauses=[(died, died + 60)]), living])
    assert (paused.what, paused.seconds) == ("paused", outage.seconds)
