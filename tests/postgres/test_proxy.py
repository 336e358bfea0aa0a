"""The proxy does to connections what its switches say, at the commit they name, and to nothing else."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from tests.postgres.conversation import Burst, Client
from tests.postgres.fixtures import Servers
from tests.postgres.proxy import Proxy
from tests.postgres.servers import NEWEST

Connection = psycopg.Connection[Any]


@pytest.fixture
def proxy(postgres_servers: Servers) -> Iterator[Proxy]:
    with Proxy(postgres_servers(NEWEST)) as proxy:
        yield proxy


@pytest.fixture
def direct(newest_url: str) -> Iterator[Connection]:
    with psycopg.connect(newest_url, autocommit=True) as connection:
        connection.execute("create table t (x int primary key)")
        yield connection


@pytest.fixture
def url(proxy: Proxy, direct: Connection, newest_url: str) -> str:
    return proxy.url(newest_url)


def rows(direct: Connection) -> list[int]:
    return [x for (x,) in direct.execute("select x from t order by x")]


def simple(connection: Connection) -> None:
    connection.execute("insert into t values (1)")
    connection.commit()


def autocommit(connection: Connection) -> None:
    connection.autocommit = True
    connection.execute("insert into t values (%s)", (1,))


def prepared(connection: Connection) -> None:
    connection.autocommit = True
    connection.execute(
        "with a as (insert into t values (%s) returning x) select x from a", (1,), prepare=True
    )


def pipelined(connection: Connection) -> None:
    connection.autocommit = True
    with connection.pipeline():
        connection.execute("begin")
        connection.execute("select 1 from t for key share")
        connection.execute("insert into t values (%s)", (1,))
        connection.execute("commit")


def nested(connection: Connection) -> None:
    with connection.transaction():
        connection.execute("insert into t values (1)")
        with connection.transaction(force_rollback=True):
            connection.execute("insert into t values (2)")


STYLES = pytest.mark.parametrize("commit", [simple, autocommit, prepared, pipelined, nested])


@STYLES
def test_a_commit_is_told_from_everything_else(
    proxy: Proxy, url: str, direct: Connection, commit: Callable[[Connection], None]
) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select count(*) from t where 'update' <> 'commit'")
        connection.execute("select x from t for update")
        connection.execute("-- delete from t\nselect 1")
        with connection.transaction(force_rollback=True):
            connection.execute("insert into t values (5)")
        with suppress(psycopg.errors.DivisionByZero), connection.transaction():
            connection.execute("insert into t values (6)")
            connection.execute("select 1 / 0")
        connection.autocommit = False
        assert proxy.commits == 0
        commit(connection)
        assert proxy.commits == 1
    assert rows(direct) == [1]


@STYLES
def test_a_commit_cut_before_it_is_forwarded_has_not_happened(
    proxy: Proxy, url: str, direct: Connection, commit: Callable[[Connection], None]
) -> None:
    connection = psycopg.connect(url)
    cut = proxy.cut_commit(when="before")
    with pytest.raises(psycopg.OperationalError):
        commit(connection)
    assert cut.happened.wait(60)
    assert any("insert" in statement for statement in cut.statements)
    connection.close()
    _gone(direct)
    assert rows(direct) == []


@STYLES
def test_a_commit_whose_answer_is_withheld_has_happened(
    proxy: Proxy, url: str, direct: Connection, commit: Callable[[Connection], None]
) -> None:
    connection = psycopg.connect(url)
    cut = proxy.cut_commit(when="answered")
    with pytest.raises(psycopg.OperationalError):
        commit(connection)
    assert cut.happened.wait(60)
    assert rows(direct) == [1]
    connection.close()


@STYLES
def test_a_commit_that_was_forwarded_happens_though_its_client_is_gone(
    proxy: Proxy, url: str, direct: Connection, commit: Callable[[Connection], None]
) -> None:
    connection = psycopg.connect(url)
    cut = proxy.cut_commit(when="forwarded")
    with pytest.raises(psycopg.OperationalError):
        commit(connection)
    assert cut.happened.wait(60)
    connection.close()
    _gone(direct)
    assert rows(direct) == [1]


def test_a_forwarded_commit_can_be_under_way_for_long(proxy: Proxy, url: str, direct: Connection) -> None:
    """The client knows that it is cut off while the server still works on what it was sent."""
    direct.execute("begin")
    direct.execute("insert into t values (1)")
    connection = psycopg.connect(url, autocommit=True)
    proxy.cut_commit(when="forwarded")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("insert into t values (1), (2)")  # waits for the other transaction
    connection.close()
    direct.execute("rollback")
    _gone(direct)
    assert rows(direct) == [1, 2]


def test_the_nth_commit_of_those_that_match_is_cut(proxy: Proxy, url: str, direct: Connection) -> None:
    with psycopg.connect(url, autocommit=True) as renewing:
        connection = psycopg.connect(url)
        cut = proxy.cut_commit(2, when="answered", matching="into t values")
        renewing.execute("create table other (x int)")
        connection.execute("insert into t values (1)")
        connection.commit()
        renewing.execute("insert into other values (1)")
        connection.execute("insert into t values (2)")
        assert not cut.happened.is_set()
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
        renewing.execute("insert into other values (2)")
        assert connection.closed
        connection.close()
    assert rows(direct) == [1, 2]


def test_a_commit_can_be_on_its_way_for_as_long_as_it_takes(
    proxy: Proxy, url: str, direct: Connection
) -> None:
    with psycopg.connect(url) as connection, ThreadPoolExecutor() as threads:
        held = proxy.hold_commit(matching="insert into t")
        connection.execute("insert into t values (1)")
        committing = threads.submit(connection.commit)
        assert held.happened.wait(60)
        assert rows(direct) == []
        assert not committing.done()
        held.release()
        committing.result(10)
    assert rows(direct) == [1]


def test_all_are_cut_and_new_ones_refused_until_it_heals(proxy: Proxy, url: str) -> None:
    connections = [psycopg.connect(url) for _ in range(3)]
    assert proxy.connections == 3
    proxy.refuse()
    connections[0].execute("select 1")
    assert proxy.cut_all() == 3
    for connection in connections:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        connection.close()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect(url)
    proxy.heal()
    with psycopg.connect(url) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_a_black_hole_swallows_and_closes_nothing(proxy: Proxy, url: str, direct: Connection) -> None:
    with psycopg.connect(url, autocommit=True) as connection, ThreadPoolExecutor() as threads:
        proxy.stall()
        asked = threads.submit(connection.execute, "insert into t values (1)")
        joining = threads.submit(psycopg.connect, url)
        with pytest.raises(TimeoutError):
            asked.result(0.1)
        assert rows(direct) == []
        proxy.heal()
        asked.result(10)
        joining.result(10).close()
    assert rows(direct) == [1]


def test_answers_alone_can_be_swallowed(proxy: Proxy, url: str, direct: Connection) -> None:
    with psycopg.connect(url, autocommit=True) as connection, ThreadPoolExecutor() as threads:
        proxy.stall("down")
        asked = threads.submit(connection.execute, "insert into t values (1)")
        _await(lambda: rows(direct) == [1])
        assert not asked.done()
        proxy.heal()
        asked.result(10)


def test_what_was_sent_into_a_black_hole_arrives_when_its_sender_is_long_gone(
    proxy: Proxy, url: str, direct: Connection
) -> None:
    connection = psycopg.connect(url, autocommit=True)
    proxy.stall()
    connection.pgconn.send_query(b"insert into t values (1)")
    connection.pgconn.flush()
    connection.close()
    assert rows(direct) == []
    proxy.heal()
    _await(lambda: rows(direct) == [1])


def test_a_delay_is_added_both_ways(proxy: Proxy, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        proxy.delay(0.05)
        begun = time.monotonic()
        connection.execute("select 1")
        assert time.monotonic() - begun >= 0.1
        proxy.heal()


def test_a_server_that_is_away_closes_the_door(url: str) -> None:
    class Nobody:
        host, port = "127.0.0.1", 1

    with Proxy(Nobody()) as proxy, pytest.raises(psycopg.OperationalError):
        psycopg.connect(proxy.url(url))


def test_messages_are_found_however_they_are_chopped() -> None:
    start = struct.pack("!II", 8, 196608)
    queries = [b"begin", b"insert into t values ('commit;')", b"rollback to savepoint a", b"end"]
    sent = start + b"".join(_simple(query) for query in queries)
    for size in (1, 3, 7, len(sent)):
        client = Client()
        said = [b for at in range(0, len(sent), size) for b in client.feed(sent[at : at + size])]
        assert b"".join(b.data for b in said if isinstance(b, Burst)) == sent
        assert [b.commits for b in said if isinstance(b, Burst)] == [False, False, False, False, True]
        assert client.asked == 5


def _simple(query: bytes) -> bytes:
    return b"Q" + struct.pack("!I", len(query) + 5) + query + b"\0"


def _gone(direct: Connection) -> None:
    """Until the server has done all it was asked by others, and they are gone."""
    others = "select 1 from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    _await(lambda: direct.execute(others + " and backend_type = 'client backend'").fetchone() is None)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
