"""What other processes, forked children and second libraries must not do to a hub's file."""

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from perdure.errors import StoreInUse, StoreUnusable
from perdure.model.records import Batch, InstanceFilter
from perdure.store.sqlite.connection import SCHEMA_VERSION
from perdure.store.sqlite.lock import ServerFile, read_server_file
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import instance


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    store = SqliteStore(path, "claims")
    store.open()
    yield store
    store.close()


def start(script: str, *args: str) -> subprocess.Popen[str]:
    """Another process, that runs a script of ours."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(script), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


SERVE = """
    import sys
    from perdure.store.sqlite.store import SqliteStore
    store = SqliteStore(sys.argv[1], "claims")
    store.open()
    store.publish("http://127.0.0.1:7071", "secret")
    print("open")
    sys.stdin.readline()
    store.close()
    print("closed")
    sys.stdin.readline()
"""


# --------------------------------------------------------------------------------------- one engine at a time


def test_a_second_engine_is_told_who_has_the_file(path: str) -> None:
    process = start(SERVE, path)
    try:
        assert line_of(process) == "open"
        with pytest.raises(StoreInUse, match=rf"process {process.pid} .* at http://127.0.0.1:7071.*kill"):
            SqliteStore(path, "claims").open()
        info = read_server_file(path)
        assert info is not None
        assert (info.pid, info.hub, info.address, info.token) == (
            process.pid,
            "claims",
            "http://127.0.0.1:7071",
            "secret",
        )
    finally:
        end(process)


def test_a_killed_engine_holds_nothing(path: str) -> None:
    process = start(SERVE, path)
    assert line_of(process) == "open"
    end(process)
    assert read_server_file(path) is None
    store = SqliteStore(path, "claims")
    store.open()
    store.close()


def test_an_engine_that_closed_is_not_believed_although_it_lives(path: str) -> None:
    process = start(SERVE, path)
    try:
        assert line_of(process) == "open"
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        assert line_of(process) == "closed"
        assert read_server_file(path) is None
        assert Path(path + ".server").read_bytes() == b""
    finally:
        end(process)


def test_two_engines_in_one_process_are_two_too_many(store: SqliteStore, path: str) -> None:
    with pytest.raises(StoreInUse, match="this process already"):
        SqliteStore(path, "claims").open()
    store.commit(Batch(1, new_instances=[instance(1)]))


def test_the_lock_is_kept_while_the_connection_is_replaced(store: SqliteStore, path: str) -> None:
    held = store.server_file
    store.reopen()
    assert store.server_file is held
    with pytest.raises(StoreInUse):
        SqliteStore(path, "claims").open()


def test_the_side_file_is_for_its_owner_alone(store: SqliteStore, path: str) -> None:
    assert stat.S_IMODE(os.stat(path + ".server").st_mode) == 0o600


def test_without_a_side_file_nobody_serves(path: str) -> None:
    assert read_server_file(path) is None


def test_what_is_in_the_side_file_counts_only_while_it_is_locked(path: str) -> None:
    held = ServerFile.acquire(path, "claims")
    held.publish("http://127.0.0.1:1", "a token that is much longer than the next one")
    held.publish("http://127.0.0.1:2", "t")
    info = read_server_file(path)
    assert info is not None
    assert (info.address, info.token) == ("http://127.0.0.1:2", "t")
    content = Path(path + ".server").read_bytes()
    held.release()
    Path(path + ".server").write_bytes(content)
    assert read_server_file(path) is None


def test_a_relative_path_means_the_same_file_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("relative.db", "claims")
    store.open()
    monkeypatch.chdir("/")
    assert store.counts() == {}
    assert store.location == str(tmp_path / "relative.db")
    store.close()


# -------------------------------------------------------------------------------------------------- the guard


def test_no_second_library_opens_the_file(store: SqliteStore, path: str) -> None:
    for name in (path, f"file:{path}?mode=ro", f"file://{path}"):
        with pytest.raises(StoreUnusable, match="would drop the engine's locks"):
            sqlite3.connect(name, uri=name.startswith("file:"))


def test_no_plain_open_touches_the_file(store: SqliteStore, path: str, tmp_path: Path) -> None:
    store.commit(Batch(1, new_instances=[instance(1)]))
    os.symlink(path, tmp_path / "symbolic")
    os.link(path, tmp_path / "hard")
    for name in ("perdure.db", "perdure.db-wal", "perdure.db-shm", "symbolic", "hard"):
        with pytest.raises(StoreUnusable, match="in this process's engine"):
            (tmp_path / name).read_bytes()
    with pytest.raises(StoreUnusable):
        os.open(path, os.O_RDONLY)
    with pytest.raises(StoreUnusable):
        open(os.fsencode(path), "ab")  # noqa: SIM115


def test_other_files_are_free(store: SqliteStore, tmp_path: Path) -> None:
    (tmp_path / "other.db-wal").write_text("x")
    assert (tmp_path / "other.db-wal").read_text() == "x"
    assert (tmp_path / "perdure.db.server").read_bytes()
    sqlite3.connect(tmp_path / "ledger.db").close()
    sqlite3.connect(":memory:").close()
    with pytest.raises(FileNotFoundError):
        (tmp_path / "missing").read_bytes()
    with open(os.open(os.devnull, os.O_RDONLY)) as null:
        assert null.read() == ""


def test_a_closed_file_is_free_again(store: SqliteStore, path: str) -> None:
    store.close()
    sqlite3.connect(path).close()
    assert Path(path).read_bytes().startswith(b"SQLite format 3")


def test_another_process_may_look(store: SqliteStore, path: str) -> None:
    store.commit(Batch(1, new_instances=[instance(1)]))
    script = (
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('pragma user_version').fetchone())"
    )
    process = start(script, path)
    assert line_of(process) == f"({SCHEMA_VERSION},)"
    end(process)
    store.commit(Batch(2, new_instances=[instance(2)]))


FORK = """
    import os, signal, sys
    from perdure.errors import StoreUnusable
    from perdure.model.records import Batch
    from perdure.store.sqlite.lock import read_server_file
    from perdure.store.sqlite.store import SqliteStore
    from perdure.testing.conformance import instance

    store = SqliteStore(sys.argv[1], "claims")
    store.open()
    store.get("claim-1")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        for verb in (
            lambda: store.commit(Batch(1, new_instances=[instance(1)])),
            lambda: store.poll(1, 1, 1),
            lambda: store.get("claim-1"),
            lambda: store.open(),
            lambda: store.reopen(),
            lambda: store.maintain(1),
        ):
            try:
                verb()
                print("the child was let in")
            except StoreUnusable as error:
                assert "spawn" in str(error)
        store.close()
        print("child refused", flush=True)
        os.close(write)
        os.read(read, 1)  # until the parent is dead
        os.read(0, 1)  # until the test has looked
        os._exit(0)
    os.read(0, 1)
    store.commit(Batch(2, new_instances=[instance(2)]))
    print("parent goes on", store.counts(), read_server_file(sys.argv[1]).pid == os.getpid(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_uses_nothing_and_keeps_nothing(path: str) -> None:
    process = start(FORK, path)
    assert line_of(process) == "child refused"
    process.stdin.write("\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]
    assert line_of(process) == "parent goes on {'Running': 1} True"
    process.wait()
    store = SqliteStore(path, "claims")
    assert store.open().next_instance_no == 3, "the child's copy of the lock must not outlive the engine"
    store.close()
    end(process)


# ---------------------------------------------------------------------------------------------------- kill -9

COMMIT = """
    import sys
    from perdure.model.records import Batch
    from perdure.store.sqlite.store import SqliteStore
    from perdure.testing.conformance import episode, instance, message

    store = SqliteStore(sys.argv[1], "claims")
    number = store.open().next_instance_no
    while True:
        rows = [instance(no) for no in range(number, number + 1 + number % 5)]
        store.commit(Batch(number, new_instances=rows, history=[episode(row.instance_no) for row in rows],
                           inbox_added=[message(row.instance_no, row.instance_id) for row in rows]))
        number += len(rows)
        print(number - 1)
        if number % 3 == 0:
            store.maintain(number)
"""


def test_a_killed_engine_loses_nothing_that_it_acknowledged(path: str) -> None:
    acknowledged = 0
    for kill_after in (1, 40, 90, 150):
        process = start(COMMIT, path)
        for _ in range(kill_after):
            acknowledged = int(line_of(process))
        process.kill()
        rest, _ = process.communicate()
        acknowledged = max([acknowledged, *(int(line) for line in rest.split("\n")[:-1] if line)])

        store = SqliteStore(path, "claims")
        store.open()
        numbers = [row.instance_no for row in store.query(InstanceFilter(top=10_000))][::-1]
        assert numbers == list(range(1, len(numbers) + 1)), "whole batches, without gaps"
        assert len(numbers) >= acknowledged
        assert [row.message_no for row in store.poll(1, 1, 10_000).messages] == numbers
        assert all(len(found.history) == 1 for found in store.load([f"claim-{no}" for no in numbers]))
        assert store._writer is not None
        assert store._writer.pragma("integrity_check") == "ok"
        store.close()


def test_a_process_killed_in_a_transaction_leaves_the_committed_state(path: str) -> None:
    script = """
        import os, signal, sys
        from perdure.model.records import Batch
        from perdure.store.sqlite.store import SqliteStore
        from perdure.testing.conformance import instance
        store = SqliteStore(sys.argv[1], "claims")
        store.open()
        store.commit(Batch(1, new_instances=[instance(1)]))
        execute = store._execute
        store._execute = lambda sql: os.kill(os.getpid(), signal.SIGKILL) if sql == "commit" else execute(sql)
        store.commit(Batch(2, new_instances=[instance(2)]))
    """
    start(script, path).communicate()
    store = SqliteStore(path, "claims")
    assert store.open().next_instance_no == 2
    store.close()
    connection = apsw.Connection(path)
    assert connection.pragma("integrity_check") == "ok"
    connection.close()
