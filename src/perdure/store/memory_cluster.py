"""A hub in memory for several engines of one process: the reference implementation of `SharedStore`.

`Place` is shared by the stores of one hub: its tables, one lock, one clock for "the database's time", and the
roster of incarnations and partitions. `Member` is the shared half of one of these stores. A commit is atomic
under the lock, so a takeover never meets a commit in progress, as it can in a database.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import RLock
from typing import TYPE_CHECKING, Final

from perdure.errors import FenceLost, StoreError, StoreInUse
from perdure.model.instances import PARTITIONS
from perdure.model.records import ActivityRow, PartitionRow, WorkerRow
from perdure.model.ring import HEAD, HOUR
from perdure.store.memory_tables import Tables
from perdure.store.port import Census, Opening

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perdure.model.ring import RingRow
    from perdure.store.port import Profile

NUMBERS_EACH: Final = 1 << 40
"""The size of each incarnation's own range of instance and message numbers, so that no two use the same."""


def machine_clock() -> int:
    """The machine's time in microseconds."""
    return time.time_ns() // 1_000


@dataclass
class Roster:
    """The workers of the hub, and the owners of its partitions."""

    workers: dict[int, WorkerRow] = field(default_factory=dict)
    partitions: dict[int, PartitionRow] = field(default_factory=dict)
    sole: object | None = None  # the store that has the hub open exclusively
    listening: dict[int, Callable[[], None]] = field(default_factory=dict)

    def living(self, incarnation: int) -> WorkerRow | None:
        """The row of an incarnation that is not void."""
        worker = self.workers.get(incarnation)
        return None if worker is None or worker.state == "void" else worker

    def owned_by(self, incarnation: int) -> frozenset[int]:
        return frozenset(row.partition for row in self.partitions.values() if row.incarnation == incarnation)


@dataclass
class Place:
    """One hub in memory, for all stores over it."""

    clock: Callable[[], int] = machine_clock
    tables: Tables = field(default_factory=Tables)
    roster: Roster = field(default_factory=Roster)
    lock: RLock = field(default_factory=RLock)
    is_shared: bool = False  # whether engines must register
    partitions: int = PARTITIONS

    def __post_init__(self) -> None:
        self.roster.partitions = {number: PartitionRow(number, None, 0) for number in range(self.partitions)}


