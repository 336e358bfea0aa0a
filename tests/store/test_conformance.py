"""Both stores keep every promise of the port."""

from pathlib import Path

import pytest

from perdure.store.memory import MemoryStore
from perdure.store.port import Store
from perdure.store.sqlite.store import SqliteStore
from perdure.testing.conformance import StoreConformance


class TestMemory(StoreConformance):
    def make_store(self) -> Store:
        return MemoryStore("claims")


class TestSqlite(StoreConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path / "perdure.db"

    def make_store(self) -> Store:
        return SqliteStore(str(self.path), "claims")
