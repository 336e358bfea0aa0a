"""What only a file can get wrong: versions, space, threads, plans, the log, a second hub."""

import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from perdure.errors import CommitRefused, StoreError, StoreFull, StoreTooNew, StoreUnusable
from perdure.model import records
from perdure.model.records import AuditFilter, Batch, BodyRow, InstanceFilter, SeenRow
from perdure.store.sqlite import connection as connections
from perdure.store.sqlite import store as store_module
from perdure.store.sqlite import wal
from perdure.store.sqlite.query import build
from perdure.store.sqlite.statements import Repeated, blocks, powers_of_two, read_sql
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import audit, episode, instance, key, message, update_of, wait


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    store = SqliteStore(path, "claims")
    store.open()
    yield store
    store.close()


def writer_of(store: SqliteStore) -> apsw.Connection:
    assert store._writer is not None
    return store._writer


def change_file(path: str, *statements: str) -> bytes:
    """Another program's hand in the file."""
    connection = apsw.Connection(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return Path(path).read_bytes()


# ----------------------------------------------------------------------------------------- what may be opened


def test_a_file_of_a_newer_version_is_left_alone(path: str) -> None:
    store = SqliteStore(path, "claims")
    store.open()
    store.close()
    before = change_file(path, "pragma user_version = 99")
    with pytest.raises(StoreTooNew, match=r"version 99.*upgrade perdure"):
        store.open()
    with pytest.raises(StoreTooNew):
        store.get("claim-1")
    assert Path(path).read_bytes() == before


def test_another_programs_database_is_left_alone(path: str) -> None:
    before = change_file(path, "create table theirs (a)", "pragma user_version = 1")
    with pytest.raises(StoreUnusable, match="another program"):
        SqliteStore(path, "claims").open()
    assert Path(path).read_bytes() == before


def test_what_is_no_database_is_left_alone(path: str) -> None:
    Path(path).write_text("Dear Sir or Madam, " * 100)
    with pytest.raises(StoreUnusable, match="NotADBError"):
        SqliteStore(path, "claims").open()
    assert Path(path).read_text().startswith("Dear Sir")


def test_an_empty_file_becomes_a_database(path: str) -> None:
    Path(path).touch()
    store = SqliteStore(path, "claims")
    store.open()
    assert writer_of(store).pragma("user_version") == connections.SCHEMA_VERSION
    assert writer_of(store).pragma("application_id") == connections.APPLICATION_ID
    store.close()


def test_a_file_of_the_first_version_is_read_as_it_is_and_brought_forward_when_opened(path: str) -> None:
    first = [*read_sql("schema.sql").split(";\n"), "insert into hubs values (1, 'claims')"]
    change_file(
        path, *first, "pragma user_version = 1", f"pragma application_id = {connections.APPLICATION_ID}"
    )
    reader = SqliteStore(path, "claims")
    assert reader.keys() == []
    assert reader.audit(AuditFilter()) == []
    reader.close()

    store = SqliteStore(path, "claims")
    store.open()
    store.commit(Batch(1, keys=[key("a")], audit=[audit(1)]))
    assert store.keys()[0].key_id == "a"
    assert [row for _, row in store.audit(AuditFilter())] == [audit(1)]
    assert writer_of(store).pragma("user_version") == connections.SCHEMA_VERSION
    store.close()


def test_a_file_whose_making_was_cut_short_is_made_again(path: str) -> None:
    change_file(path, "pragma journal_mode = wal")
    store = SqliteStore(path, "claims")
    assert store.open().next_instance_no == 1
    store.close()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("/nowhere/at/all/p.db", "/nowhere/at/all"),
        ("/proc/p.db", "/proc/p.db.server"),
        ("/proc", "is a directory"),
    ],
)
def test_a_path_that_cannot_be_is_named(bad: str, says: str) -> None:
    with pytest.raises(StoreUnusable, match=says):
        SqliteStore(bad, "claims").open()


def test_an_old_sqlite_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.51.2")
    with pytest.raises(StoreUnusable, match=r"SQLite 3\.51\.2.*pip install"):
        SqliteStore(path, "claims").open()
    assert not os.path.exists(path)


