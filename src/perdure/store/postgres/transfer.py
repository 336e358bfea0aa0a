"""The PostgreSQL side of `perdure.store.transfer`.

During an import the rows belong to a hub with a temporary name, which no application can have; the last
transaction renames it. The next import deletes an unfinished one. Activities placed for other workers are not
transferred: their instances are marked as having local work, so that the activities run again at the
destination.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.model.instances import partition_of
from perdure.store.postgres.binary import number, numbers, text
from perdure.store.postgres.commit import COLUMNS, arrays, placed_by_id
from perdure.store.postgres.pipeline import Statement
from perdure.store.postgres.statements import type_of
from perdure.store.transfer import OF_INSTANCES, TABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.store.postgres.pipeline import Wire
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
    "ring": ("worker", "resolution", "start"),
}
"""The key by which the rows of a hub are read, after the hub itself."""
_CLEARED: Final = (*KEYS, "encryption", "workers", "partitions", "activities")


def bound(key: Key) -> tuple[str, tuple[bytes, ...]]:
    """The placeholders for the values of a key, from $1 on, and the values."""
    marks = [f"${no}::{'text' if isinstance(value, str) else 'bigint'}" for no, value in enumerate(key, 1)]
    return ", ".join(marks), tuple(text(value) if isinstance(value, str) else number(value) for value in key)


def sizes(wire: Wire, schema: str) -> dict[str, int]:
    """Rows of a hub by table."""
    calls = [
        Statement("", (), f"select count(*) from {schema}.{table} where hub_no = {wire.hub_no}")
        for table in KEYS
    ]
    return {table: answer.rows[0][0] for table, answer in zip(KEYS, wire.ask(calls), strict=True)}


def export(wire: Wire, schema: str, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
    """One page of a table and its last key."""
    sql, values = page(wire.hub_no, schema, table, after, limit)
    return without_key(table, wire.text(sql, *values).rows, after)


def page(hub_no: int, schema: str, table: str, after: Key, limit: int) -> tuple[str, tuple[bytes, ...]]:
    """The statement that reads a page, with the key before each row, and its values."""
    key = KEYS[table]
    marks, values = bound(after)
    behind = f" and ({', '.join(key)}) > ({marks})" if after else ""
    sql = (
        f"select {', '.join((*key, *map(_exported(table, hub_no, schema), TABLES[table].columns)))} "
        f"from {schema}.{table} t where hub_no = {hub_no}{behind} order by {', '.join(key)} limit {limit}"
    )
    return sql, values


def without_key(table: str, rows: list[Row], after: Key) -> tuple[list[Row], Key]:
    """The rows of a page to transfer, and the last key."""
    length = len(KEYS[table])
    return [row[length:] for row in rows], rows[-1][:length] if rows else after


def strays(schema: str) -> dict[str, str]:
    """By table, the SQL that counts the orphaned rows of the whole schema."""
    no_hub = "not exists (select from {0}.hubs h where h.hub_no = t.hub_no)"
    no_instance = (
        "not exists (select from {0}.instances i where i.hub_no = t.hub_no and i.instance_no = t.instance_no)"
    )
    no_history = (
        "not exists (select from {0}.history h where h.hub_no = t.hub_no and h.instance_no = t.instance_no "
        "and h.execution_no = t.execution_no and h.episode = t.episode)"
    )
    lost = dict.fromkeys(KEYS, no_hub) | dict.fromkeys(OF_INSTANCES, f"{no_hub} or {no_instance}")
    lost["payloads"] += f" or {no_history}"
    return {
        table: f"select count(*) from {schema}.{table} t where {where.format(schema)}"
        for table, where in lost.items()
    }


def raw(
    hub_no: int, schema: str, instance_no: int, instance_id: str
) -> dict[str, tuple[str, tuple[bytes, ...]]]:
    """By table, the SQL that reads the rows of one instance unchanged, and its values."""
    asked: dict[str, tuple[str, tuple[bytes, ...]]] = {}
    for table in ("instances", *OF_INSTANCES, "inbox", "dropped"):
        columns = TABLES[table].columns
        by_number = columns[0] == "instance_no"
        where = "instance_no = $1::bigint" if by_number else "instance_id = $1::text"
        value = number(instance_no) if by_number else text(instance_id)
        sql = f"select {', '.join(columns)} from {schema}.{table} where hub_no = {hub_no} and {where}"
        asked[table] = sql, (value,)
    return asked


def _exported(table: str, hub_no: int, schema: str) -> Any:
    placed = (
        f"case when exists (select from {schema}.activities a where a.hub_no = {hub_no} "
        "and a.instance_id = t.instance_id) then 1::bigint else t.local_work end"
    )
    return lambda column: placed if (table, column) == ("instances", "local_work") else column


def insert(schema: str, hub_no: int, partitions: int, table: str, rows: Sequence[Row]) -> Statement:
    """The statement that writes rows for a hub."""
    columns = TABLES[table].columns
    if table == "instances":
        rows = [placed_by_id(row, partitions) for row in rows]
    values = arrays(COLUMNS[table], rows)
    if table == "inbox":
        columns = (*columns, "partition")
        values = (*values, numbers([partition_of(row[1], partitions) for row in rows]))
    marks = ", ".join(f"${no}::{type_of(name)}[]" for no, name in enumerate(columns, 1))
    return Statement(
        "",
        values,
        f"insert into {schema}.{table} (hub_no, {', '.join(columns)}) select {hub_no}, * from unnest({marks})",
    )


def clear(schema: str, hub_no: int) -> list[Statement]:
    """The statements that delete a hub and all its rows."""
    return [
        Statement("", (), f"delete from {schema}.{table} where hub_no = {hub_no}")
        for table in (*_CLEARED, "hubs")
    ]


__all__ = ["KEYS", "bound", "clear", "export", "insert", "page", "raw", "sizes", "strays", "without_key"]
