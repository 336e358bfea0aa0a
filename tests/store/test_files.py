"""Who may read a database's files, and how many names a database may have."""

import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perdure import maintenance
from perdure.cli.main import root
from perdure.cli.terminal import REFUSED
from perdure.engine.upkeep import crash_file
from perdure.errors import StoreInUse, StoreUnusable
from perdure.model.records import Batch, SeenRow
from perdure.store import open_store
from perdure.store.sqlite import connection as connections
from perdure.store.sqlite import files
from perdure.store.sqlite.lock import FileLock
from perdure.store.sqlite.store import SqliteStore
from tests.store.test_processes import SERVE, end, line_of, start

CAN_MOUNT = os.geteuid() == 0 and sys.platform == "linux" and shutil.which("unshare") is not None


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=["umask-0", "umask-022", "umask-777"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def modes_in(folder: Path) -> dict[str, str]:
    return {file.name: f"{mode_of(file):04o}" for file in folder.iterdir() if file.is_file()}


def a_store(path: str, *, hub: str = "claims") -> SqliteStore:
    store = SqliteStore(path, hub)
    store.open()
    store.commit(Batch(1, seen=[SeenRow("op-1", "i-1", b"{}", 2**52)]))
    return store


# --------------------------------------------------------------------------------------------- permissions


def test_all_files_are_their_owners_alone_whatever_the_umask(umask: int, path: str, tmp_path: Path) -> None:
    store = a_store(path)
    crash_file.StrikeFile(f"{path}.running").close()
    store.get("i-1")
    assert modes_in(tmp_path) == dict.fromkeys(
        ["perdure.db", "perdure.db-wal", "perdure.db-shm", "perdure.db.server", "perdure.db.running"], "0600"
    )
    store.close()
    assert set(modes_in(tmp_path).values()) == {"0600"}


def test_a_database_is_its_owners_before_sqlite_opens_it(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []
    connect = connections.connect

    def watched(file: str, **options: object) -> object:
        seen.append(mode_of(file))
        return connect(file, **options)

    monkeypatch.setattr(connections, "connect", watched)
    before = os.umask(0)
    try:
        a_store(path).close()
    finally:
        os.umask(before)
    assert seen and set(seen) == {0o600}


def test_wider_files_are_narrowed_with_one_line(path: str, caplog: pytest.LogCaptureFixture) -> None:
    a_store(path).close()
    os.chmod(path, 0o644)
    os.chmod(f"{path}.server", 0o666)
    with caplog.at_level(logging.WARNING, "perdure.store"):
        a_second = SqliteStore(path, "claims")
        a_second.open()
        a_second.close()
    assert mode_of(path) == mode_of(f"{path}.server") == 0o600
    [line] = [record.getMessage() for record in caplog.records]
    assert f"{path} (mode 0644)" in line and f"{path}.server (mode 0666)" in line and "0600" in line


def test_the_log_that_a_killed_process_left_is_narrowed_too(path: str) -> None:
    process = start(SERVE, path)
    assert line_of(process) == "open"
    end(process)
    for side in ("", "-wal", "-shm"):
        os.chmod(path + side, 0o664)
    store = SqliteStore(path, "claims")
    store.open()
    assert {mode_of(path + side) for side in ("", "-wal", "-shm")} == {0o600}
    store.close()


def test_a_setting_refuses_wider_files_instead(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a_store(path).close()
    os.chmod(path, 0o640)
    with pytest.raises(StoreUnusable, match=r"mode 0640.*file_access=refuse: chmod 600 "):
        open_store(path, "claims", refuse_open_files=True).open()
    assert mode_of(path) == 0o640
    monkeypatch.setenv("PERDURE_FILE_ACCESS", "refuse")
    with pytest.raises(StoreUnusable, match="file_access=refuse"):
        maintenance.copy(path, f"{path}.copy")


def test_backups_and_copies_are_their_owners_alone(umask: int, path: str, tmp_path: Path) -> None:
    a_store(path).close()
    os.chmod(path, 0o644)
    (tmp_path / "to").mkdir()
    os.chmod(tmp_path / "to", 0o700)
    maintenance.backup(path, tmp_path / "to" / "backup.db")
    maintenance.copy(path, str(tmp_path / "to" / "copy.db"))
    assert set(modes_in(tmp_path / "to").values()) == {"0600"}


def test_an_unfinished_backup_is_its_owners_alone(path: str, tmp_path: Path) -> None:
    a_store(path).close()
    seen: list[int] = []
    before = os.umask(0)
    try:
        maintenance.backup(
            path,
            tmp_path / "b.db",
            progress=lambda *_: seen.extend(map(mode_of, tmp_path.glob("*unfinished*"))),
        )
    finally:
        os.umask(before)
    assert seen and set(seen) == {0o600}


def test_verify_tells_which_files_others_may_read(path: str) -> None:
    a_store(path).close()
    assert CliRunner().invoke(root, ["verify", "--store", path]).exit_code == 0
    os.chmod(path, 0o644)
    outcome = CliRunner().invoke(root, ["verify", "--store", path])
    assert outcome.exit_code == REFUSED
    assert f"chmod 600 {os.path.realpath(path)}" in outcome.stdout


def test_the_folder_of_strikes_is_not_another_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = crash_file.folder_of("database/hub")
    assert mode_of(folder) == mode_of(folder.parent) == 0o700
    shutil.rmtree(folder.parent)
    (tmp_path / "elsewhere").mkdir()
    folder.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnusable, match="belongs to another user"):
        crash_file.folder_of("database/hub")


# --------------------------------------------------------------------------------------------------- names


@pytest.fixture
def served(path: str) -> Iterator[str]:
    """A database that another process serves."""
    process = start(SERVE, path)
    assert line_of(process) == "open"
    yield path
    end(process)


def test_a_file_under_a_second_name_is_not_served_twice(served: str, tmp_path: Path) -> None:
    os.link(served, tmp_path / "hard.db")
    with pytest.raises(StoreInUse, match="under another name"):
        SqliteStore(str(tmp_path / "hard.db"), "claims").open()
    os.symlink(served, tmp_path / "soft.db")
    with pytest.raises(StoreInUse, match="at http://127.0.0.1:7071"):
        SqliteStore(str(tmp_path / "soft.db"), "claims").open()


def test_in_one_process_neither(path: str, tmp_path: Path) -> None:
    store = a_store(path)
    os.link(path, tmp_path / "hard.db")
    with pytest.raises(StoreUnusable, match="open in this process's engine"):
        SqliteStore(str(tmp_path / "hard.db"), "claims").open()
    store.close()


def test_a_second_name_hides_no_commits_of_one_that_was_killed(path: str, tmp_path: Path) -> None:
    process = start(SERVE, path)
    assert line_of(process) == "open"
    os.link(path, tmp_path / "hard.db")
    end(process)
    for verb in ("open", "counts"):
        with pytest.raises(StoreUnusable, match=r"perdure\.db-wal contains commits .* serve .*perdure\.db"):
            getattr(SqliteStore(str(tmp_path / "hard.db"), "claims"), verb)()
    store = SqliteStore(path, "claims")  # under the name that has the log it goes on
    store.open()
    store.close()


def test_names_in_other_folders_are_refused(path: str, tmp_path: Path) -> None:
    a_store(path).close()
    (tmp_path / "other").mkdir()
    os.link(path, tmp_path / "other" / "hard.db")
    for name in (path, str(tmp_path / "other" / "hard.db")):
        with pytest.raises(StoreUnusable, match=r"2 names \(hard links\).*remove the other names"):
            SqliteStore(name, "claims").open()
    os.unlink(tmp_path / "other" / "hard.db")
    a_second = SqliteStore(path, "claims")
    a_second.open()
    a_second.close()


MOUNTED = """
    import subprocess, sys
    from perdure.errors import StoreError
    from perdure.store.sqlite.store import SqliteStore
    original, mounted = sys.argv[1:]
    open(mounted, "w").close()
    subprocess.run(["mount", "--bind", original, mounted], check=True)
    for verb in ("open", "counts"):
        try:
            getattr(SqliteStore(mounted, "claims"), verb)()
            print(verb, "was let in")
        except StoreError as error:
            print(verb, type(error).__name__, error)
"""


@pytest.mark.skipif(not CAN_MOUNT, reason="bind mounts need root on Linux, and unshare")
@pytest.mark.parametrize("is_served", [True, False])
def test_a_file_that_is_mounted_alone_is_refused_with_the_cure(
    path: str, tmp_path: Path, is_served: bool
) -> None:
    process = start(SERVE, path)
    assert line_of(process) == "open"
    if not is_served:
        end(process)
    script = "\n".join(line[4:] for line in MOUNTED.splitlines())
    mounted = str(tmp_path / "mounted here.db")
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", script, path, mounted],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    end(process)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["open", "StoreUnusable"], ["counts", "StoreUnusable"]]
    assert all("Mount the folder of the database" in line for line in lines)


def test_mounts_are_read_as_the_kernel_writes_them(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the test above cannot run."""
    place = str(tmp_path / "a b.db")
    a_store(place).close()
    table = tmp_path / "mountinfo"
    escaped = place.replace(" ", "\\040")
    table.write_text(f"36 35 98:0 /x {escaped} rw,noatime master:1 - ext4 /dev/root rw\n")
    monkeypatch.setattr(files, "_MOUNTS", str(table))
    with pytest.raises(StoreUnusable, match="Mount the folder"):
        SqliteStore(place, "claims").open()
    a_store(path).close()


def test_a_lock_given_up_takes_none_of_sqlites_with_it(path: str) -> None:
    """Closing any descriptor of a file drops all locks that the process has on it."""
    a_store(path).close()
    reader = SqliteStore(path, "claims")
    reader.counts()
    locked = FileLock.acquire(path)
    if locked is None:
        pytest.fail("this system has no locks of open files, and the second name is not seen")
    locked.release()
    probe = """
        import fcntl, sys
        with open(sys.argv[1], "r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000000 + 2)
                print("free")
            except OSError:
                print("held")
    """
    process = start(probe, path)
    assert line_of(process) == "held"
    end(process)
    reader.close()
    again = FileLock.acquire(path)
    assert again is not None
    again.release()
    assert not [fd for fd in os.listdir("/proc/self/fd") if _points_at(fd, path)]


def _points_at(descriptor: str, path: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == os.path.realpath(path)
    except OSError:
        return False
