"""An engine as a process of its own, which dies or sleeps before or after a request to the log."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from perdure.errors import StoreError
from perdure.store.log.store import LogStore, Terms
from tests.store.log.file_service import FileService
from tests.store.log.rig import start

EVERY = 4  # commits between two snapshots
LEASE = 0.3


def store_of(path: str, machine: str, service: FileService, **terms: object) -> LogStore:
    return LogStore(
        service,
        "claims",
        directory=f"{path}/{machine}",
        terms=Terms(worker=machine, lease=LEASE, **terms),  # type: ignore[arg-type]
    )


def live(path: str, machine: str, how: int, at: int, first: int, commits: int, told: Connection) -> None:
    """Commit, and tell each number before and after. At that request to the service, get the signal `how`."""
    left = at

    def before(_verb: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            told.send(("signal", at))
            os.kill(os.getpid(), how)

    store = store_of(path, machine, FileService(f"{path}/log.db", before), standby=True)
    store.open()
    told.send(("open", 0))
    for number in range(first, first + commits):
        told.send(("tries", number))
        try:
            store.commit(start(number))
        except StoreError:
            told.send(("fenced", number))
            break
        told.send(("has", number))
        if number % EVERY == 0:
            store.save()
    store.close()
    told.send(("closed", left))
