"""What a hub did in the last hour or day, for dashboards: read from the ring, never by a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.engine.client.instance_counts import own_counts, slots
from perdure.errors import PayloadError
from perdure.model.statistics import WINDOWS, HubStatistics, Window, statistics_of

if TYPE_CHECKING:
    from perdure.engine.client.gateway import Gateway
    from perdure.model.ring import Slot
    from perdure.store.port import ClientStore


class StatisticsVerbs:
    """The client's verb about what the hub did lately."""

    gateway: Gateway

    async def statistics(self, last: Window = "hour") -> HubStatistics:
        """How many instances started, completed, failed and were terminated in the last hour, by minute, or in the
        last day, by hour; with the durations p50 and p95, and the number of unfinished and parked instances.

        The hub counts this while it runs, so the answer takes as long for a million instances as for one.

        Parameters:
            last: "hour" or "day".

        Raises PayloadError for another window.
        """
        if last not in WINDOWS:
            raise PayloadError(f"the statistics are those of the last hour or day, not of {last!r}")
        gateway = self.gateway
        return await gateway.read(lambda: statistics(gateway.store, last, gateway.now()))


def statistics(store: ClientStore, last: Window, now: int) -> HubStatistics:
    """The statistics of a store's hub; without intervals of a damaged ring, which `verify` reports."""
    seconds, _ = WINDOWS[last]
    try:
        found: list[Slot] = slots(store, seconds, now)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        found = []
    return statistics_of(last, found, own_counts(store), now)


__all__ = ["StatisticsVerbs", "statistics"]
