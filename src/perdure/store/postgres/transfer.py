"""The PostgreSQL side of `perdure.store.transfer`.

What is being imported belongs to a hub of another name, which no application can have, until the last transaction
gives it the right one. If it never comes to that, the next import clears it away.
Activities that were placed for other workers are not moved: their instances are marked as having local work, so
that they run again at the destination.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.model.instances import partition_of
from perdure.store.postgres.arrays import number, numbers, text
from perdure.store.postgres.commit import COLUMNS, arrays, placed_by_id
from perdure.store.postgres.statements import type_of
from perdure.store.postgres.wire import Call
from perdure.store.transfer import TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.store.postgres.wire import Wire
    from perdure.store.transfer import Key, Row

KEYS: Final[dict[str, tuple[str, ...]]] = {
    "instances": ("instance_no",),
    "history": ("instance_no", "execution_no", "episode"),
    "payloads": ("instance_no", "execution_no", "episode", "no"),
    "state": ("instance_no",),
    "waits": ("instance_no", "wait_id"),
    "inbox": ("message_no",),
    "seen": ("operation_id",),
    "dropped": ("dropped_no",),
    "keys": ("key_id",),
    "audit": ("audit_no",),
}
"""The key by which the rows of a hub are read, behind the hub itself."""
_CLEARED: Final = (*KEYS, "encryption", "workers", "partitions", "activities")


def bound(key: Key) -> tuple[str, tuple[bytes, ...]]:
    """Marks for the values of a key, from $1 on, and the values."""
    marks = [f"${no}::{'text' if isinstance(value, str) else 'bigint'}" for no, value in enumerate(key, 1)]
    return ", ".join(marks), tuple(text(value) if isinstance(value, str) else number(value) for value in key)


def sizes(wire: Wire, schema: str) -> dict[str, int]:
    """Rows of a hub by table."""
    calls = [
        Call("", (), f"select count(*) from {schema}.{table} where hub_no = {wire.hub_no}") for table in KEYS
    ]
    return {table: answer.rows[0][0] for table, answer in zip(KEYS, wire.ask(calls), strict=True)}


def export(wire: Wire, schema: str, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
    """One page of a table and where it ended."""
    key = KEYS[table]
    marks, values = bound(after)
    behind = f" and ({', '.join(key)}) > ({marks})" if after else ""
    sql = (
        f"select {', '.join((*key, *map(_exported(table, wire.hub_no, schema), TABLES[table].columns)))} "
        f"from {schema}.{table} t where hub_no = {wire.hub_no}{behind} order by {', '.join(key)} limit {limit}"
    )
    rows = wire.text(sql, *values).rows
    return [row[len(key) :] for row in rows], rows[-1][: len(key)] if rows else after


def _exported(table: str, hub_no: int, schema: str) -> Any:
    placed = (
        f"case when exists (select from {schema}.activities a where a.hub_no = {hub_no} "
        "and a.instance_id = t.instance_id) then 1::bigint else t.local_work end"
    )
    return lambda column: placed if (table, column) == ("instances", "local_work") else column


def insert(schema: str, hub_no: int, partitions: int, table: str, rows: Sequence[Row]) -> Call:
    """What writes rows for a hub."""
    columns = TABLES[table].columns
    if table == "instances":
        rows = [placed_by_id(row, partitions) for row in rows]
    values = arrays(COLUMNS[table], rows)
    if table == "inbox":
        columns = (*columns, "partition")
        values = (*values, numbers([partition_of(row[1], partitions) for row in rows]))
    marks = ", ".join(f"${no}::{type_of(name)}[]" for no, name in enumerate(columns, 1))
    return Call(
        "",
        values,
        f"insert into {schema}.{table} (hub_no, {', '.join(columns)}) select {hub_no}, * from unnest({marks})",
    )


def clear(schema: str, hub_no: int) -> list[Call]:
    """What deletes a hub and all its rows."""
    return [
        Call("", (), f"delete from {schema}.{table} where hub_no = {hub_no}") for table in (*_CLEARED, "hubs")
    ]


__all__ = ["KEYS", "bound", "clear", "export", "insert", "sizes"]
