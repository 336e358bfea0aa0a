"""Engines of one log, on machines of their own, under a clock that only moves when a test or a pause moves it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw

from perdure.model.records import Batch, InstanceFilter
from perdure.store.encryption import Encryption
from perdure.store.log.appending import Patience
from perdure.store.log.memory import FATES, Fate, MemoryService
from perdure.store.log.store import LogStore, Terms, at_once
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import instance, message, update_of

BEGIN = 1_800_000_000.0


class Rig:
    """One service and its clock. `engine` gives a store that is not open yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = BEGIN
        self.service = MemoryService(now=lambda: round(self.seconds * 1e6))
        self.stores: list[LogStore] = []

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def patience(self, seconds: float = 10.0) -> Patience:
        return Patience(seconds, lambda: self.seconds, self.sleep)

    def engine(
        self, machine: str = "a", *, boot: str = "boot", cipher: Encryption | None = None, **terms: Any
    ) -> LogStore:
        store = LogStore(
            self.service,
            "claims",
            cipher,
            directory=str(self.path / machine),
            terms=Terms(worker=machine, **terms),
            patience=self.patience(terms.get("lease", 10.0)),
            boot=boot,
            aside=at_once,
        )
        self.stores.append(store)
        return store

    def kill(self, store: LogStore) -> None:
        """As if its process had died: nothing is said to the log, and the kernel drops the locks."""
        self.stores.remove(store)
        store._appender.position = -1
        store.close_reader()
        SqliteStore.close(store)

    def close(self) -> None:
        for store in self.stores:
            store.close_reader()
            store.close()


def unlucky(seed: int, share: float = 0.3) -> Any:
    """Faults for that share of the requests."""
    chance = random.Random(seed)

    def fate(_verb: str) -> Fate:
        return chance.choice(FATES[1:]) if chance.random() < share else "done"

    return fate


def start(number: int, at: int = 1) -> Batch:
    """A commit: an instance that is new, with a message for it."""
    name = f"claim-{number}"
    return Batch(at, new_instances=[instance(number, name)], inbox_added=[message(number, name)])


def step(number: int, at: int = 1) -> Batch:
    """A commit: the message is consumed, and the instance changes."""
    return Batch(at, updates=[update_of(instance(number), episodes=2)], inbox_removed=[number])


def contents(path: str) -> dict[str, list[Any]]:
    """All rows of a file, without its place in the log."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        names = [
            name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")
        ]
        tables = sorted(set(names) - {"log_place"})
        return {name: sorted(map(repr, connection.execute(f"select * from {name}"))) for name in tables}
    finally:
        connection.close()


def numbers(store: LogStore) -> list[int]:
    """The instances of the hub."""
    return sorted(row.instance_no for row in store.query(InstanceFilter(top=100_000)))


def rigs(path: Path) -> Iterator[Rig]:
    rig = Rig(path)
    yield rig
    rig.close()