def test_a_failed_open_leaves_the_file_to_others(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "open_writer", lambda _: (_ for _ in ()).throw(StoreUnusable("no")))
        with pytest.raises(StoreUnusable):
            SqliteStore(path, "claims").open()
    store = SqliteStore(path, "claims")
    store.open()
    store.close()


def test_connections_are_durable_and_never_checkpoint_by_themselves(store: SqliteStore) -> None:
    writer = writer_of(store)
    assert writer.pragma("synchronous") == 2
    assert writer.pragma("journal_mode") == "wal"
    assert writer.pragma("wal_autocheckpoint") == 0
    assert writer.pragma("foreign_keys") == 0


def test_a_file_can_be_read_while_nobody_serves_it(path: str) -> None:
    with pytest.raises(StoreUnusable, match="no database at"):
        SqliteStore(path, "claims").get("claim-1")
    store = SqliteStore(path, "claims")
    store.open()
    store.commit(Batch(1, new_instances=[instance(1)]))
    store.close()
    reader = SqliteStore(path, "claims")
    assert reader.counts() == {"Running": 1}
    assert SqliteStore(path, "nobody's").counts() == {}
    reader.close_reader()


def test_a_read_after_the_end_keeps_no_connection(store: SqliteStore, path: str) -> None:
    """A request may be answered after the engine has closed, on a thread that lives on."""

    def is_open() -> bool:
        links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
        return path in {os.readlink(link) for link in links if os.path.islink(link)}

    store.commit(Batch(1, new_instances=[instance(1)]))
    store.close()
    assert store.get("claim-1") is not None
    assert not is_open()
    store.open()
    store.counts()
    assert is_open()


def test_readers_cannot_write(store: SqliteStore) -> None:
    with store._snapshot() as execute, pytest.raises(apsw.ReadOnlyError):
        execute("delete from instances")


def test_rows_and_tables_have_the_same_columns(store: SqliteStore) -> None:
    for table, row in {
        "history": records.HistoryRow,
        "payloads": records.BodyRow,
        "waits": records.WaitRow,
    }.items():
        columns = [name for _, name, *_ in writer_of(store).execute(f"pragma table_info({table})")]
        assert tuple(columns) == row._fields


# ------------------------------------------------------------------------------------------ errors of commits


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (Batch(1, history=[episode(1), episode(1)]), "history"),
        (Batch(1, new_instances=[instance(1)._replace(name="a\ud800b")]), "insert_instances"),
        (Batch(1, new_instances=[instance(1)._replace(due_at=2**63)]), "insert_instances"),
        (Batch(1, new_instances=[instance(1)._replace(name=None)]), "instances.name"),
        (Batch(1, new_instances=[instance(1)._replace(due_at="soon")]), "instances.due_at"),
        (Batch(1, new_instances=[instance(1)._replace(name=object())]), "insert_instances"),
        (Batch(1, bodies=[BodyRow(1, 0, 0, 0, b"x" * 50_001)]), "insert_payloads"),
        (Batch(1, seen=[SeenRow("op", "a", b"", 9)] * 2), "operation"),
    ],
)
def test_a_refused_value_is_rolled_back_and_named(store: SqliteStore, batch: Batch, says: str) -> None:
    writer_of(store).limit(apsw.SQLITE_LIMIT_LENGTH, 50_000)
    batch.inbox_added.append(message(1, "a"))
    with pytest.raises(CommitRefused, match=says):
        store.commit(batch)
    assert not writer_of(store).in_transaction
    store.commit(Batch(2, new_instances=[instance(2)]))
    assert store.counts() == {"Running": 1}


def test_a_full_disk_changes_nothing_and_passes(store: SqliteStore) -> None:
    store.commit(Batch(1, new_instances=[instance(1)]))
    writer = writer_of(store)
    writer.pragma("max_page_count", writer.pragma("page_count") + 2)
    big = Batch(2, new_instances=[instance(2)], bodies=[BodyRow(2, 0, 0, 0, bytes(200_000))])
    with pytest.raises(StoreFull, match="no space"):
        store.commit(big)
    assert [row.instance_no for row in store.query(InstanceFilter())] == [1]
    store.commit(Batch(3, custom_status=[(1, b"1")]))
    writer.pragma("max_page_count", 1_000_000)
    store.commit(big)
    assert store.counts() == {"Running": 2}


