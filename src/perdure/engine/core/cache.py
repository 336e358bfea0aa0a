"""The warm instances. Each may be evicted between two batches and reloaded from the store."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.ports import Running
    from perdure.replay.settle import Invocation

SALTS_KEPT: Final = 4_096
_WEIGHT: Final = 3_000  # approximate bytes of an instance without its history


class InstanceCache:
    """Instances by their ids; the least recently touched come first. `limit` is in bytes."""

    def __init__(self, running: Running, limit: int, counters: dict[str, int]) -> None:
        self.warm: dict[str, Instance] = {}
        self.warm_bytes = 0
        self.salts: dict[str, bytes] = {}  # salts of instances started here for other workers, for links
        self._running = running
        self._limit = limit
        self._counters = counters

    def keep(self, instance: Instance) -> None:
        """Keep the instance in memory."""
        self.warm[instance.instance_id] = instance
        self.warm_bytes += instance.size

    def evict(self, instance: Instance) -> None:
        """Evict the instance; it is reloaded from the store when needed."""
        if self.warm.get(instance.instance_id) is instance:
            del self.warm[instance.instance_id]
            self.warm_bytes -= instance.size
        instance.put_away(self._running)
        instance.stored = None

    def awaits(self, invocation: Invocation) -> bool:
        """Whether the result may still be awaited; True when the instance is not in memory."""
        instance = self.warm.get(invocation.instance_id)
        if instance is None or instance.entity_state is not None:
            return True
        if instance.is_finished or instance.execution_id != invocation.execution_id:
            return False
        return instance.execution is None or instance.execution.is_open(invocation.task_id)

    def evict_where(self, is_meant: Callable[[Instance], bool]) -> None:
        """Evict matching instances, between two batches."""
        for instance in [one for one in self.warm.values() if is_meant(one)]:
            self.evict(instance)

    def evict_idle(self, before: int, most: int = 1_000) -> list[str]:
        """Evict up to `most` instances not touched since `before`, and those over the memory limit."""
        evicted: list[str] = []
        for instance in list(islice(self.warm.values(), most)):
            if instance.touched_at >= before and self.weight <= self._limit:
                break
            self.evict(instance)
            evicted.append(instance.instance_id)
        self._counters["evictions"] += len(evicted)
        return evicted

    @property
    def weight(self) -> int:
        """The approximate memory of the warm instances, in bytes."""
        return self.warm_bytes + _WEIGHT * len(self.warm)

    def evict_borrowed(self, borrowed: set[str]) -> None:
        """Evict instances of other workers that were loaded for one batch."""
        for instance_id in borrowed:
            found = self.warm.get(instance_id)
            if found is not None:
                if found.written:
                    self.salts[instance_id] = found.salt
                self.evict(found)
        for instance_id in list(islice(self.salts, max(0, len(self.salts) - SALTS_KEPT))):
            del self.salts[instance_id]

    def clear(self) -> None:
        """Evict all instances."""
        for instance in list(self.warm.values()):
            self.evict(instance)
        self.warm.clear()
        self.warm_bytes = 0


__all__ = ["InstanceCache"]