class Member:
    """The shared half of a store over a place."""

    place = ""

    def __init__(self, hub: str, place: Place) -> None:
        self.hub = hub
        self.late_results = 0
        self._place = place
        self._is_open = False
        self._profile: Profile | None = None
        self._incarnation = 0
        self._state = "living"
        self._heard: Callable[[], None] | None = None

    # ---------------------------------------------------------------------------------------- coming and going

    @property
    def is_shared(self) -> bool:
        return self._place.is_shared

    def register(self, profile: Profile) -> None:
        self._profile = profile

    def _enter(self) -> Opening:
        """Open the hub, or take a new incarnation in it. The store's earlier incarnation ends, and its share
        moves to the new one.
        """
        roster = self._place.roster
        if self._profile is None:
            return self._enter_alone()
        if roster.sole not in (None, self):
            raise StoreInUse(
                f"the hub {self.hub!r} in memory is open exclusively for one engine: close it there"
            )
        roster.sole = None
        now = self._place.clock()
        before, self._incarnation = self._incarnation, _following(self._place)
        roster.workers[self._incarnation] = WorkerRow(
            self._incarnation,
            self._profile.worker,
            self._profile.role,
            " ".join(self._profile.pools),
            self._profile.functions,
            self._state,
            now,
            now + self._profile.lease,
        )
        if roster.living(before) is not None:
            _end(self._place, before, self._incarnation)
        roster.listening.pop(before, None)
        if self._heard is not None:
            roster.listening[self._incarnation] = self._heard
        first = self._incarnation * NUMBERS_EACH
        owned = roster.owned_by(self._incarnation)
        worker = f"{self._profile.worker}#{self._incarnation}.{now}"
        ring = _left_in_the_ring(self._place, worker)
        return Opening(first, first, self._incarnation, self._place.partitions, owned, now, worker, ring)

    def _enter_alone(self) -> Opening:
        roster, tables = self._place.roster, self._place.tables
        if roster.sole not in (None, self):
            raise StoreInUse(
                f"the hub {self.hub!r} in memory is open exclusively for one engine: close it there"
            )
        others = [row.worker for row in roster.workers.values() if row.state != "void"]
        if others:
            raise StoreInUse(
                f"the hub {self.hub!r} in memory is served by {', '.join(others)}: stop them first"
            )
        roster.sole = self
        numbers = max(tables.instances, default=0) + 1, max(tables.inbox, default=0) + 1
        return Opening(*numbers, ring=_left_in_the_ring(self._place, ""))

    def _leave(self) -> None:
        roster = self._place.roster
        if roster.sole is self:
            roster.sole = None
        if roster.living(self._incarnation) is not None:
            _end(self._place, self._incarnation, None)
        roster.listening.pop(self._incarnation, None)
        self._heard = None
        self._incarnation = 0
        self._state = "living"

    def _check_fence(self) -> None:
        if self._incarnation and self._place.roster.living(self._incarnation) is None:
            raise FenceLost(
                f"incarnation {self._incarnation} of this worker is void: its lease expired and another "
                "worker took over its partitions. Nothing was changed"
            )

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreError("the store in memory cannot be used: it is not open")

    def _check_shared(self) -> None:
        self._check_open()
        if not self._incarnation:
            raise StoreError("the store in memory is open exclusively: register before it is opened")

    # ------------------------------------------------------------------------------------------------- leases

    def renew(self) -> bool:
        with self._place.lock:
            worker = self._place.roster.living(self._incarnation)
            if worker is None or self._profile is None:
                return False
            until = self._place.clock() + self._profile.lease
            self._place.roster.workers[self._incarnation] = worker._replace(lease_until=until)
            return True

    def drain(self) -> None:
        with self._place.lock:
            self._check_shared()
            self._state = "draining"
            worker = self._place.roster.living(self._incarnation)
            if worker is not None:
                self._place.roster.workers[self._incarnation] = worker._replace(state="draining")

    def census(self) -> Census:
        with self._place.lock:
            roster = self._place.roster
            return Census(
                self._place.clock(),
                tuple(row for _, row in sorted(roster.workers.items()) if row.state != "void"),
                tuple(row for _, row in sorted(roster.partitions.items())),
            )

    def expire(self, incarnations: Sequence[int]) -> None:
        with self._place.lock:
            self._check_shared()
            for worker in filter(None, map(self._place.roster.living, incarnations)):
                ended = min(worker.lease_until, self._place.clock())
                self._place.roster.workers[worker.incarnation] = worker._replace(lease_until=ended)

    def void(self, incarnation: int) -> bool:
        with self._place.lock:
            self._check_shared()
            worker = self._place.roster.living(incarnation)
            if worker is None or worker.lease_until > self._place.clock():
                return False
            _end(self._place, incarnation, None)
            return True

    # --------------------------------------------------------------------------------- partitions, activities

    def take(self, partitions: Sequence[int]) -> list[int]:
        with self._place.lock:
            self._check_shared()
            self._check_fence()
            rows = self._place.roster.partitions
            free = sorted(n for n in set(partitions) if n in rows and rows[n].incarnation is None)
            taken = free if self._state == "living" else []
            for number in taken:
                rows[number] = PartitionRow(number, self._incarnation, rows[number].epoch + 1)
            return taken

    def claim(self, pools: Sequence[str], names: Sequence[str], limit: int) -> list[ActivityRow]:
        with self._place.lock:
            self._check_shared()
            self._check_fence()
            open_ones = (row for of in self._place.tables.activities.values() for row in of.values())
            free = [
                row
                for row in open_ones
                if row.incarnation is None and row.pool in pools and row.name in names
            ]
            free.sort(key=lambda row: (row.placed_at, row[:3]))
            claimed = [
                row._replace(attempt=row.attempt + 1, incarnation=self._incarnation) for row in free[:limit]
            ]
            for row in claimed:
                self._place.tables.activities[row[:2]][row.task_id] = row
            return claimed

    def claims(self) -> list[ActivityRow]:
        with self._place.lock:
            self._check_shared()
            found = self._place.tables.activities
            rows = (row for of in found.values() for row in of.values())
            return sorted(
                row._replace(invocation=b"") for row in rows if row.incarnation == self._incarnation
            )

    def unclaim(self, activities: Sequence[tuple[str, str, int]]) -> None:
        with self._place.lock:
            self._check_shared()
            for instance_id, execution_id, task_id in activities:
                of = self._place.tables.activities.get((instance_id, execution_id), {})
                if task_id in of and of[task_id].incarnation == self._incarnation:
                    of[task_id] = of[task_id]._replace(incarnation=None)

    def placed(self, instance_ids: Sequence[str]) -> list[ActivityRow]:
        with self._place.lock:
            found = self._place.tables.activities
            wanted = set(instance_ids)
            rows = (row for key, of in found.items() if key[0] in wanted for row in of.values())
            return sorted(row._replace(invocation=b"") for row in rows)

    def _release(self, partitions: Sequence[int]) -> None:
        rows = self._place.roster.partitions
        for number in set(partitions):
            if rows[number].incarnation == self._incarnation:
                rows[number] = rows[number]._replace(incarnation=None)

    # -------------------------------------------------------------------------------------------------- hints

    def notify(self, incarnations: Sequence[int]) -> None:
        """Notify at once, on the caller's thread."""
        with self._place.lock:
            wanted = [self._place.roster.listening.get(number) for number in incarnations]
        for heard in wanted:
            if heard is not None:
                heard()

    def listen(self, heard: Callable[[], None]) -> None:
        with self._place.lock:
            self._check_shared()
            self._heard = self._place.roster.listening[self._incarnation] = heard


