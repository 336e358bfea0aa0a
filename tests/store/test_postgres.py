"""What is PostgreSQL's own: schema and rights, fences while transactions are open, errors, plans, lost sessions."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure as df
from perdure.errors import (
    CommitConflict,
    CommitRefused,
    ExtraMissing,
    FenceLost,
    StoreError,
    StoreInUse,
    StoreTooNew,
    StoreUnusable,
)
from perdure.model.instances import MOST_PARTITIONS, PARTITIONS, partition_of
from perdure.model.records import Batch, InstanceFilter, SeenRow
from perdure.store import hubs_of, open_store
from perdure.store.memory import MemoryStore
from perdure.store.postgres import binary, membership
from perdure.store.postgres.address import address_of
from perdure.store.postgres.connection import ENGINE, connect
from perdure.store.postgres.errors import translated
from perdure.store.postgres.migrating import TABLES, VERSION, migration_sql
from perdure.store.postgres.pipeline import Wire
from perdure.store.postgres.statements import statement, statements
from perdure.store.postgres.store import PostgresStore
from perdure.store.sqlite.store import SqliteStore
from perdure.store.transfer import transfer
from perdure.testing.conformance import DAY, episode, instance, message, raises, update_of
from perdure.testing.shared_store_suite import ALL, HOUR, MOMENT, NAMES, activity, profile
from perdure.testing.transfer_suite import EVERYTHING, everything_of
from tests.postgres.pooler import Pooler, Pooling
from tests.postgres.servers import NEWEST, VERSIONS, Server
from tests.store.conftest import Place

POOLINGS: tuple[Pooling, ...] = ("transaction", "session")
SOON = 20.0  # seconds that anything may take that is not supposed to wait


def worker(place: Place, lease: int = HOUR, name: str = "one") -> PostgresStore:
    store = place.store()
    store.register(profile(name, lease))
    return store


@contextmanager
def served(place: Place, *leases: int) -> Iterator[list[tuple[PostgresStore, int]]]:
    """Workers with these leases, each with its incarnation."""
    stores = [worker(place, lease, f"worker-{no}") for no, lease in enumerate(leases)]
    try:
        yield [(store, store.open().incarnation) for store in stores]
    finally:
        for store in stores:
            store.close()


@contextmanager
def session(place: Place) -> Iterator[psycopg.Connection[Any]]:
    """Somebody else's, to hold locks with and to look."""
    with psycopg.connect(place.url) as connection:
        yield connection


