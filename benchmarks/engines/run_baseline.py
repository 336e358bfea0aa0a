"""The disk and the SQLite that perdure uses, alone: what a durable commit costs here and now.

`four` is four single-row commits in WAL mode at `synchronous=FULL`, one after the other: what W2's four batches
cannot do without. `fdatasync` appends 4 KiB and syncs it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import apsw
from wire import Engine, serve


class Baseline(Engine):
    name = "baseline"
    workloads = ()

    async def open(self, folder: str) -> dict[str, str]:
        self._folder = Path(folder)
        self._connection = apsw.Connection(str(self._folder / "baseline.db"))
        self._connection.pragma("journal_mode", "wal")
        self._connection.pragma("synchronous", "full")
        self._connection.pragma("wal_autocheckpoint", 0)
        self._connection.execute("create table rows (no integer primary key, body blob)")
        return {"sqlite": apsw.sqlite_lib_version()}

    async def close(self) -> None:
        self._connection.close()

    async def do_commits(self, rounds: int) -> dict[str, Any]:
        fours = []
        for _ in range(rounds):
            begun = time.perf_counter()
            for _ in range(4):
                self._commit()
            fours.append((time.perf_counter() - begun) * 1e3)
        return {"four_ms": fours}

    async def do_syncs(self, rounds: int) -> dict[str, Any]:
        page = os.urandom(4096)
        descriptor = os.open(self._folder / "baseline.bytes", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        took = []
        try:
            for no in range(rounds):
                begun = time.perf_counter()
                os.pwrite(descriptor, page, no * len(page))
                os.fdatasync(descriptor)
                took.append((time.perf_counter() - begun) * 1e3)
        finally:
            os.close(descriptor)
        return {"sync_ms": took}

    def _commit(self) -> None:
        execute = self._connection.execute
        execute("begin immediate")
        execute("insert into rows (body) values (?)", (b"x" * 300,))
        execute("commit")


if __name__ == "__main__":
    serve(Baseline())