def _left_in_the_ring(place: Place, worker: str) -> tuple[RingRow, ...]:
    """The heads and hours of this worker, and of those that are void."""
    return tuple(
        row
        for _, row in sorted(place.tables.ring.items())
        if row.resolution in (HEAD, HOUR)
        and (row.worker == worker or place.roster.living(row.incarnation) is None)
    )


def _following(place: Place) -> int:
    """The next incarnation, with unused numbers, even in a copied hub."""
    tables = place.tables
    highest = max((*tables.instances, *tables.inbox), default=0)
    return max(max(place.roster.workers, default=0), highest // NUMBERS_EACH) + 1


class MemoryOverseer:
    """See `perdure.store.port.Overseer`."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def prolong(self, names: Sequence[str], lease: int) -> list[str]:
        return self._change(names, lambda until, now: max(until, now + lease))

    def expire(self, names: Sequence[str], lease: int) -> list[str]:
        return self._change(names, min)

    def _change(self, names: Sequence[str], until: Callable[[int, int], int]) -> list[str]:
        with self._place.lock:
            now, roster = self._place.clock(), self._place.roster
            found = [row for row in roster.workers.values() if row.worker in names and row.state != "void"]
            for row in found:
                roster.workers[row.incarnation] = row._replace(lease_until=until(row.lease_until, now))
            return sorted({row.worker for row in found})

    def close(self) -> None: ...


def _end(place: Place, incarnation: int, successor: int | None) -> None:
    """Void an incarnation; its partitions and claims go to its successor, or become free."""
    roster = place.roster
    roster.workers[incarnation] = roster.workers[incarnation]._replace(state="void")
    for number in roster.owned_by(incarnation):
        epoch = roster.partitions[number].epoch + (successor is not None)
        roster.partitions[number] = PartitionRow(number, successor, epoch)
    for of in place.tables.activities.values():
        for task_id, row in of.items():
            if row.incarnation == incarnation:
                of[task_id] = row._replace(incarnation=successor)


__all__ = ["NUMBERS_EACH", "Member", "MemoryOverseer", "Place", "machine_clock"]