def failing_at(store: SqliteStore, statement: str, error: Exception) -> None:
    """The next time this statement is executed, the disk fails."""
    execute = store._execute

    def failing(sql: str, *values: Any) -> Any:
        if sql.startswith(statement):
            raise error
        return execute(sql, *values)

    store._execute = failing


def test_after_an_error_that_nobody_can_judge_the_store_waits_for_reopen(store: SqliteStore) -> None:
    store.commit(Batch(1, new_instances=[instance(1)]))
    failing_at(store, "commit", apsw.IOError("disk I/O error"))
    with pytest.raises(StoreError, match="disk I/O error") as raised:
        store.commit(Batch(2, new_instances=[instance(2)]))
    assert type(raised.value) is StoreError
    for verb in (
        lambda: store.commit(Batch(3)),
        lambda: store.load(["claim-1"]),
        lambda: store.poll(1, 1, 1),
    ):
        with pytest.raises(StoreError, match="must be opened again"):
            verb()
    assert store.get("claim-1") is not None, "clients still read what is committed"
    assert store.reopen().next_instance_no == 2
    store.commit(Batch(4, new_instances=[instance(2)]))


def test_a_read_that_fails_ends_the_connection(store: SqliteStore) -> None:
    failing_at(store, "select", apsw.CorruptError("malformed"))
    with pytest.raises(StoreUnusable, match="malformed"):
        store.poll(1, 1, 1)
    with pytest.raises(StoreError, match="must be opened again"):
        store.seen(["a"])
    store.reopen()
    assert store.seen(["a"]) == []


def test_a_locked_file_is_no_refusal(store: SqliteStore, path: str) -> None:
    writer_of(store).set_busy_timeout(1)
    other = apsw.Connection(path)
    other.execute("begin immediate")
    with pytest.raises(StoreError, match="locked") as raised:
        store.commit(Batch(1, new_instances=[instance(1)]))
    assert type(raised.value) is StoreError
    other.execute("rollback")
    other.close()
    store.reopen()
    store.commit(Batch(1, new_instances=[instance(1)]))


