"""PgBouncer in front of a server, in transaction or session mode.

    with Pooler(server, "transaction") as pooler:
        psycopg.connect(pooler.url(url))

It ends as servers do: with those who use it (`tests.postgres.servers`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from tests.postgres.servers import ROLE, Server, account_of_servers, free_port, guard, guarded_directory

Pooling = Literal["transaction", "session", "statement"]
ENDED_WITHIN = 60  # seconds
START_WITHIN = 20.0  # seconds


class Pooler:
    """A running PgBouncer. Any database of the server is reached through it, by the roles it was told of."""

    def __init__(
        self,
        server: Server,
        mode: Pooling = "transaction",
        *,
        size: int = 20,
        roles: Sequence[str] = (ROLE,),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`size` is how many connections to the server it keeps for a database and role."""
        self.host, self.port = "127.0.0.1", 0
        self.directory = Path()
        self._server, self._roles = server, roles
        self._settings = {
            "pool_mode": mode,
            "default_pool_size": str(size),
            "max_client_conn": "500",
            "query_wait_timeout": "20",
            "server_login_retry": "1",
            **(settings or {}),
        }

    def __enter__(self) -> Self:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise RuntimeError("pgbouncer is missing: run `make postgres` (as root), or `make test`")
        self.port = free_port()
        self.directory, self._users = guarded_directory("pgbouncer")
        self._guard = guard(self.directory, ["sh", "-c", f'kill -9 "$(cat {self.directory}/pid)"'])
        self._configure()
        subprocess.run(
            [program, "-q", "-d", str(self.directory / "pgbouncer.ini")],
            user=account_of_servers() or None,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        self._await()
        return self

    def __exit__(self, *_: object) -> None:
        program = Path(f"/proc/{int((self.directory / 'pid').read_text())}/exe")
        os.close(self._users)
        self._guard.wait(30)
        deadline = time.monotonic() + ENDED_WITHIN
        while program.exists() and time.monotonic() < deadline:  # it has been killed, and may still be ending
            time.sleep(0.01)

    def url(self, url: str) -> str:
        """The same database, through the pooler."""
        parts = urlsplit(url)
        return parts._replace(netloc=f"{parts.username or ROLE}@{self.host}:{self.port}").geturl()

    def logs(self) -> str:
        return (self.directory / "pgbouncer.log").read_text(errors="replace")

    def _configure(self) -> None:
        lines = {
            **self._settings,
            "listen_addr": self.host,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(self.directory / "roles"),
            "admin_users": ROLE,  # its console is the database named pgbouncer
            "logfile": str(self.directory / "pgbouncer.log"),
            "pidfile": str(self.directory / "pid"),
        }
        (self.directory / "roles").write_text("".join(f'"{role}" ""\n' for role in self._roles))
        (self.directory / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={self._server.host} port={self._server.port}\n[pgbouncer]\n"
            + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )

    def _await(self) -> None:
        deadline = time.monotonic() + START_WITHIN
        while not (self.directory / "pid").exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start: {self.logs()[-2_000:]}")
            time.sleep(0.02)
