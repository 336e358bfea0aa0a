"""The disk and the SQLite that perdure uses, alone: what a durable commit costs here and now.

`commits` makes groups of four single-row commits in WAL mode at `synchronous=FULL`, one after the other: what W2's
four batches cannot do without. `syncs` writes 4 KiB and calls fdatasync. Either overwrites what the file has
already, as perdure's log does, or makes the file longer, which the file system has to write down as well: on
ext4 that is nearly twice the price, and comparing with it would flatter.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import apsw
from wire import EngineOverWire, serve

LOG = 16 * 1024 * 1024  # bytes: more than the commits of one command write


class Baseline(EngineOverWire):
    name = "baseline"
    workloads = ()

    async def open(self, folder: str) -> dict[str, str]:
        self._folder = Path(folder)
        return {"sqlite": apsw.sqlite_lib_version()}

    async def do_commits(self, rounds: int, longer: bool) -> dict[str, Any]:
        connection = self._database("longer" if longer else "kept")
        if not longer:  # fill the log, and begin it again
            connection.execute("insert into rows (body) values (zeroblob(?))", (LOG,))
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        fours = []
        for _ in range(rounds):
            begun = time.perf_counter()
            for _ in range(4):
                _commit(connection)
            fours.append((time.perf_counter() - begun) * 1e3)
        connection.close()
        return {"four_ms": fours}

    async def do_syncs(self, rounds: int, longer: bool) -> dict[str, Any]:
        page = os.urandom(4096)
        descriptor = os.open(self._folder / "bytes", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        took = []
        try:
            if not longer:
                os.pwrite(descriptor, bytes(rounds * len(page)), 0)
                os.fsync(descriptor)
            for no in range(rounds):
                begun = time.perf_counter()
                os.pwrite(descriptor, page, no * len(page))
                os.fdatasync(descriptor)
                took.append((time.perf_counter() - begun) * 1e3)
        finally:
            os.close(descriptor)
        return {"sync_ms": took}

    def _database(self, name: str) -> apsw.Connection:
        """An empty one."""
        for file in self._folder.glob(f"{name}.db*"):
            file.unlink()
        connection = apsw.Connection(str(self._folder / f"{name}.db"))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full")
        connection.pragma("wal_autocheckpoint", 0)
        connection.execute("create table rows (no integer primary key, body blob)")
        return connection


def _commit(connection: apsw.Connection) -> None:
    connection.execute("begin immediate")
    connection.execute("insert into rows (body) values (?)", (b"x" * 300,))
    connection.execute("commit")


if __name__ == "__main__":
    serve(Baseline())
