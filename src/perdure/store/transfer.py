"""Transfer of a whole hub from one store to another, through a port independent of both.

A hub is eleven tables of plain rows. The source gives them a page at a time, in the order of their keys; the
destination takes each page in a transaction of its own, hidden, and makes the whole hub visible at the end: an
interrupted transfer leaves the destination empty and is repeated. Numbers (of instances and of messages) are
shifted above those that the destination has used. No content of a row depends on its number: hash chains cover
ids and events, so they stay intact. No engine must serve the source in the meantime, or its new messages would
be lost; opening the source like an engine ensures that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from perdure.errors import StoreUnusable
from perdure.model.records import (
    AuditRow,
    BodyRow,
    DroppedRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    KeyRow,
    SeenRow,
    WaitRow,
)
from perdure.model.ring import RingRow
from perdure.store.port import Opening

Row = tuple[Any, ...]
Key = tuple[Any, ...]
"""The position after a page, opaque to all but its store. Empty at the beginning."""
UNFINISHED: Final = " (copy unfinished)"
"""The suffix of the name of a hub during its import. No application can have it."""


@dataclass(frozen=True)
class Table:
    """A table of a hub. `numbered` is the kind of its first column: "instance", "message" or nothing."""

    columns: tuple[str, ...]
    numbered: str = ""
    page: int = 1_000  # rows per page


TABLES: Final[dict[str, Table]] = {
    "instances": Table(InstanceRow._fields, "instance"),
    "history": Table(HistoryRow._fields, "instance"),
    "payloads": Table(BodyRow._fields, "instance", page=64),
    "state": Table(("instance_no", "custom_status", "entity_state"), "instance"),
    "waits": Table(WaitRow._fields, "instance"),
    "inbox": Table(InboxRow._fields, "message"),
    "seen": Table(SeenRow._fields),
    "dropped": Table(DroppedRow._fields),
    "keys": Table(KeyRow._fields),
    "audit": Table(AuditRow._fields),
    "ring": Table(RingRow._fields),
}


@runtime_checkable
class Movable(Protocol):
    """A store whose hub can be transferred, from it and to it. It must be open.

    For one thread, the one that opened the store.
    """

    def sizes(self) -> dict[str, int]:
        """How many rows of the hub each table of `TABLES` holds."""

    def export(self, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
        """The next rows behind `after`, `limit` at most, and the key of the last one."""

    def begin_import(self) -> Opening:
        """Prepare an import, and delete an earlier unfinished one.

        Returns the first numbers for rows. Raises StoreUnusable if the hub already has rows.
        """

    def import_rows(self, table: str, rows: Sequence[Row]) -> None:
        """Take rows in, durably, and out of sight. The keys of a table come in ascending order."""

    def finish_import(self) -> None:
        """Show all that was taken in, in one step, as the hub of this store."""


def transfer(
    source: Movable, destination: Movable, progress: Callable[[str, int, int], object] = lambda *_: None
) -> dict[str, int]:
    """Move everything; returns how many rows of each table. Both stores are open.

    Raises StoreUnusable when the destination is not empty, or when rows are missing at the end.
    """
    sizes = source.sizes()
    first = destination.begin_import()
    shifts = {"instance": first.next_instance_no - 1, "message": first.next_message_no - 1, "": 0}
    for name, table in TABLES.items():
        moved, after = 0, ()
        while True:
            rows, after = source.export(name, after, table.page)
            if rows:
                destination.import_rows(name, _shifted(rows, shifts[table.numbered]))
                moved += len(rows)
                progress(name, moved, sizes[name])
            if len(rows) < table.page:
                break
        if moved != sizes[name]:
            raise StoreUnusable(
                f"{moved} rows of {name} were copied but the source has {sizes[name]}: it changed during the "
                "copy. The destination is unchanged; try again"
            )
    destination.finish_import()
    found = destination.sizes()
    if found | {"ring": 0} != sizes | {"ring": 0}:  # the destination may have counted its instances again
        raise StoreUnusable(f"the destination has {found} and should have {sizes}: do not use it")
    return sizes


OF_INSTANCES: Final = ("history", "payloads", "state", "waits")
"""Tables whose rows belong to an instance by its number, and have no hub of their own in SQLite."""
BESIDE: Final = ("state", "waits", "inbox", "seen", "dropped", "keys", "audit", "ring")
"""Tables without a hash chain."""


def strayed(table: str, count: int) -> str:
    """The message about orphaned rows."""
    owner = "instance" if table in OF_INSTANCES else "hub"
    return f"{count} rows of {table} have no {owner}: a row was changed, or one is missing"


def demand_empty(sizes: dict[str, int], where: str) -> None:
    """Raise StoreUnusable unless all sizes are zero."""
    taken = [f"{count:,} rows of {table}" for table, count in sizes.items() if count]
    if taken:
        instances = sizes.get("instances", 0)
        has = (
            f"{instances:,} instance{'s' if instances > 1 else ''} already" if instances else ", ".join(taken)
        )
        raise StoreUnusable(
            f"{where} is not empty: it has {has}. Copy into an empty hub: name another file or another hub"
        )


def _shifted(rows: list[Row], by: int) -> list[Row]:
    return [(row[0] + by, *row[1:]) for row in rows] if by else rows


__all__ = [
    "BESIDE",
    "OF_INSTANCES",
    "TABLES",
    "UNFINISHED",
    "Key",
    "Movable",
    "Row",
    "Table",
    "demand_empty",
    "strayed",
    "transfer",
]