def test_an_interrupt_in_the_middle_of_a_commit_is_not_mistaken_for_success(store: SqliteStore) -> None:
    failing_at(store, "commit", KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        store.commit(Batch(1, new_instances=[instance(1)]))
    with pytest.raises(StoreError, match="interrupted"):
        store.commit(Batch(1, new_instances=[instance(1)]))
    store.reopen()
    assert store.counts() == {}


# ------------------------------------------------------------------------------------------------- statements


def test_batches_are_cut_into_powers_of_two() -> None:
    rows = list(range(1_000))
    for count in (0, 1, 2, 3, 7, 255, 256, 257, 500, 1_000):
        parts = list(powers_of_two(rows[:count]))
        assert [row for part in parts for row in part] == rows[:count]
        assert all(len(part) in {1, 2, 4, 8, 16, 32, 64, 128, 256} for part in parts)
    assert [len(part) for part in powers_of_two(rows[:500])] == [256, 128, 64, 32, 16, 4]


def test_every_statement_in_every_size_fits_the_cache() -> None:
    texts = [
        Repeated(block).text(1 << size) if "[" in block else block
        for name in ("commit.sql", "queries.sql")
        for block in blocks(name).values()
        for size in range(9)
    ]
    assert len(set(texts)) < connections.CACHED
    assert max(map(len, texts)) < 16_384, "apsw does not keep longer ones"


def test_batches_of_any_size_use_prepared_statements(store: SqliteStore) -> None:
    number = 0

    def commit(count: int) -> None:
        nonlocal number
        rows = [instance(number + no) for no in range(1, count + 1)]
        number += count
        store.commit(
            Batch(1, new_instances=rows, updates=[update_of(row) for row in rows], custom_status=[(1, b"")])
        )

    for size in range(9):
        commit(1 << size)
    before = writer_of(store).cache_stats()
    for count in (3, 77, 131, 200, 255, 300):
        commit(count)
    after = writer_of(store).cache_stats()
    assert after["misses"] == before["misses"]
    assert after["evictions"] == 0


def plan_of(store: SqliteStore, sql: str) -> str:
    numbered = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    values = (None,) * (max(numbered) if numbered else sql.count("?"))
    return "; ".join(row[3] for row in writer_of(store).execute("explain query plan " + sql, values))


INDEXED = {
    "visible_messages": "INDEX inbox_visible (hub_no=? AND visible_at<?)",
    "next_visible_at": "COVERING INDEX inbox_visible (hub_no=? AND visible_at>?)",
    "due_instances": "INDEX instances_due (hub_no=? AND due_at<?)",
    "local_work": "INDEX instances_local (hub_no=? AND rowid>?)",
    "parked": "INDEX instances_parked (hub_no=? AND rowid>?)",
    "counts": "COVERING INDEX instances_unfinished (hub_no=?)",
    "instances_by_id": "(hub_no=? AND instance_id=?)",
    "held_messages": "INDEX inbox_target (hub_no=? AND instance_id=?)",
    "history_of_executions": "(instance_no=? AND execution_no=?)",
    "payloads_of_episodes": "(instance_no=? AND execution_no=? AND episode=?)",
    "update_instances": "SEARCH instances USING INTEGER PRIMARY KEY",
    "update_instance": "SEARCH instances USING INTEGER PRIMARY KEY",
    "move_instance": "SEARCH instances USING INTEGER PRIMARY KEY",
    "move_instances": "SEARCH instances USING INTEGER PRIMARY KEY",
    "finished": "INDEX instances_finished (hub_no=? AND status=? AND",
    "forget_dropped": "INDEX dropped_target (hub_no=? AND instance_id=?)",
    "expire_seen": "COVERING INDEX seen_expiry",
    "purge_messages": "COVERING INDEX inbox_target (hub_no=? AND instance_id=?)",
}


@pytest.mark.parametrize("file_name", ["commit.sql", "queries.sql"])
def test_no_statement_reads_a_whole_table_or_sorts(store: SqliteStore, file_name: str) -> None:
    for name, block in blocks(file_name).items():
        text = block.replace("{hub}", "1")
        plan = plan_of(store, Repeated(text).text(4) if "[" in text else text)
        assert INDEXED.get(name, "") in plan, name
        assert "TEMP B-TREE" not in plan, name
        # `dropped` and `audit` are read from their end, or their beginning, up to a limit; `w` is an index of open
        # waits, which metrics read with a pause that grows with its duration.
        scanned = set(re.findall(r"SCAN (\w+)", plan)) - {"v", "e", "w", "CONSTANT", "4", "dropped", "audit"}
        assert not scanned, name


@pytest.mark.parametrize(
    ("wanted", "plan"),
    [
        (InstanceFilter(), "SCAN instances"),  # from the newest, up to the limit
        (InstanceFilter(before_no=5), "INTEGER PRIMARY KEY (rowid<?)"),
        (InstanceFilter(status=("Completed",)), "SCAN instances"),
        (InstanceFilter(status=("Running",)), "instances_unfinished (hub_no=? AND status=?"),
        (InstanceFilter(status=("Failed",)), "instances_unhappy (hub_no=? AND status=?)"),
        (InstanceFilter(prefix="a"), "(hub_no=? AND instance_id>? AND instance_id<?)"),
        (InstanceFilter(waiting_for="X"), "INTEGER PRIMARY KEY (rowid=?)"),
        (InstanceFilter(waiting_for="X"), "waits_name (name=?)"),
    ],
)
def test_queries_use_the_index_of_their_filter(store: SqliteStore, wanted: InstanceFilter, plan: str) -> None:
    sql, _ = build(wanted, 1)
    assert plan in plan_of(store, sql)
    assert ("TEMP B-TREE" in plan_of(store, sql)) == bool(wanted.prefix)


# ---------------------------------------------------------------------------------------------------- the log


def frames_of(store: SqliteStore) -> tuple[int, int]:
    return writer_of(store).wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)


def test_commits_do_not_checkpoint_and_maintenance_does(store: SqliteStore) -> None:
    big = bytes(4_000_000)
    store.commit(Batch(1, bodies=[BodyRow(1, 0, 0, 0, big)]))
    store.commit(Batch(2, bodies=[BodyRow(1, 0, 1, 0, big)]))
    frames, moved = frames_of(store)
    assert frames > 1_900
    assert moved == 0
    store.maintain(3)
    assert frames_of(store) == (frames, frames)
    store.commit(Batch(4, custom_status=[(1, b"1")]))
    assert frames_of(store)[0] < 10, "the log is written from its beginning again"


