"""A copy of a hub as a SQLite file: for backups, for commands that only read, and for the state at a moment.

It reads a snapshot and the records behind it. It takes no lock, appends nothing, and disturbs no engine.
"""

from __future__ import annotations

import os
from contextlib import closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from perdure.errors import StoreUnusable
from perdure.store.log.appending import Patience
from perdure.store.log.catching_up import CatchUp
from perdure.store.log.port import Missing, Trimmed
from perdure.store.log.replica import Replica
from perdure.store.log.snapshots import Shelf
from perdure.store.sqlite.errors import translating
from perdure.store.sqlite.files import SIDES, create

if TYPE_CHECKING:
    from perdure.store.log.port import Log, Service
    from perdure.store.log.snapshots import Listed

_SECONDS: float = 60.0


def write_copy(
    service: Service, hub: str, path: str, *, at: int | None = None, patience: Patience | None = None
) -> int:
    """Write the hub to a new SQLite file, which only its owner may read. Returns the number of records behind it.

    Parameters:
        at: a moment in microseconds, by the service's clock: with every commit up to it, and none after it. By
            default, all commits that the service has confirmed before the call.
        patience: how long to repeat a request without an answer; by default a minute.

    Raises StoreUnusable if the file exists, if there is no such hub, or if its log does not reach back to `at`;
    StoreError if the service does not answer.
    """
    if os.path.lexists(path):
        raise StoreUnusable(f"{path} already exists: choose another name")
    patience = patience or Patience(_SECONDS)
    create(path)
    try:
        with closing(service.log()) as log, translating(path):
            return _write(service, log, hub, path, at, patience)
    except Missing:
        _remove(path)
        raise StoreUnusable(f"{service.where} does not have the hub {hub!r}") from None
    except BaseException:
        _remove(path)
        raise


def _write(service: Service, log: Log, hub: str, path: str, at: int | None, patience: Patience) -> int:
    shelf = Shelf(service, hub, patience)
    replica = Replica(path, hub)
    try:
        catching_up = CatchUp(replica, log, shelf, patience)
        if at is None:
            catching_up.begin_with(shelf.newest())
            catching_up.run()
        else:
            _go_back(catching_up, shelf, at)
        found = replica.place.position
        replica.forget_log()
        return found
    finally:
        replica.close()


def _go_back(catching_up: CatchUp, shelf: Shelf, at: int) -> None:
    snapshots = shelf.read()[0].snapshots
    start = next((listed for listed in reversed(snapshots) if listed.at <= at), None)
    try:
        catching_up.begin_with(start)
        catching_up.run_exactly(lambda record: record.written_at <= at)
    except Trimmed:
        raise StoreUnusable(
            f"the log of {shelf.where} does not reach back to {_shown(at)}{_oldest(snapshots)}: `--keep-log` says "
            "how long it is kept"
        ) from None


def _oldest(snapshots: list[Listed]) -> str:
    return f", but to {_shown(snapshots[0].at)}" if snapshots else ""


def _shown(at: int) -> str:
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="seconds")


def _remove(path: str) -> None:
    for side in SIDES:
        with suppress(FileNotFoundError):
            os.unlink(path + side)


__all__ = ["write_copy"]
