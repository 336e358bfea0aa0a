"""The SQLite side of `perdure.store.transfer`.

During an import the rows belong to a hub with a temporary name, which no application can have; the last
transaction renames it. The next import deletes an unfinished one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.store.transfer import OF_INSTANCES, TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from perdure.store.transfer import Key, Row

    Execute = Callable[..., Any]

_OF_INSTANCES: Final = "instance_no in (select instance_no from instances where hub_no = ?)"
_OF_HUB: Final = "hub_no = ?"
_OF_ID: Final = "hub_no = ? and instance_id = ?"
KEYS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "instances": (_OF_HUB, ("instance_no",)),
    "history": (_OF_INSTANCES, ("instance_no", "execution_no", "episode")),
    "payloads": (_OF_INSTANCES, ("instance_no", "execution_no", "episode", "no")),
    "state": (_OF_INSTANCES, ("instance_no",)),
    "waits": (_OF_INSTANCES, ("instance_no", "wait_id")),
    "inbox": (_OF_HUB, ("message_no",)),
    "seen": (_OF_HUB, ("operation_id",)),
    "dropped": (_OF_HUB, ("dropped_no",)),
    "keys": (_OF_HUB, ("key_id",)),
    "audit": (_OF_HUB, ("audit_no",)),
    "ring": (_OF_HUB, ("worker", "resolution", "start")),
}
"""The condition for the rows of a hub, and the key by which they are read."""


def sizes(execute: Execute, hub_no: int) -> dict[str, int]:
    """Rows of a hub by table."""
    return {
        table: execute(f"select count(*) from {table} where {scope}", (hub_no,)).fetchall()[0][0]
        for table, (scope, _) in KEYS.items()
    }


def export(execute: Execute, hub_no: int, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
    """One page of a table and its last key."""
    scope, key = KEYS[table]
    keys, columns = ", ".join(key), ", ".join(TABLES[table].columns)
    # By the primary key, not through an index of the hub, which would have to be sorted for every page.
    scope = scope if scope == _OF_INSTANCES or table in ("seen", "keys", "ring") else f"+{scope}"
    behind = f" and ({keys}) > ({', '.join('?' * len(key))})" if after else ""
    sql = f"select {keys}, {columns} from {table} where {scope}{behind} order by {keys} limit ?"
    rows = execute(sql, (hub_no, *after, limit)).fetchall()
    return [row[len(key) :] for row in rows], rows[-1][: len(key)] if rows else after


def strays(execute: Execute) -> dict[str, int]:
    """The number of orphaned rows of the file, by table."""
    found = {}
    for table, (scope, _) in KEYS.items():
        key, owners = ("hub_no", "hubs") if scope == _OF_HUB else ("instance_no", "instances")
        sql = f"select count(*) from {table} where {key} is null or {key} not in (select {key} from {owners})"
        [(found[table],)] = execute(sql).fetchall()
    [(lost,)] = execute(
        "select count(*) from payloads p where not exists (select 1 from history h where "
        "h.instance_no = p.instance_no and h.execution_no = p.execution_no and h.episode = p.episode)"
    ).fetchall()
    found["payloads"] += lost
    return {table: count for table, count in found.items() if count}


def raw(execute: Execute, hub_no: int, instance_no: int, instance_id: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of one instance by table, unchanged."""
    found = {}
    for table in ("instances", *OF_INSTANCES, "inbox", "dropped"):
        columns = TABLES[table].columns
        by_number = columns[0] == "instance_no"
        where, values = ("instance_no = ?", (instance_no,)) if by_number else (_OF_ID, (hub_no, instance_id))
        rows = execute(f"select {', '.join(columns)} from {table} where {where}", values).fetchall()
        found[table] = [dict(zip(columns, row, strict=True)) for row in rows]
    return found


def insert(execute: Execute, hub_no: int, table: str, rows: Sequence[Row]) -> None:
    """Write rows for a hub. Inside the caller's transaction."""
    columns = TABLES[table].columns
    hub = ("hub_no",) if KEYS[table][0] == _OF_HUB else ()
    marks = ", ".join("?" * (len(hub) + len(columns)))
    sql = f"insert into {table} ({', '.join((*hub, *columns))}) values ({marks})"
    own = (hub_no,) if hub else ()
    for row in rows:
        execute(sql, (*own, *row))


def clear(execute: Execute, hub_no: int) -> None:
    """Delete a hub and all its rows. Inside the caller's transaction."""
    for table, (scope, _) in KEYS.items():
        if table != "instances":  # the others are found through it
            execute(f"delete from {table} where {scope}", (hub_no,))
    execute("delete from instances where hub_no = ?", (hub_no,))
    execute("delete from encryption where hub_no = ?", (hub_no,))
    execute("delete from hubs where hub_no = ?", (hub_no,))