def test_a_short_history_comes_with_the_row_of_one_that_has_not_finished(store: SqliteStore) -> None:
    rows = [instance(1), instance(2, status="Completed", completed_at=9), instance(3, episodes=501)]
    store.commit(Batch(1, new_instances=rows, history=[episode(number) for number in (1, 2, 3)]))

    found = [store.get(f"claim-{number}", history="short") for number in (1, 2, 3)]
    whole = [store.get(f"claim-{number}", history=True) for number in (1, 2, 3)]

    assert [len(one.history) for one in whole if one] == [1, 1, 1]
    assert [one.history for one in found if one] == [whole[0] and whole[0].history, [], []]


def test_a_small_log_is_left_alone(store: SqliteStore) -> None:
    store.commit(Batch(1, new_instances=[instance(1)]))
    frames, moved = frames_of(store)
    store.maintain(2)
    assert frames_of(store) == (frames, moved)


def test_the_log_is_long_from_the_beginning_so_that_commits_overwrite(store: SqliteStore, path: str) -> None:
    size = os.path.getsize(path + "-wal")
    assert size == 8 * 1024 * 1024
    for number in range(1, 50):
        store.commit(Batch(number, new_instances=[instance(number)]))
    assert os.path.getsize(path + "-wal") == size
    store.reopen()
    assert os.path.getsize(path + "-wal") == size
    assert store.counts() == {"Running": 49}


@pytest.mark.parametrize(("left", "is_long"), [(5_000_000, False), (40_000_000, True)])
def test_a_start_leaves_the_last_megabytes_of_a_disk_alone(
    path: str, monkeypatch: pytest.MonkeyPatch, left: int, is_long: bool
) -> None:
    monkeypatch.setattr("perdure.store.sqlite.wal.room", lambda file: left)
    store = SqliteStore(path, "claims")
    store.open()
    try:
        store.commit(Batch(1, new_instances=[instance(1)]))
        assert (os.path.getsize(path + "-wal") >= 8 * 1024 * 1024) == is_long
    finally:
        store.close_reader()
        store.close()


KILLED = """
    import os, sys
    from perdure.model.records import Batch, BodyRow
    from perdure.store.sqlite.store import SqliteStore
    life = int(sys.argv[2])
    store = SqliteStore(sys.argv[1], "claims")
    store.open()
    for number in range(4):
        store.commit(Batch(1, bodies=[BodyRow(life, 0, number, 0, bytes(3_000_000))]))
    os.kill(os.getpid(), 9)
"""


def test_lives_too_short_for_upkeep_do_not_let_the_log_grow(path: str) -> None:
    """Each life writes 12 MB and is killed before its first checkpoint."""
    sizes = []
    for life in range(1, 7):
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(KILLED), path, str(life)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        sizes.append(os.path.getsize(path + "-wal"))
    assert max(sizes) < 2 * 12_500_000, sizes
    store = SqliteStore(path, "claims")
    store.open()
    assert store.sizes()["payloads"] == 0, "they belong to no instance"
    assert writer_of(store).execute("select count(*) from payloads").fetchall() == [(24,)]
    store.close()


