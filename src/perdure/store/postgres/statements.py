"""Statements: SQL read from the .sql files of this package, by name, with its placeholders filled in."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Final

from perdure.model.instances import RuntimeStatus
from perdure.model.records import (
    ActivityRow,
    AuditRow,
    BodyRow,
    DroppedRow,
    HistoryRow,
    InstanceRow,
    InstanceUpdate,
    KeyRow,
    WaitRow,
    WorkerRow,
)
from perdure.model.ring import RingRow
from perdure.store.filters import PARKED

FILES: Final = ("commit.sql", "queries.sql", "sharing.sql")
NOW: Final = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"
_TEXT: Final = frozenset(
    {
        *(
            "instance_id",
            "kind",
            "name",
            "version",
            "status",
            "reason",
            "parent_id",
            "parent_execution",
            "tags",
            "replay_reason",
        ),
        *("execution_id", "pool", "operation_id", "key_id", "scopes", "created_by"),
        *("roles", "holder", "assignee"),
        *("worker", "who", "address", "operation", "detail", "outcome"),
    }
)
_BYTES: Final = frozenset(
    {
        *(
            "salt",
            "head",
            "events",
            "digest",
            "hash",
            "body",
            "custom_status",
            "entity_state",
            "message",
            "schema",
            "task",
        ),
        *("answer", "secret", "invocation", "value"),
    }
)


def _columns(row: type, of: str = "") -> str:
    return ", ".join(of + name for name in row._fields)  # type: ignore[attr-defined]


def _arrays(row: type) -> str:
    """The parameters of an `unnest` for rows of this type: one array per column."""
    return ", ".join(f"${no}::{type_of(name)}[]" for no, name in enumerate(row._fields, 1))  # type: ignore[attr-defined]


def _rows(row: type) -> str:
    fields = row._fields  # type: ignore[attr-defined]
    return "{rows: " + ", ".join(f"${no} {name} {type_of(name)}" for no, name in enumerate(fields, 1)) + "}"


def type_of(column: str) -> str:
    """A column's type; columns with one name have the same type in all tables."""
    return "text" if column in _TEXT else "bytea" if column in _BYTES else "bigint"


_ROWS: Final = re.compile(r"\{rows: ([^}]*)\}")
"""`{rows: $1 instance_no bigint, $2 name text}` becomes a table `v` with these columns, from arrays."""
_PLACEHOLDERS: Final = {
    "{instance_columns}": _columns(InstanceRow),
    "{instance_columns_i}": _columns(InstanceRow, "i."),
    "{instance_arrays}": _arrays(InstanceRow),
    "{update_rows}": _rows(InstanceUpdate),
    "{history_columns}": _columns(HistoryRow, "h."),
    "{body_columns}": _columns(BodyRow, "p."),
    "{wait_columns}": _columns(WaitRow, "w."),
    "{wait_names}": _columns(WaitRow),
    "{wait_arrays}": _arrays(WaitRow),
    "{dropped_columns}": _columns(DroppedRow),
    "{key_columns}": _columns(KeyRow),
    "{key_arrays}": _arrays(KeyRow),
    "{audit_columns}": _columns(AuditRow),
    "{ring_columns}": _columns(RingRow),
    "{ring_arrays}": _arrays(RingRow),
    "{parked}": PARKED,
    "{statuses}": ", ".join(f"'{status.value}'" for status in RuntimeStatus),
    "{activity_columns}": _columns(ActivityRow),
    "{activity_arrays}": _arrays(ActivityRow),
    "{claimed_columns}": _columns(ActivityRow, "a."),
    "{worker_columns}": _columns(WorkerRow),
    "{now}": NOW,
}


@cache
def read_sql(file_name: str) -> str:
    """A file of this package."""
    return resources.files(__package__).joinpath(file_name).read_text("utf-8")


@cache
def statements() -> dict[str, str]:
    """All statements by name: on one line, without comments, placeholders filled in but {schema} and {hub}."""
    found = {}
    for file_name in FILES:
        text = read_sql(file_name)
        for mark, value in _PLACEHOLDERS.items():
            text = text.replace(mark, value)
        text = _ROWS.sub(_table_of, text)
        parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
        found.update({name: _one_line(body) for name, body in zip(parts[1::2], parts[2::2], strict=True)})
    return found


def _table_of(found: re.Match[str]) -> str:
    columns = [column.split() for column in found[1].split(", ")]
    arrays = ", ".join(f"{mark}::{kind}[]" for mark, _, kind in columns)
    names = ", ".join(name for _, name, _ in columns)
    return f"unnest({arrays}) as v ({names})"


def statement(name: str, schema: str, hub_no: int) -> str:
    """One statement, ready to be prepared."""
    return statements()[name].replace("{schema}", schema).replace("{hub}", str(hub_no))


def quoted(name: str) -> str:
    """A name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def _one_line(body: str) -> str:
    return " ".join(" ".join(line for line in body.splitlines() if not line.startswith("--")).split())


__all__ = ["NOW", "quoted", "read_sql", "statement", "statements", "type_of"]
