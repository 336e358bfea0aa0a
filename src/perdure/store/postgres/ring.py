"""The ring of a hub that is being opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.model.ring import HEAD, RingRow, is_certain
from perdure.store.postgres.binary import text
from perdure.store.postgres.pipeline import Statement

if TYPE_CHECKING:
    from perdure.store.postgres.pipeline import Wire


def take_ring(wire: Wire, worker: str, *, alone: bool) -> tuple[RingRow, ...]:
    """The heads and hours of this worker, and of those that are void.

    The instances of a schema of an earlier version are counted once. After damage they are counted by the next engine
    that has the hub to itself.
    """
    left = _left(wire, worker)
    if alone and not _are_good([row for row in left if row.resolution == HEAD]):
        wire.ask([Statement("clear_heads"), Statement("fill_ring")])
        left = _left(wire, worker)
    return left


def _left(wire: Wire, worker: str) -> tuple[RingRow, ...]:
    _, left = wire.ask([Statement("fill_ring"), Statement("left_in_the_ring", (text(worker),))])
    return tuple(map(RingRow._make, left.rows))


def _are_good(heads: list[RingRow]) -> bool:
    try:
        return is_certain(heads)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False


__all__ = ["take_ring"]
