"""The numbers at the top of the hub page, whose cost for the server is bounded in a large hub.

A store counts instances by reading an index, which takes a second for some millions. In a hub with few instances each
request counts. In a large one the requests share a count, and the next begins only after fifty times as long as the
last one took: so counting takes at most two percent of the time, however many pages are open.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from perdure.model.records import InstanceFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.engine.client.client import Client

FEW: Final = 50_000  # instances that a store counts in some milliseconds
PAUSE: Final = 50.0  # times the duration of a count
_PARKED: Final = InstanceFilter(parked=True)


class Counted(NamedTuple):
    """The instances in each status, and the parked ones among them."""

    by_status: dict[str, int]
    parked: int

    @property
    def total(self) -> int:
        return sum(self.by_status.values())


class HubCounts:
    """The counts of one server's hub. `monotonic` is a clock, in seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last: Counted | None = None  # of a large hub
        self._good_until = 0.0
        self._counting: asyncio.Task[Counted] | None = None

    async def of(self, client: Client) -> Counted:
        """The counts of now, or recent ones if the hub is large."""
        if self._last is None:
            return await self._count(client)
        if self._monotonic() < self._good_until:
            return self._last
        if self._counting is None:
            self._counting = asyncio.create_task(self._count(client))
            self._counting.add_done_callback(self._end)
        return await asyncio.shield(self._counting)

    async def _count(self, client: Client) -> Counted:
        gateway, began = client.gateway, self._monotonic()
        found = await gateway.read(lambda: Counted(gateway.store.counts(), gateway.store.count(_PARKED)))
        ended = self._monotonic()
        self._last = found if found.total > FEW else None
        self._good_until = ended + PAUSE * (ended - began)
        return found

    def _end(self, task: asyncio.Task[Counted]) -> None:
        self._counting = None
        if not task.cancelled():
            task.exception()  # every request can leave before it fails


__all__ = ["Counted", "HubCounts"]
