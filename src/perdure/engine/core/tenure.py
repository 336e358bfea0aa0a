"""Tenure: since when a worker has had its instances, which tells why the code of one has to be brought back.

Nothing is recorded per instance. An instance that this worker has created or changed since it opened the hub, or
since it took the partition, was in memory and was evicted. Any other instance was left by an earlier engine (a
restart) or by another worker (a takeover).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.engine.core.instance import Instance

RESTART: Final = "restart"
EVICTED: Final = "evicted"
TAKEOVER: Final = "takeover"
REWIND: Final = "rewind"
RESUME: Final = "resume"


class Tenure:
    """For the loop's thread. Times are in microseconds."""

    def __init__(self) -> None:
        self.is_known = False  # whether a batch has begun since the hub was opened
        self._since = 0
        self._first_no = 0
        self._taken: dict[int, int] = {}

    def opened(self) -> None:
        """The hub was opened: nothing is in memory. The next batch tells the time."""
        self.is_known = False
        self._taken = {}

    def begin(self, now: int, first_no: int) -> None:
        """The first batch since the hub was opened; instances that it creates have numbers from `first_no`."""
        self.is_known, self._since, self._first_no = True, now, first_no

    def took(self, partitions: Iterable[int], now: int) -> None:
        """These partitions came from another worker."""
        self._taken.update(dict.fromkeys(partitions, now))

    def reason_of(self, instance: Instance) -> str:
        """Why the code of this instance is not in memory."""
        taken = self._taken.get(instance.partition)
        if taken is not None:
            return EVICTED if instance.updated_at > taken else TAKEOVER
        if instance.no >= self._first_no or instance.updated_at > self._since:
            return EVICTED
        return RESTART


__all__ = ["EVICTED", "RESTART", "RESUME", "REWIND", "TAKEOVER", "Tenure"]
