"""Which partitions of the hub this worker owns, and who owns the others as far as is known.

Whether an instance is this worker's decides what may be done with a message for it: an owner feeds it, anybody
else only passes it on. What is known of the others may be out of date; it serves for hints alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from perdure.model.instances import partition_of


class Partitions:
    """For the loop's thread; `is_elsewhere` and `local_id` for any."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.partitions = 1
        self.owned: frozenset[int] = frozenset()
        self.owns_all = False
        self.others: Mapping[int, int] = {}  # partition -> incarnation

    def settle(self, incarnation: int, partitions: int, owned: Iterable[int]) -> None:
        """The worker has registered anew: this is what it owns."""
        self.incarnation = incarnation
        self.partitions = partitions
        self._own(frozenset(owned))

    def gain(self, partitions: Iterable[int]) -> None:
        self._own(self.owned | frozenset(partitions))

    def lose(self, partitions: Iterable[int]) -> None:
        self._own(self.owned - frozenset(partitions))

    def _own(self, owned: frozenset[int]) -> None:
        self.owned = owned
        self.owns_all = len(owned) == self.partitions

    def partition_of(self, instance_id: str) -> int:
        return partition_of(instance_id, self.partitions)

    def is_elsewhere(self, instance_id: str) -> bool:
        """Whether another worker, or nobody, owns this instance."""
        return not self.owns_all and partition_of(instance_id, self.partitions) not in self.owned

    def owner_of(self, instance_id: str) -> int | None:
        """Whom to give a hint about a message for this instance."""
        return self.others.get(partition_of(instance_id, self.partitions))

    def local_id(self, make: Callable[[], str]) -> str:
        """A fresh instance id, of a partition of this worker's if it has any: its start then takes one commit."""
        owned, partitions = self.owned, self.partitions
        made = make()
        if owned and len(owned) < partitions:
            for _ in range(8 * partitions):
                if partition_of(made, partitions) in owned:
                    break
                made = make()
        return made


__all__ = ["Partitions"]