@contextmanager
def beside() -> Iterator[Callable[..., Future[Any]]]:
    """Calls on another thread."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def lock_worker(connection: psycopg.Connection[Any], incarnation: int, strength: str) -> None:
    connection.execute(f"select 1 from perdure.workers where incarnation = %s for {strength}", (incarnation,))


def waits_for_a_lock(place: Place) -> None:
    """Return when somebody in this database waits for a lock."""
    with psycopg.connect(place.url, autocommit=True) as connection:
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
        asked = f"{waiting} and datname = current_database()"
        for _ in range(2_000):
            if connection.execute(asked).fetchone() != (0,):
                return
            connection.execute("select pg_sleep(0.01)")
    raise AssertionError("nobody waits")


# ------------------------------------------------------------------------------------------------------ the fence


def test_who_is_in_the_middle_of_a_commit_is_not_taken_over(place: Place) -> None:
    with served(place, MOMENT, HOUR) as [(one, first), (two, _)], session(place) as blocker, beside() as call:
        one.take([3])
        one.commit(Batch(1, new_instances=[instance(1)]))
        blocker.execute(
            "select 1 from perdure.instances where instance_id = 'claim-1' and hub_no = %s for update",
            (one._hub_no,),
        )
        commit = call(one.commit, Batch(2, updates=[update_of(instance(1), episodes=2)]))
        waits_for_a_lock(place)
        assert not two.void(first)
        assert one.renew()
        blocker.rollback()
        assert commit.result(SOON) is None
        assert [found.row.episodes for found in two.load(["claim-1"])] == [2]
        with psycopg.connect(place.url) as clock:  # the lease of a moment that was renewed is over by now
            clock.execute("select pg_sleep(0.01)")
        assert two.void(first)
        with raises(FenceLost):
            one.commit(Batch(3, updates=[update_of(instance(1), episodes=3)]))


def test_a_commit_that_meets_a_takeover_waits_and_finds_itself_void(place: Place) -> None:
    with served(place, HOUR) as [(one, first)], session(place) as other, beside() as call:
        lock_worker(other, first, "update")
        commit = call(one.commit, Batch(1, new_instances=[instance(1)]))
        waits_for_a_lock(place)
        other.execute("update perdure.workers set state = 'void' where incarnation = %s", (first,))
        other.commit()
        with raises(FenceLost):
            commit.result(SOON)
        assert one.get("claim-1") is None


def test_a_commit_and_a_renewal_do_not_wait_for_each_other(place: Place) -> None:
    with served(place, HOUR) as [(one, first)], session(place) as other:
        lock_worker(other, first, "key share")  # as a commit does
        assert one.renew()
        other.rollback()
        other.execute(
            "update perdure.workers set lease_until = lease_until + 1 where incarnation = %s", (first,)
        )
        one.commit(Batch(1, new_instances=[instance(1)]))
        other.rollback()


def test_coming_back_waits_for_the_commit_of_before(place: Place) -> None:
    with served(place, HOUR) as [(one, first)], session(place) as other, beside() as call:
        one.take([5])
        lock_worker(other, first, "key share")
        other.execute(
            "insert into perdure.state (hub_no, instance_no, custom_status) values (%s, 1, '1')",
            (one._hub_no,),
        )
        reopened = call(one.reopen)
        waits_for_a_lock(place)
        other.commit()
        assert reopened.result(SOON).owned == frozenset({5})
        assert one.custom_status([1]) == {1: b"1"}


def test_a_session_that_lost_its_network_is_ended_before_the_hub_is_taken_again(place: Place) -> None:
    for store in (worker(place), place.another().store()):
        store.open()
        lost, store._wire = store._wire, None  # the server does not know yet
        assert lost is not None
        store.reopen()
        with pytest.raises(psycopg.Error):
            lost.text("select 1")
        lost.close()
        store.commit(Batch(1, new_instances=[instance(1)]))
        store.close()


def test_what_a_failed_reopen_may_have_become_is_ended_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(place, HOUR) as [(one, first)]:
        one.take([7])
        entered = membership.enter

        def lose_the_answer(*args: Any) -> Any:
            entered(*args)
            raise psycopg.OperationalError("gone")

        monkeypatch.setattr(membership, "enter", lose_the_answer)
        with raises(StoreError):
            one.reopen()
        monkeypatch.setattr(membership, "enter", entered)
        again = one.reopen()
        assert again.owned == frozenset({7})
        assert [row.incarnation for row in one.census().workers] == [again.incarnation]
        assert again.incarnation > first + 1


def test_two_who_start_one_id_at_once_are_one_success_and_one_conflict(place: Place) -> None:
    with served(place, HOUR, HOUR) as [(one, _), (two, _)], session(place) as other, beside() as call:
        other.execute(
            "insert into perdure.seen (hub_no, operation_id, instance_id, answer, expires_at) "
            "values (%s, 'op', 'x', '1', %s)",
            (one._hub_no, DAY),
        )
        commits = [
            call(
                store.commit,
                Batch(1, seen=[SeenRow("op", "claim-1", b"1", DAY)], new_instances=[instance(no)]),
            )
            for no, store in ((1, one), (2, two))
        ]
        waits_for_a_lock(place)
        other.commit()
        wait(commits, SOON)
        assert [type(commit.exception()) for commit in commits] == [CommitConflict, CommitConflict]
        assert one.query(InstanceFilter()) == []
        one.commit(Batch(DAY, seen=[SeenRow("op", "claim-1", b"1", 2 * DAY)]))


def test_a_deadlock_is_a_conflict(place: Place) -> None:
    rows = [instance(1), instance(2)]
    with served(place, HOUR) as [(one, _)], session(place) as other, beside() as call:
        one.commit(Batch(1, new_instances=rows))
        lock = "select 1 from perdure.instances where hub_no = %s and instance_no = %s for update"
        other.execute(lock, (one._hub_no, 2))
        commit = call(
            one.commit, Batch(2, updates=[update_of(row, episodes=9) for row in rows], history=[episode(1)])
        )
        waits_for_a_lock(place)
        outcomes = []
        try:
            other.execute(lock, (one._hub_no, 1))
        except psycopg.errors.DeadlockDetected:
            outcomes.append("other")
        other.rollback()
        if isinstance(commit.exception(SOON), CommitConflict):
            outcomes.append("ours")
        assert len(outcomes) == 1
        one.commit(Batch(3, updates=[update_of(rows[0], episodes=10)]))


# ------------------------------------------------------------------------------------------------- alone, together


def test_a_tool_voids_those_whose_process_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        membership, "_LONG_PATIENCE_MS", 200
    )  # for a session of one's own that is still there
    dead, tool = worker(place), place.store()
    dead.open()
    dead.take(ALL)
    dead.commit(Batch(1, activities_placed=[activity(1)]))
    assert dead.claim([""], NAMES, 1)
    assert dead._wire is not None
    dead._wire.close()  # its session ends, and nobody says goodbye
    tool.open()
    census = tool.census()
    assert census.workers == ()
    assert {row.incarnation for row in census.partitions} == {None}
    assert [row.incarnation for row in tool.placed(["claim-1"])] == [None]
    with raises(StoreInUse):
        dead.reopen()
    tool.close()
    assert dead.reopen().owned == frozenset()
    dead.close()


def test_hubs_of_a_database_know_nothing_of_one_another(place: Place) -> None:
    there = place.another()
    one, two = place.store(), there.store()
    assert one.open() == two.open()
    for store in (one, two):
        store.commit(Batch(1, new_instances=[instance(1, "same")], inbox_added=[message(1, "same")]))
    one.commit(Batch(2, purged=[1], inbox_removed=[1]))
    assert (one.get("same"), one.poll(9, 9, 9).messages) == (None, [])
    assert len(two.poll(9, 9, 9).messages) == 1
    assert two.get("same") is not None
    one.close()
    two.close()


# ----------------------------------------------------------------------------------------- the schema, and rights


def test_two_processes_may_create_the_schema_at_once(postgres_url: str) -> None:
    with beside() as call:
        stores = [PostgresStore(postgres_url, f"hub-{no}") for no in range(4)]
        openings = [call(store.open) for store in stores]
        assert len({opening.result(SOON) for opening in openings}) == 1
        for store in stores:
            store.close()
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select count(*), max(version) from perdure.versions").fetchone() == (
            VERSION,
            VERSION,
        )


def test_a_schema_of_its_own_and_nothing_outside_it(postgres_url: str) -> None:
    store = PostgresStore(f"{postgres_url}?schema=claims_app&connect_timeout=7", "claims")
    store.open()
    store.commit(EVERYTHING)
    store.close()
    with psycopg.connect(postgres_url) as connection:
        found = connection.execute(
            "select distinct n.nspname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
        ).fetchall()
    assert found == [("claims_app",)]


@pytest.mark.parametrize(
    ("url", "uri", "schema"),
    [
        ("postgres://u:p@h/db?schema=s&sslmode=require", "postgres://u:p@h/db?sslmode=require", "s"),
        ("postgresql:///db?host=/run/a b", "postgresql:///db?host=%2Frun%2Fa%20b", "perdure"),
        ("postgresql://a:1,b:2/db?pooler=session", "postgresql://a:1,b:2/db", "perdure"),
        ("postgresql://", "postgresql://", "perdure"),
    ],
)
def test_what_is_ours_in_a_url_is_not_libpqs(url: str, uri: str, schema: str) -> None:
    address = address_of(url)
    assert (address.uri, address.schema) == (uri, schema)
    assert "u:p" not in address.shown


def test_an_address_that_is_none_does_not_show_its_password() -> None:
    with pytest.raises(StoreUnusable) as refusal:
        PostgresStore("postgresql://someone:secret@[::1/db", "claims").open()
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize("schema", ["Upper", "a-b", "pg_x", 'a"b', "", "1st"])
def test_a_schema_that_is_no_plain_name_is_refused(schema: str) -> None:
    with raises(StoreUnusable):
        address_of(f"postgresql://localhost/db?schema={schema}")


def test_the_printed_sql_is_the_schema_and_its_role_is_enough(postgres_url: str) -> None:
    script = migration_sql("perdure")
    rights = [line.removeprefix("-- ") for line in script.split("\n") if line.startswith("-- ")]
    rights = rights[next(no for no, line in enumerate(rights) if line.startswith("create role")) :]
    role = f"worker_{abs(hash(postgres_url)) % 10**9}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(script)
        connection.execute("\n".join(rights).replace("perdure_worker", role))
        connection.execute("revoke create on schema public from public")
    try:
        low = postgres_url.replace("postgres@", f"{role}@")
        store = PostgresStore(low, "claims")
        store.open()
        store.commit(EVERYTHING)
        store.maintain(2 * 10**15)
        store.close()
        store.register(profile("low"))
        store.open()
        assert store.take([1]) == [1]
        store.commit(Batch(2, activities_placed=[activity(1)], purged=[1], executions_removed=[(4, 3)]))
        assert store.claim([""], NAMES, 1)
        assert store.renew()
        store.close()
        with psycopg.connect(low) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("create table perdure.mine (x int)")
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"drop owned by {role}")
            connection.execute(f"drop role {role}")


def test_the_printed_sql_and_a_migration_make_the_same_schema(newest_place: Place) -> None:
    asked = """
        select table_name, column_name, data_type, is_nullable, column_default, collation_name
        from information_schema.columns where table_schema = %s order by 1, 2"""
    indexes = (
        "select replace(indexdef, schemaname || '.', '') from pg_indexes where schemaname = %s order by 1"
    )
    store = newest_place.store()
    store.open()
    store.close()
    with session(newest_place) as connection:
        connection.execute(migration_sql("printed"))
        for question in (asked, indexes):
            expected = connection.execute(question, ("perdure",)).fetchall()
            printed = connection.execute(question, ("printed",)).fetchall()
            assert str(printed).replace("printed.", "perdure.") == str(expected)
        tables = {row[0] for row in connection.execute(asked, ("printed",)).fetchall()}
        assert tables == {*TABLES, "versions"}
        connection.rollback()


def test_without_the_right_to_make_tables_it_says_what_to_run(postgres_url: str) -> None:
    role = f"nobody_{abs(hash(postgres_url)) % 10**9}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create role {role} login")
    try:
        store = PostgresStore(postgres_url.replace("postgres@", f"{role}@"), "claims")
        with pytest.raises(StoreUnusable, match="perdure migrate"):
            store.open()
        with pytest.raises(StoreUnusable, match="perdure migrate"):
            store.get("claim-1")
        store.close()
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(f"drop role {role}")


def test_a_newer_schema_is_left_alone(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, "claims")
    store.open()
    store.close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("insert into perdure.versions (version) values (99)")
    with raises(StoreTooNew):
        store.open()
    reader = PostgresStore(postgres_url, "other")
    with raises(StoreTooNew):
        reader.get("claim-1")
    reader.close()
    store.close()


def test_an_older_schema_is_not_read_and_a_start_of_the_engine_migrates_it(postgres_url: str) -> None:
    store = PostgresStore(postgres_url, "claims")
    opening = store.open()
    store.commit(Batch(5, new_instances=[instance(opening.next_instance_no, "claim-1")]))
    store.close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("alter table perdure.instances drop column replays, drop column replay_reason")
        connection.execute("drop index perdure.waits_due, perdure.waits_of_person")
        connection.execute(
            "alter table perdure.waits "
            "drop column task, drop column roles, drop column holder, drop column held_since, drop column assignee"
        )
        connection.execute("drop table perdure.ring")
        connection.execute("delete from perdure.versions where version > 1")
    reader = PostgresStore(postgres_url, "claims")
    with pytest.raises(
        StoreUnusable, match="schema version 1, this perdure reads version 5.*`perdure migrate`"
    ):
        reader.get("claim-1")
    reader.close()
    store.open()
    found = store.get("claim-1")
    assert found is not None
    assert (found.row.replays, found.row.replay_reason) == (0, "")
    store.close()


# ------------------------------------------------------------------------------------------------------- errors


def refused(store: PostgresStore, batch: Batch) -> None:
    with raises(CommitRefused):
        store.commit(batch)
    store.commit(Batch(batch.at, custom_status=[(99, b"1")]))  # it goes on, on the same connection


def test_what_the_database_cannot_hold_is_refused(place: Place) -> None:
    store = place.store()
    store.open()
    refused(store, Batch(1, new_instances=[instance(1, "a\0b")]))
    for name in ("a\0b", "a\ud800b"):
        refused(store, Batch(1, new_instances=[instance(1, name=name)]))
    refused(store, Batch(1, new_instances=[instance(2**63)]))
    refused(store, Batch(1, new_instances=[instance(1, due_at=2**63)]))
    refused(store, Batch(1, new_instances=[instance(1, name=7)]))
    long = "".join(sha256(b"%d" % n).hexdigest() for n in range(99))  # for an index
    refused(store, Batch(1, new_instances=[instance(1, long)]))
    assert store.query(InstanceFilter()) == []
    store.close()


def test_what_no_text_can_hold_is_not_found(place: Place) -> None:
    store = place.store()
    store.open()
    store.commit(Batch(1, new_instances=[instance(1)]))
    for odd in ("a\0b", "\ud800"):
        assert store.get(odd) is None
        assert store.load([odd, "claim-1"]) == store.load(["claim-1"])
        assert store.seen([odd]) == []
        assert store.answered(odd) is None
        assert store.dropped(odd, 9) == []
        assert store.query(InstanceFilter(prefix=odd)) == []
        assert store.count(InstanceFilter(tags=((odd, "1"),))) == 0
    store.close()


def test_a_connection_that_ends_in_a_commit_is_not_used_again(place: Place) -> None:
    store = place.store()
    store.open()
    with session(place) as other, beside() as call:
        store.commit(Batch(1, new_instances=[instance(1)]))
        other.execute("lock table perdure.history in exclusive mode")
        commit = call(store.commit, Batch(2, history=[episode(1)]))
        waits_for_a_lock(place)
        assert store._wire is not None
        other.execute("select pg_terminate_backend(%s)", (store._wire.backend.pid,))
        with raises(StoreError):
            commit.result(SOON)
        other.rollback()
    for verb in (lambda: store.poll(1, 1, 1), lambda: store.commit(Batch(3, history=[episode(1)]))):
        with raises(StoreError):
            verb()
    assert store.get("claim-1") is not None  # clients have connections of their own
    store.reopen()
    store.commit(Batch(3, history=[episode(1)]))
    store.close()


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("22021", CommitRefused),
        ("23502", CommitRefused),
        ("54000", CommitRefused),
        ("40001", CommitConflict),
        ("40P01", CommitConflict),
        ("PD001", FenceLost),
        ("57P01", StoreError),
        ("53300", StoreError),
        ("57014", StoreError),
        ("55P03", StoreError),
        ("42P01", StoreUnusable),
        ("42501", StoreUnusable),
        (None, StoreError),
    ],
)
def test_sqlstates_are_told_in_the_words_of_the_port(state: str | None, wanted: type[StoreError]) -> None:
    error = psycopg.Error("said so")
    error.sqlstate = state
    assert type(translated(error, "here")) is wanted


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'connection failed: connection to server at "db", port 9 failed: Connection refused\n\tIs it ...?',
            'connection to server at "db", port 9 failed: Connection refused',
        ),
        (
            "connection failed: port 2 failed\nMultiple connection attempts failed. All failures were:\n"
            "- host: 'a', port: '1', hostaddr: '10.0.0.1': connection failed: port 1 failed\n\tIs it ...?\n"
            "- host: 'b', port: '2', hostaddr: '10.0.0.2': connection failed: port 2 failed",
            "port 1 failed; port 2 failed",
        ),
        ("", ""),
    ],
)
def test_a_connection_s_failure_is_told_in_the_server_s_words(said: str, told: str) -> None:
    assert str(translated(psycopg.OperationalError(said), "here")) == f"here failed: {told}"


def test_a_database_that_is_not_there_is_named_without_the_driver_s_classes(newest_url: str) -> None:
    with pytest.raises(StoreError, match='failed: FATAL: database "none" does not exist\n') as caught:
        hubs_of(newest_url.rpartition("/")[0] + "/none")
    assert "OperationalError" not in str(caught.value)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ExtraMissing, match=r"perdure\[postgres\]"):
        open_store("postgresql://localhost/x", "claims")


def test_a_url_opens_it_and_shows_no_password(newest_place: Place) -> None:
    store = open_store(newest_place.url.replace("postgresql", "postgres", 1), newest_place.hub)
    store.open()
    store.close()
    absent = open_store("postgresql://someone:secret@127.0.0.1:1/nothing", "claims")
    with pytest.raises(StoreError) as refusal:
        absent.open()
    assert "secret" not in str(refusal.value) and "someone" not in str(refusal.value)
    absent.close()


def test_a_read_after_the_end_keeps_no_connection(own_postgres: Server) -> None:
    """A request may be answered after the engine has closed."""
    with own_postgres.database() as url:
        store = PostgresStore(url, "claims")
        store.register(profile("one"))
        store.open()
        store.commit(Batch(1, new_instances=[instance(1)]))
        store.close()
        assert store.get("claim-1") is not None
        others = (
            "select count(*) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
        deadline = time.monotonic() + 30
        with psycopg.connect(url, autocommit=True) as connection:
            while (left := connection.execute(others).fetchone()) != (0,):  # a session ends after its socket
                assert time.monotonic() < deadline, left


def test_readers_survive_a_restart_of_the_server(
    own_postgres: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with own_postgres.database() as url:
        store = PostgresStore(url, "claims")
        store.register(profile("one"))
        incarnation = store.open().incarnation
        heard = threading.Event()
        store.listen(heard.set)
        store.commit(Batch(1, new_instances=[instance(1)]))
        assert store.get("claim-1") is not None
        assert store.renew()
        with caplog.at_level(logging.INFO, "perdure.store"):
            own_postgres.restart("immediate")
        assert store.get("claim-1") is not None
        assert store.renew()
        with raises(StoreError):
            store.poll(1, 1, 1)
        assert store.reopen().incarnation > incarnation
        heard.clear()
        for _ in range(200):
            store.notify([store._incarnation])
            if heard.wait(0.1):
                break
        assert heard.is_set()
        store.close()
        own_postgres.stop()
        with raises(StoreError):
            store.get("claim-1")
        own_postgres.start()
        assert store.get("claim-1") is not None
        store.close()


# -------------------------------------------------------------------------------------------------------- plans

IN_ORDER = {"dropped_all", "audit", "expire_dropped", "expire_audit", "next_numbers"}
OF_FEW = {
    *(
        "keys",
        "encryption_proofs",
        "forget_encryption_keys",
        "use_keys",
        "hub",
        "hubs",
        "add_hub",
        "add_partitions",
    ),
    *("partitions", "free_partitions", "release_partitions", "take", "void_all", "workers", "expire_workers"),
    *("lock_expired", "free_claims", "void_own"),
    *("fill_ring", "left_in_the_ring", "clear_heads"),
}
BY_KEY = sorted(
    statements().keys()
    - IN_ORDER
    - OF_FEW
    - {"counts", "waits_by_event", "now", "next_incarnation", "refuse"}
)


@pytest.fixture(scope="module")
def planned(
    postgres_places: Callable[[int], Place], is_long_run: bool
) -> Iterator[dict[int, Callable[[str], str]]]:
    """By version, what tells the plan of a statement, made while the tables were empty: with `--long` of all."""
    wires: list[Wire] = []

    def planner(version: int) -> Callable[[str], str]:
        place = postgres_places(version)
        address = address_of(f"{place.url}?schema=planning")
        store = PostgresStore(f"{place.url}?schema=planning", "claims")
        store.open()
        wire, hub_no = connect(address, ENGINE), store._hub_no
        wires.append(wire)
        store.close()

        def plan(name: str) -> str:
            sql = statement(name, '"planning"', hub_no)
            marks = max([0, *(int(mark) for mark in re.findall(r"\$(\d+)", sql))])
            wire.text(f"prepare {name} as {sql}")
            nulls = f"({', '.join(['null'] * marks)})" if marks else ""
            rows = wire.text(f"explain (costs off) execute {name}{nulls}").rows
            wire.text(f"deallocate {name}")
            return "\n".join(row[0] for row in rows)

        return plan

    yield {version: planner(version) for version in (VERSIONS if is_long_run else [NEWEST])}
    for wire in wires:
        wire.close()


@pytest.mark.parametrize("name", BY_KEY)
def test_rows_are_reached_by_an_index_whatever_the_tables_hold(
    planned: dict[int, Callable[[str], str]], name: str
) -> None:
    """Plans are made once and kept, often while the tables are empty."""
    for version, plan_of in planned.items():
        plan = plan_of(name)
        assert "Seq Scan" not in plan, f"{version}: {plan}"
        scans, found = plan.count("Index Scan"), [line for line in plan.split("\n") if "Index Cond" in line]
        assert len(found) >= scans, f"{version}: {plan}"
        for line in found:
            assert set(re.findall(r"([a-z_]+) (?:=|<|>)", line)) - {"hub_no"}, f"{version}: {plan}"


def test_an_episode_that_moves_nothing_indexed_touches_no_index(newest_place: Place) -> None:
    """Updates stay in the page of their row; one of an indexed column never does.

    How many stay depends on the server: a full page is cleared of old rows only if no transaction sees them, and an
    autovacuum may see them all for as long as this test runs.
    """
    store = newest_place.store()
    store.open()
    rows = [instance(number) for number in range(1, 41)]
    store.commit(Batch(1, new_instances=rows))
    before = updates_of_instances(store)
    for number in range(2, 31):
        store.commit(Batch(number, updates=[update_of(row, episodes=number) for row in rows]))
    after = updates_of_instances(store)
    store.close()
    updates, kept_in_page = (later - sooner for sooner, later in zip(before, after, strict=True))
    assert updates == 29 * 40
    assert kept_in_page > 0


def updates_of_instances(store: PostgresStore) -> list[int]:
    """How many rows of instances were updated so far, in any hub, and how many of them without touching an index."""
    assert store._wire is not None
    store._wire.text("select pg_stat_force_next_flush()")
    counted = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'instances'"
    return [int(number) for number in store._wire.text(counted).rows[0]]


# ------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 500])
def test_arrays_arrive_as_they_are(newest_place: Place, count: int) -> None:
    numbers = [(-1) ** n * (2**62 + n) for n in range(count)]
    texts = [("\u00e4\U0001f600" * (n % 3)) + "x" * (n * 11) for n in range(count)]
    bodies = [bytes(range(n % 256)) * (n % 4) for n in range(count)]
    some: list[Any] = [None if n % 3 == 1 else value for n, value in enumerate(numbers)]
    some_texts: list[Any] = [None if n % 3 == 1 else value for n, value in enumerate(texts)]
    some_bodies: list[Any] = [None if n % 2 else value for n, value in enumerate(bodies)]
    wire = connect(address_of(newest_place.url), ENGINE)
    answer = wire.text(
        "select * from unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::text[], $6::bytea[])",
        binary.numbers(numbers),
        binary.texts(texts),
        binary.bodies(bodies),
        binary.numbers_or_null(some),
        binary.texts_or_null(some_texts),
        binary.bodies_or_null(some_bodies),
    )
    wire.close()
    assert answer.rows == list(zip(numbers, texts, bodies, some, some_texts, some_bodies, strict=True))


# ------------------------------------------------------------------------------------------------------- moving


def test_a_hub_moves_between_sqlite_and_postgres_and_back(place: Place, tmp_path: Any) -> None:
    sqlite, again = (SqliteStore(str(tmp_path / f"{name}.db"), place.hub) for name in ("from", "to"))
    store, memory = place.store(), MemoryStore(place.hub)
    for one in (sqlite, again, store, memory):
        one.open()
    sqlite.commit(EVERYTHING)
    memory.commit(EVERYTHING)
    transfer(sqlite, store)
    transfer(store, again)
    assert everything_of(sqlite) == everything_of(store) == everything_of(again) == everything_of(memory)
    for one in (sqlite, again, store):
        one.close()


def test_partitions_are_given_anew_by_the_hub_that_rows_come_to(place: Place) -> None:
    embedded, store = MemoryStore("claims"), place.store()
    embedded.open()
    store.open()
    right = instance(1, "a")
    embedded.commit(Batch(1, new_instances=[replace_partition(right)], inbox_added=[message(1, "a")]))
    transfer(embedded, store)
    store.close()
    store.register(profile("one"))
    store.open()
    store.take([right.partition])
    assert [row.message_no for row in store.poll(9, 9, 9).messages] == [1]
    assert store.rows(["a"])[0].partition == right.partition
    store.close()


def replace_partition(row: Any) -> Any:
    return row._replace(partition=0)


def test_what_other_workers_were_to_do_is_done_again_at_the_destination(place: Place) -> None:
    store, memory = place.store(), MemoryStore("claims")
    store.open()
    memory.open()
    store.commit(
        Batch(1, new_instances=[instance(1), instance(2)], activities_placed=[activity(1, "claim-2")])
    )
    transfer(store, memory)
    assert memory.local_work(0, 9) == [(2, "claim-2")]
    store.close()


# --------------------------------------------------------------------------------------------------- maintenance


def test_upkeep_forgets_void_workers_after_a_day_and_nobody_else(place: Place) -> None:
    with served(place, HOUR, HOUR) as [(one, first), (two, _)]:
        one.close()
        now = two.census().now
        for later, kept in ((now + HOUR, True), (now + HOUR + DAY + 10**9, False)):
            two.maintain(later)
            with session(place) as looker:
                found = looker.execute(
                    "select 1 from perdure.workers where incarnation = %s", (first,)
                ).fetchall()
            assert bool(found) is kept
        assert [row.worker for row in two.census().workers] == ["worker-1"]


def test_all_that_is_written_is_on_disk_whatever_the_roles_default(place: Place) -> None:
    url = f"{place.url}?options=-c%20synchronous_commit%3Doff"
    store = replace(place, url=url).store()
    store.open()
    assert store._wire is not None
    assert store._wire.text("show synchronous_commit").rows == [("on",)]
    store.close()


def test_histories_are_compressed_by_the_fast_method_where_the_server_has_it(place: Place) -> None:
    store = place.store()
    store.open()
    assert store._wire is not None
    known = "select 'lz4' = any(enumvals) from pg_settings where name = 'default_toast_compression'"
    expected = "lz4" if store._wire.text(known).rows == [(True,)] else "pglz"
    assert store._wire.text("show default_toast_compression").rows == [(expected,)]
    store.close()


# ------------------------------------------------------------------------------------------------------ poolers


def test_a_pooler_of_transactions_is_refused_and_one_of_sessions_asked_for(newest_place: Place) -> None:
    for mode in POOLINGS:
        with Pooler(newest_place.server, mode) as pooler:
            url = pooler.url(newest_place.url)
            with pytest.raises(StoreUnusable, match="pooler=session"):
                PostgresStore(url, newest_place.hub).open()


def test_behind_a_pooler_of_sessions_workers_serve_as_ever(newest_place: Place) -> None:
    with Pooler(newest_place.server, "session") as pooler:
        place = replace(newest_place, url=f"{pooler.url(newest_place.url)}?pooler=session")
        with served(place, HOUR, HOUR) as [(one, first), (two, _)]:
            one.take([1])
            one.commit(Batch(1, new_instances=[instance(1)], activities_placed=[activity(1)]))
            assert len(two.claim([""], NAMES, 9)) == 1
            assert two.get("claim-1") is not None
            again = one.reopen()
            assert (again.incarnation > first, again.owned) == (True, frozenset({1}))
            assert one.renew()
            with raises(StoreInUse):
                place.store().open()


def test_a_hub_keeps_its_number_of_partitions(postgres_url: str) -> None:
    """A hub from before there were 256 of them has 32, whatever the setting says when it is opened again."""
    for hub, wanted, found in (("old", 32, 32), ("old", PARTITIONS, 32), ("new", PARTITIONS, PARTITIONS)):
        with closing(PostgresStore(postgres_url, hub, new_partitions=wanted)) as store:
            store.register(profile())
            opening = store.open()
            assert opening.partitions == found
            assert store.take(range(PARTITIONS)) == list(range(found))


@pytest.mark.parametrize(("there", "wanted", "found"), [(32, "64", 32), (0, "64", 64), (0, "", PARTITIONS)])
async def test_a_copy_has_the_partitions_of_the_hub_that_it_fills(
    there: int, wanted: str, found: int, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty hub from before there were 256 of them keeps its number; a new one takes it from the setting."""
    source = f"sqlite:///{tmp_path}/a.db"
    ids = [f"claim-{no}" for no in range(50)]
    async with df.App("claims").running(store=source, accept_only=True) as client:
        for name in ids:
            await client.start_new("waits_for_a_worker", name)
    if there:
        with closing(PostgresStore(postgres_url, "claims", new_partitions=there)) as store:
            store.open()
    if wanted:
        monkeypatch.setenv("PERDURE_PARTITIONS", wanted)
    assert df.copy(source, postgres_url).report.ok
    with closing(PostgresStore(postgres_url, "claims")) as store:
        store.register(profile())
        assert store.open().partitions == found
        assert store.take(range(MOST_PARTITIONS)) == list(range(found))
        placed = {row.instance_id: row.partition for row in store.rows(ids)}
        assert placed == {name: partition_of(name, found) for name in ids}
