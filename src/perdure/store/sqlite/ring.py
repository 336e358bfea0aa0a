"""The ring of a file that is being opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from perdure.model.ring import HEAD, RingRow, base_of, is_certain
from perdure.store.reading import counted
from perdure.store.sqlite.invalid_text import reading
from perdure.store.sqlite.statements import query

if TYPE_CHECKING:
    from collections.abc import Callable

    Execute = Callable[..., Any]


def take_ring(execute: Execute, hub_no: int) -> tuple[RingRow, ...]:
    """The rows that an engine goes on from. Inside the caller's transaction.

    The instances of a file of an earlier version are counted once, and so are those of a hub after damage.
    """
    read = reading(execute)
    rows = tuple(map(RingRow._make, read(query("left_in_the_ring"), (hub_no,)).fetchall()))
    heads = [row for row in rows if row.resolution == HEAD]
    if heads and _are_good(heads):
        return rows
    by_status = status_counts(read, hub_no)
    if not by_status and not heads:
        return rows
    base = base_of(by_status, counted(read(query("parked_by_status"), (hub_no,)).fetchall()))
    execute("delete from ring where hub_no = ? and resolution = ?", (hub_no, HEAD))
    execute(query("add_head"), (hub_no, *base))
    return (base, *(row for row in rows if row.resolution != HEAD))


def status_counts(execute: Execute, hub_no: int) -> dict[str, int]:
    """The true counts, which an index is read for."""
    counts = counted(execute(query("counts"), (hub_no,)).fetchall())
    total = counts.pop("", 0)
    counts["Completed"] = counts.get("Completed", 0) + total - sum(counts.values())
    return {status: count for status, count in counts.items() if count}


def _are_good(heads: list[RingRow]) -> bool:
    if any(type(row.worker) is not str or row.start for row in heads):
        return False
    try:
        return is_certain(heads)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return False


__all__ = ["status_counts", "take_ring"]
