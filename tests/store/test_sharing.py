"""Stores whose hub several workers may serve keep every promise of `SharedStore`."""

from collections.abc import Callable

import pytest

from perdure.model.records import Batch
from perdure.store.memory import MemoryStore
from perdure.store.port import SharedStore
from perdure.testing.sharing import HOUR, SharedStoreConformance, profile
from tests.store.conftest import Place


class TestMemory(SharedStoreConformance):
    def make_stores(self) -> Callable[[], SharedStore]:
        return MemoryStore("claims").beside


class TestPostgres(SharedStoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self, place: Place) -> None:
        self.place = place

    def make_stores(self) -> Callable[[], SharedStore]:
        return self.place.store


def test_time_of_a_hub_in_memory_is_an_argument() -> None:
    now = 1_000
    one = MemoryStore("claims", clock=lambda: now)
    two = one.beside()
    one.register(profile("one", lease=50))
    two.register(profile("two"))
    first = one.open()
    two.open()
    assert first.now == 1_000
    one.take([1])
    now = 1_049
    assert one.renew()
    now = 1_098
    assert not two.void(first.incarnation)
    now = 1_099
    assert two.void(first.incarnation)
    assert two.census().now == 1_099
    assert two.take([1]) == [1]


def test_a_store_beside_another_holds_the_same_hub() -> None:
    one = MemoryStore("claims")
    one.open()
    one.commit(Batch(1, custom_status=[(1, b"1")]))
    one.close()
    two = one.beside()
    two.register(profile("two", HOUR))
    two.open()
    assert two.custom_status([1]) == {1: b"1"}