def test_a_start_rewrites_what_the_log_holds_and_not_what_is_left_behind_it(
    store: SqliteStore, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.commit(Batch(1, bodies=[BodyRow(1, 0, 0, 0, bytes(12_000_000))]))
    store.maintain(2)
    store.commit(Batch(3, custom_status=[(1, b"1")]))  # at the beginning of a log of twelve megabytes
    assert store.counts() == {}  # a connection that keeps the log from being removed
    used: list[int] = []
    prolong = store_module.prolong
    monkeypatch.setattr(store_module, "prolong", lambda file, size: (used.append(size), prolong(file, size)))
    store.reopen()
    assert os.path.getsize(path + "-wal") > 12_000_000
    assert 0 < used[0] < 100_000
    assert store.custom_status([1]) == {1: b"1"}


def test_a_start_moves_a_long_log_into_the_database_once(store: SqliteStore) -> None:
    store.commit(Batch(1, bodies=[BodyRow(1, 0, 0, 0, bytes(12_000_000))]))
    assert store.counts() == {}  # a connection that keeps the log from being removed
    store.reopen()
    frames, moved = frames_of(store)
    assert frames == moved > 2_000
    store.commit(Batch(2, custom_status=[(1, b"1")]))
    assert frames_of(store)[0] < 10, "the log is written from its beginning again"


def test_a_log_that_grew_gives_space_back(store: SqliteStore, path: str) -> None:
    assert writer_of(store).pragma("journal_size_limit") == 64 * 1024 * 1024
    writer_of(store).pragma("journal_size_limit", 9_000_000)
    store.commit(Batch(1, bodies=[BodyRow(1, 0, 0, 0, bytes(12_000_000))]))
    assert os.path.getsize(path + "-wal") > 12_000_000
    store.maintain(2)
    store.commit(Batch(3, custom_status=[(1, b"1")]))
    assert os.path.getsize(path + "-wal") == 9_000_000


def test_maintenance_gives_way_to_a_reader(store: SqliteStore) -> None:
    store.commit(Batch(1, new_instances=[instance(1)]))
    with store._snapshot() as execute:
        assert execute("select count(*) from instances").fetchall() == [(1,)]
        store.commit(Batch(2, bodies=[BodyRow(1, 0, 0, 0, bytes(8_000_000))]))
        store.maintain(3)
        frames, moved = frames_of(store)
        assert moved < 100 < frames
        assert execute("select count(*) from payloads").fetchall() == [(0,)]
    store.maintain(4)
    assert frames_of(store) == (frames, frames)


def test_maintenance_beside_commits(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "_BACKLOG", 0)
    monkeypatch.setattr(wal, "_RESTART_ABOVE", 0)
    stop = threading.Event()
    failed: list[BaseException] = []

    def maintain() -> None:
        try:
            while not stop.is_set():
                store.maintain(1)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=maintain)
    thread.start()
    for number in range(1, 101):
        store.commit(Batch(number, new_instances=[instance(number)], history=[episode(number)]))
    stop.set()
    thread.join()
    assert failed == []
    assert store.counts() == {"Running": 100}


def test_closing_leaves_one_tidy_file(store: SqliteStore, path: str) -> None:
    store.commit(Batch(1, new_instances=[instance(1)]))
    store.get("claim-1")
    thread = threading.Thread(target=store.counts)
    thread.start()
    thread.join()
    store.close()
    assert sorted(os.listdir(os.path.dirname(path))) == ["perdure.db", "perdure.db.server"]


# ------------------------------------------------------------------------------------------------------- hubs


def test_two_hubs_in_a_file_share_numbers_and_nothing_else(path: str) -> None:
    batch = Batch(
        1,
        new_instances=[instance(1, "a", due_at=5, local_work=1)],
        inbox_added=[message(1, "a"), message(2, "a", None)],
        seen=[SeenRow("op", "a", b"1", 10**9)],
        waits_opened=[wait(1, 1)],
        dropped=[records.DroppedRow("a", 1, "RaiseEvent", "X", "", "finished", b"")],
    )
    first, second = SqliteStore(path, "claims"), SqliteStore(path, "quotes")
    first.open()
    first.commit(batch)
    first.close()

    opening = second.open()
    assert (opening.next_instance_no, opening.next_message_no) == (2, 3)
    found = second.poll(9, 9, 9)
    assert (found.messages, found.due, found.next_visible_at) == ([], [], None)
    assert second.load(["a"]) == []
    assert second.get("a") is None
    assert (second.seen(["op"]), second.local_work(0, 9), second.parked(0, 9)) == ([], [], [])
    assert (second.counts(), second.query(InstanceFilter()), second.dropped(None, 9)) == ({}, [], [])
    assert second.query(InstanceFilter(waiting_for="ApproverDecision")) == []
    assert second.history_of(1, 0) is None
    second.commit(Batch(1, new_instances=[instance(2, "a")], seen=batch.seen, inbox_added=[message(3, "a")]))
    second.commit(Batch(2, purged=[2]))
    second.close()

    first.open()
    assert first.counts() == {"Running": 1}
    assert [row.message_no for row in first.poll(9, 9, 9).messages] == [1]
    first.close()
