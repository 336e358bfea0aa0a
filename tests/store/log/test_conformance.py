"""A hub in a log keeps every promise of the port, encrypted or not."""

from pathlib import Path

import pytest

from perdure.store.encryption import Encryption
from perdure.store.log.memory import MemoryService
from perdure.store.log.store import LogStore
from perdure.store.port import Store
from perdure.testing.conformance import StoreConformance
from perdure.testing.transfer_suite import MovingConformance

CIPHER = Encryption({"k1": bytes(range(32))})


class TestLog(StoreConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.service = MemoryService()

    def make_store(self) -> Store:
        return LogStore(self.service, "claims", directory=str(self.path))


class TestEncrypted(StoreConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.service = MemoryService()

    def make_store(self) -> Store:
        return LogStore(self.service, "claims", CIPHER, directory=str(self.path))


class TestMoves(MovingConformance):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.made = 0

    def make_store(self, hub: str = "claims") -> Store:
        self.made += 1
        return LogStore(MemoryService(f"hub{self.made}"), hub, directory=str(self.path))
