"""The next timers. Only the next minute is in memory; the store's index on `due_at` has the rest."""

from __future__ import annotations

from heapq import heappop, heappush


class Wakeups:
    """Instances by the time of their next timer, within the horizon; "" means the inbox."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []
        self._at: dict[str, int] = {}

    def push(self, at: int, instance_id: str) -> None:
        """Wake this instance at `at` (microseconds), or earlier if it is already set."""
        known = self._at.get(instance_id)
        if known is None or at < known:
            self._at[instance_id] = at
            heappush(self._heap, (at, instance_id))

    def next_at(self) -> int | None:
        """The earliest time."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: int, most: int) -> list[str]:
        """Remove and return at most `most` due entries, earliest first."""
        due: list[str] = []
        while len(due) < most and (at := self.next_at()) is not None and at <= now:
            instance_id = heappop(self._heap)[1]
            del self._at[instance_id]
            due.append(instance_id)
        return due

    def clear(self) -> None:
        self._heap.clear()
        self._at.clear()

    def __len__(self) -> int:
        return len(self._at)
