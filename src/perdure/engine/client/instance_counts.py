"""The number of instances by status, for gauges and pages: read from the ring, never by a scan.

`slots` has what happened in each of the last sixty minutes or forty-eight hours. See `perdure.model.ring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from perdure.model.records import InstanceFilter
from perdure.model.ring import (
    HEAD,
    InstanceCounts,
    Slot,
    counts_in,
    counts_of,
    is_certain,
    slots_of,
    summed,
    without_built_in,
)

if TYPE_CHECKING:
    from perdure.store.port import ClientStore

PARKED: Final = InstanceFilter(parked=True)


def instance_counts(store: ClientStore) -> InstanceCounts:
    """The number of orchestrations in each status, and of the parked ones among them.

    The cost is that of a row for each worker. The instances are counted only if the ring cannot tell: in a file of an
    earlier version that no engine has opened since, and after damage.
    """
    try:
        heads = store.ring(HEAD)
        if heads and is_certain(heads):
            return counts_of(heads)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        pass  # damaged; `verify` reports it
    return true_counts(store)


def own_counts(store: ClientStore) -> InstanceCounts:
    """The same without perdure's own orchestrations, such as those of schedules and queues.

    A hub of an earlier version counted all alike: what perdure had started by then counts as the application's.
    """
    try:
        heads = store.ring(HEAD)
        if heads and is_certain(heads):
            return counts_in(without_built_in(summed(heads)))
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        pass
    every = true_counts(store)
    own = {one: store.count(InstanceFilter(status=(one,), name_is_own=True)) for one in every.by_status}
    return InstanceCounts({one: count for one, count in own.items() if count}, every.parked)


def true_counts(store: ClientStore) -> InstanceCounts:
    """The same by counting instances, which takes longer the more there are."""
    return InstanceCounts(store.counts(), store.count(PARKED))


def slots(store: ClientStore, resolution: int, now: int) -> list[Slot]:
    """What each worker counted in the minutes or hours that are kept, by ascending start; [] without a ring.

    Parameters:
        resolution: `MINUTE` or `HOUR` of `perdure.model.ring`.
        now: the time in microseconds.

    Raises msgspec.MsgspecError if a row is damaged.
    """
    return slots_of(store.ring(HEAD) or (), store.ring(resolution) or (), resolution, now)


__all__ = ["instance_counts", "own_counts", "slots", "true_counts"]
