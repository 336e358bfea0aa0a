"""The partitions of the hub that this worker owns, and the last known owners of the others.

Ownership of an instance decides the handling of its messages: the owner processes them, other workers only
forward them. The knowledge about other owners may be out of date; it is used for hints only.
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
        """Set the partitions after a registration."""
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
        """Whether this worker does not own the instance."""
        return not self.owns_all and partition_of(instance_id, self.partitions) not in self.owned

    def owner_of(self, instance_id: str) -> int | None:
        """The worker to notify of a message for this instance."""
        return self.others.get(partition_of(instance_id, self.partitions))

    def local_id(self, make: Callable[[], str]) -> str:
        """A new instance id, in one of this worker's partitions if it has any, so that the start takes one
        commit.
        """
        owned, partitions = self.owned, self.partitions
        made = make()
        if owned and len(owned) < partitions:
            for _ in range(8 * partitions):
                if partition_of(made, partitions) in owned:
                    break
                made = make()
        return made


__all__ = ["Partitions"]
