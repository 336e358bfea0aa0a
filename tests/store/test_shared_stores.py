"""Stores whose hub several workers may serve keep every promise of `SharedStore`."""

import secrets
import threading
from collections.abc import Callable, Iterator

import pytest

from perdure.model.records import Batch
from perdure.store.memory import MemoryStore
from perdure.store.port import Overseer, SharedStore
from perdure.store.postgres.lease_keeper import PostgresOverseer
from perdure.testing.shared_store_suite import HOUR, SharedStoreConformance, profile
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


# ----------------------------------------------------------------------------------------------- overseers

Opened = tuple[SharedStore, SharedStore, Overseer]


@pytest.fixture(params=["memory", "postgres"])
def watched(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Two workers with leases that end on their own in a moment, named `.../1` and `.../2`, and their overseer."""
    overseer: Overseer
    if request.param == "memory":
        hub = MemoryStore("claims")
        one, two, overseer = hub.beside(), hub.beside(), hub.overseer()
    else:
        place: Place = request.getfixturevalue("newest_place")
        one, two, overseer = place.store(), place.store(), PostgresOverseer(place.url)
    family = secrets.token_hex(4)
    for number, store in enumerate((one, two), 1):
        store.register(profile(f"{family}/{number}", lease=1_000))
        store.open()
    yield one, two, overseer
    overseer.close()
    for store in (one, two):
        store.close_reader()
        store.close()


def test_an_overseer_keeps_the_lease_of_one_who_cannot(watched: Opened) -> None:
    one, two, overseer = watched
    first, second = one.census().workers
    assert overseer.prolong([first.worker, "nobody/1"], HOUR) == [first.worker]
    until = {row.worker: row.lease_until for row in two.census().workers}
    assert until[first.worker] > two.census().now + HOUR // 2
    assert until[second.worker] == second.lease_until
    assert not two.void(first.incarnation)
    assert overseer.prolong([first.worker], 1) == [first.worker]  # never shorter
    assert {row.worker: row.lease_until for row in two.census().workers} == until
    assert overseer.prolong([], HOUR) == []


def test_an_overseer_ends_the_lease_of_the_dead_at_once(watched: Opened) -> None:
    one, two, overseer = watched
    one.take([1, 2])
    first, second = one.census().workers
    overseer.prolong([first.worker, second.worker], HOUR)
    assert not two.void(first.incarnation)
    assert overseer.expire([first.worker], HOUR) == [first.worker]
    assert two.void(first.incarnation)
    assert two.take([1, 2]) == [1, 2]
    assert not one.renew()
    assert overseer.expire([first.worker], HOUR) == []
    assert overseer.prolong([first.worker], HOUR) == []


def test_others_hear_of_a_death(newest_place: Place) -> None:
    one, two, overseer = newest_place.store(), newest_place.store(), PostgresOverseer(newest_place.url)
    name, heard = secrets.token_hex(4), threading.Event()
    try:
        one.register(profile(name, HOUR))
        two.register(profile("two", HOUR))
        one.open()
        two.open()
        two.listen(heard.set)
        for _ in range(200):  # a hint may be lost while the listener is about to listen
            overseer.expire([name], HOUR)
            if heard.wait(0.1):
                break
        assert heard.is_set()
    finally:
        overseer.close()
        two.close()
        one.close()


def test_an_overseer_survives_its_connection(newest_place: Place) -> None:
    store, overseer = newest_place.store(), PostgresOverseer(newest_place.url)
    name = secrets.token_hex(4)
    try:
        store.register(profile(name, HOUR))
        store.open()
        assert overseer.prolong([name], HOUR) == [name]
        wire = overseer._wire
        assert wire is not None
        newest_place.server.sql(f"select pg_terminate_backend({wire.backend.pid})")
        assert overseer.prolong([name], HOUR) == [name]
    finally:
        overseer.close()
        store.close()
