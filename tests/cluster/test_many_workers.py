"""Many workers on one hub: shares are even, and a takeover takes as few looks at the census as with a few workers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from perdure.engine.cluster.membership import Membership
from perdure.engine.core.partitions import Partitions
from perdure.model.records import Batch
from perdure.store.memory import MemoryStore
from perdure.store.memory_cluster import Place
from perdure.store.port import Profile
from perdure.testing.clock import VirtualClock

LEASE = 10.0


@dataclass
class Crowd:
    """Workers that look at the census in turn, without an engine around them."""

    partitions: int
    clock: VirtualClock = field(default_factory=VirtualClock)
    members: list[tuple[MemoryStore, Partitions, Membership]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._first = MemoryStore("crowd", place=Place(self.clock.now, partitions=self.partitions))

    def joins(self, workers: int) -> None:
        for number in range(workers):
            store = self._first.beside()
            store.register(Profile(f"w{number}", "worker", (), "{}", round(LEASE * 1e6)))
            territory = Partitions()
            member = Membership(store, territory, self.clock, lease=LEASE, is_worker=True)
            member.opened(store.open(), self.clock.monotonic())
            self.members.append((store, territory, member))

    def look(self) -> None:
        """Each worker looks once, takes what is free and releases what it has too much of."""
        for store, territory, member in self.members:
            changes = member.tend()
            territory.gain(changes.gained)
            if changes.surplus:
                store.commit(Batch(self.clock.now(), partitions_released=sorted(changes.surplus)))
                territory.lose(changes.surplus)

    def rounds_until_even(self) -> int:
        for rounds in range(1, 20):
            self.look()
            shares = [len(territory.owned) for _, territory, _ in self.members]
            if sum(shares) == self.partitions and max(shares) - min(shares) <= 1:
                return rounds
        raise AssertionError(f"still uneven: {Counter(shares)}")

    def lose(self, workers: int) -> None:
        """So many workers stop to renew, and their leases run out while the others go on."""
        del self.members[:workers]
        for _ in range(2):
            self.clock.move(self.clock.now() + round((LEASE / 2 + 0.1) * 1e6))
            for _, _, member in self.members:
                member.renew()


@pytest.mark.parametrize(("workers", "partitions"), [(8, 32), (8, 256), (64, 256), (100, 256), (256, 256)])
def test_shares_are_even_after_few_looks(workers: int, partitions: int) -> None:
    crowd = Crowd(partitions)
    crowd.joins(workers)
    assert crowd.rounds_until_even() <= 2
    crowd.joins(workers // 4)  # some have one more than others before, and give it up
    if workers + workers // 4 <= partitions:
        assert crowd.rounds_until_even() <= 2


@pytest.mark.parametrize(("workers", "partitions"), [(8, 32), (64, 256)])
def test_a_takeover_takes_one_look(workers: int, partitions: int) -> None:
    crowd = Crowd(partitions)
    crowd.joins(workers)
    crowd.rounds_until_even()
    crowd.lose(workers // 8)
    assert crowd.rounds_until_even() == 1


def test_more_workers_than_partitions_still_serve() -> None:
    crowd = Crowd(32)
    crowd.joins(40)
    crowd.look()
    assert sorted(len(territory.owned) for _, territory, _ in crowd.members) == [0] * 8 + [1] * 32
