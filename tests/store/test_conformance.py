"""All stores keep every promise of the port."""

from pathlib import Path

import pytest

from perdure.model.records import Batch
from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import StoreConformance, instance, message
from perdure.testing.transfer_suite import MovingConformance
from tests.store.conftest import Place


class TestMemory(StoreConformance):
    def make_store(self) -> Store:
        return MemoryStore("claims")


class TestSqlite(StoreConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "perdure.db"

    def make_store(self) -> Store:
        return SqliteStore(str(self.path), "claims")


class TestPostgres(StoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, place: Place) -> None:
        self.place = place

    def make_store(self) -> Store:
        return self.place.store()


class TestPostgresMoves(MovingConformance):
    @pytest.fixture(autouse=True)
    def _place(self, newest_place: Place) -> None:
        self.place = newest_place

    def make_store(self, hub: str = "claims") -> Store:
        return self.place.another().store()


class TestMemoryMoves(MovingConformance):
    def make_store(self, hub: str = "claims") -> Store:
        return MemoryStore(hub)


class TestSqliteMoves(MovingConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.made = 0

    def make_store(self, hub: str = "claims") -> Store:
        self.made += 1
        return SqliteStore(str(self.path / f"{self.made}.db"), hub)


class TestSqliteMovesBesideAnotherHub(TestSqliteMoves):
    """A file with another hub's rows in it: numbers have to be shifted."""

    def make_store(self, hub: str = "claims") -> Store:
        store = super().make_store("other")
        store.open()
        store.commit(Batch(1, new_instances=[instance(50, "claim-1")], inbox_added=[message(60, "claim-1")]))
        store.close()
        return SqliteStore(store.location, hub)
