"""Ownership: who had which partition and who was void, kept apart from the roster, and held against it.

I26: at most one owner for a partition and epoch, and epochs only grow. I27, I28: no row of an instance is written but
by the owner of its partition, which is not void. I32: in the end nothing is left with a worker that is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.model.instances import partition_of
from perdure.model.records import Batch
from perdure.store.memory_cluster import Roster
from perdure.store.port import Opening
from simulation.sometimes import Sometimes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulation.clock import WorldClock
    from simulation.ledger import Ledger

ASKER_WAITS = 2_500_000  # microseconds in which a rejection certainly reaches the requesting worker
EARLY = 200_000  # microseconds that a worker's clock may be ahead of the database's, if its quartz is right


class Ownership:
    """The truth about partitions."""

    def __init__(
        self, ledger: Ledger, met: Sometimes, roster: Roster, clock: WorldClock, *, is_exact: bool
    ) -> None:
        self._ledger = ledger
        self._met = met
        self._roster = roster
        self._clock = clock
        self._is_exact = is_exact  # no worker's clock runs fast or slow
        self._owners: dict[int, int | None] = dict.fromkeys(roster.partitions)
        self._epochs: dict[int, tuple[int, int | None]] = {}
        self._void: set[int] = set()
        self.names: dict[int, str] = {}

    def is_void(self, incarnation: int) -> bool:
        return incarnation in self._void

    def owner_of(self, instance_id: str) -> int | None:
        return self._owners[partition_of(instance_id, len(self._owners))]

    def owned_by(self, incarnation: int) -> set[int]:
        return {partition for partition, owner in self._owners.items() if owner == incarnation}

    # ----------------------------------------------------------------------------------------- what happens

    def entered(self, opening: Opening, before: int, name: str) -> None:
        """Record a registration; the worker's previous incarnation is void, and its partitions move to the new
        one.
        """
        incarnation = opening.incarnation
        if incarnation in self.names:
            self._bad(
                "I26", f"incarnation {incarnation} was given to {self.names[incarnation]} and to {name}"
            )
        self.names[incarnation] = name
        kept = self.owned_by(before) if before else set()
        if before:
            self._void.add(before)
        for partition in kept:
            self._owners[partition] = incarnation
        if opening.owned != kept:
            self._bad("I26", f"{name} was told it owns {sorted(opening.owned)}; it owns {sorted(kept)}")
        self.compare()

    def taken(self, incarnation: int, partitions: Iterable[int]) -> None:
        for partition in partitions:
            owner = self._owners[partition]
            if owner is not None:
                self._bad("I26", f"partition {partition} was taken by {incarnation} while {owner} owned it")
            if incarnation in self._void:
                self._bad("I28", f"incarnation {incarnation} is void and took partition {partition}")
            self._owners[partition] = incarnation
        self.compare()

    def voided(self, incarnation: int, by: int) -> None:
        self._void.add(incarnation)
        for partition in self.owned_by(incarnation):
            self._owners[partition] = None
        self.compare()

    def committed(self, incarnation: int, batch: Batch) -> None:
        """A batch was let in: was its sender allowed to write all that (I27)?"""
        if incarnation in self._void:
            self._bad("I27", f"incarnation {incarnation} is void, and its commit took effect")
        ahead = batch.at - self._clock.now()
        if ahead > EARLY and self._is_exact and not self._clock.offset:
            # Due work would be early by the database's clock.
            self._bad("I24", f"{incarnation} is ahead of the database by {ahead} us")
        for instance_id in sorted(self._written(batch)):
            owner = self.owner_of(instance_id)
            if owner != incarnation:
                self._bad("I27", f"{incarnation} wrote rows of {instance_id!r}, which {owner} owns")
        for row in batch.new_instances:
            if self.owner_of(row.instance_id) != incarnation:
                self._met("a start accepted by a worker that does not own it")
        for seen in batch.seen:
            asked = self._ledger.asked.get(seen.operation_id)
            if asked is not None:
                self._met("a request answered by another worker")
                if b'"error"' in seen.answer and self._clock.now() > asked.at + ASKER_WAITS:
                    # Decided in time and written too late: the one known gap, which is accepted.
                    self._ledger.refused_late |= {asked.carried, asked.operation_id}
                if asked.asker in self._void:
                    self._met("a request answered after the asker had moved on")
        for partition in batch.partitions_released:
            if self._owners[partition] != incarnation:
                self._bad("I26", f"{incarnation} gave up partition {partition} of {self._owners[partition]}")
            self._owners[partition] = None
        if batch.partitions_released:
            self._met("a hand-over of partitions")
        if batch.partitions_released and batch.activities_placed:
            self._met("a hand-over with running activities")
            if any(row.name.startswith("@") for row in batch.activities_placed):
                self._met("an entity with an operation outside the loop moved")

    def _written(self, batch: Batch) -> set[str]:
        """The instances of which a batch writes rows that only their owner may write."""
        runs, inbox = self._ledger.runs, self._ledger.inbox
        fresh = {row.instance_no: row.instance_id for row in batch.new_instances}
        numbers = {
            *(row.instance_no for row in batch.updates),
            *(row.instance_no for row in batch.history),
            *(number for number, _ in batch.custom_status),
            *(number for number, _ in batch.entity_states),
            *(row.instance_no for row in batch.waits_opened),
            *(number for number, _ in batch.executions_removed),
            *batch.purged,
        }
        ids = {
            fresh.get(number) or runs[number].row.instance_id
            for number in numbers
            if number in fresh or number in runs
        }
        ids |= {
            inbox[number].instance_id
            for number in (*batch.inbox_removed, *batch.inbox_held)
            if number in inbox
        }
        return ids | {row.instance_id for row in batch.activities_placed}

    # ------------------------------------------------------------------------------------------- the roster

    def compare(self) -> None:
        """The roster says the same, and epochs only grow."""
        for partition, row in self._roster.partitions.items():
            if row.incarnation != self._owners[partition]:
                self._bad(
                    "I26",
                    f"partition {partition} is {self._owners[partition]}'s, and the store says {row.incarnation}'s",
                )
            epoch, owner = self._epochs.get(partition, (0, None))
            moved = row.incarnation is not None and row.incarnation != owner
            if row.epoch < epoch or (moved and row.epoch == epoch):
                self._bad(
                    "I26", f"partition {partition} went from epoch {epoch} to {row.epoch}, {owner} to {row}"
                )
            self._epochs[partition] = row.epoch, row.incarnation

    def rest(self) -> None:
        """Nothing is left with a worker that is gone (I32)."""
        now = self._clock.now()
        workers = self._roster.workers
        for partition, owner in self._owners.items():
            row = workers.get(owner) if owner is not None else None
            if row is None or row.state == "void" or row.lease_until < now:
                self._bad("I32", f"partition {partition} is left with {row or owner}")
        for key, placed in self._ledger.placed.items():
            self._bad("I32", f"activity {key} is left behind: {placed}")
        living = [
            row
            for row in workers.values()
            if row.state == "living" and row.role == "worker" and row.lease_until >= now
        ]
        shares = sorted(len(self.owned_by(row.incarnation)) for row in living)
        if shares and shares[-1] - shares[0] > 1:
            self._bad("shares", f"the shares of {len(living)} workers are {shares}")
        if any(row.state != "void" and row.lease_until + 5_000_000 < now for row in workers.values()):
            self._bad("I32", f"a worker that is gone was never voided: {list(workers.values())}")

    def _bad(self, code: str, text: str) -> None:
        self._ledger.problem(code, text)
