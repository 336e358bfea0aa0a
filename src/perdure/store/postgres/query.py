"""The PostgreSQL statement for a filtered query of instances, and the texts that PostgreSQL accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from perdure.model import payload
from perdure.model.records import InstanceRow
from perdure.store.filters import Dialect, conditions, order
from perdure.store.postgres.binary import number, text, texts
from perdure.store.task_query import COLUMNS, DUE
from perdure.store.task_query import conditions as conditions_of_tasks

if TYPE_CHECKING:
    from perdure.model.records import InstanceFilter, TaskFilter
    from perdure.store.filters import Condition


def build(wanted: InstanceFilter, schema: str, hub_no: int) -> tuple[str, tuple[bytes, ...]]:
    """The statement and its values."""
    where, values = _where(wanted, hub_no)
    sql = (
        f"select {', '.join(InstanceRow._fields)} from {{schema}}.instances i where {where} "
        f"order by {order(wanted)} limit ${len(values) + 1}::bigint"
    )
    return sql.replace("{schema}", schema), (*values, number(wanted.top))


def build_tasks(wanted: TaskFilter, schema: str, hub_no: int) -> tuple[str, tuple[bytes, ...]]:
    """The statement for a list of tasks, and its values."""
    found = [f"w.hub_no = {hub_no}"]
    values: list[bytes] = []
    for condition, given in conditions_of_tasks(wanted, "strpos({}, {}) > 0"):
        found.append(_numbered(condition, given, values))
    sql = (
        f"select {COLUMNS} from {{schema}}.waits w join {{schema}}.instances i "
        "on i.hub_no = w.hub_no and i.instance_no = w.instance_no "
        f"where {' and '.join(found)} order by {DUE}, w.instance_no, w.wait_id limit ${len(values) + 1}::bigint"
    )
    return sql.replace("{schema}", schema), (*values, number(wanted.top))


def build_count(wanted: InstanceFilter, schema: str, hub_no: int) -> tuple[str, tuple[bytes, ...]]:
    """The statement that counts matching instances, and its values."""
    where, values = _where(replace(wanted, before_no=None, after_no=None), hub_no)
    return f"select count(*) from {{schema}}.instances i where {where}".replace("{schema}", schema), values


def can_match(wanted: InstanceFilter) -> bool:
    """Whether the filter can match: no text in the database contains a NUL or a lone surrogate."""
    asked = (
        wanted.name,
        wanted.prefix,
        wanted.waiting_for,
        wanted.parent,
        *wanted.status,
        *(part for tag in wanted.tags for part in tag),
    )
    return all(value is None or is_sayable(value) for value in asked)


def is_sayable(value: str) -> bool:
    """Whether PostgreSQL accepts this text."""
    return "\0" not in value and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def _where(wanted: InstanceFilter, hub_no: int) -> tuple[str, tuple[bytes, ...]]:
    """Each `?` becomes a numbered parameter with its type."""
    found = [f"hub_no = {hub_no}"]
    values: list[bytes] = []
    for condition, given in conditions(wanted, _DIALECT):
        found.append(_numbered(condition, given, values))
    return " and ".join(found), tuple(values)


def _numbered(condition: str, given: tuple[Any, ...], values: list[bytes]) -> str:
    """The condition with numbered parameters, whose values are added to `values`."""
    for value in given:
        type_, encoded = _parameter(value)
        values.append(encoded)
        condition = condition.replace("?", f"${len(values)}::{type_}", 1)
    return condition


def _parameter(value: str | int | tuple[str, ...]) -> tuple[str, bytes]:
    match value:
        case str():
            return "text", text(value)
        case int():
            return "bigint", number(value)
        case _:
            return "text[]", texts(value)


def _status(wanted: tuple[str, ...]) -> Condition:
    return "status = any(?)", (wanted,)


def _tag(key: str, value: str) -> Condition:
    """Match a tag by its encoded text, so that tags of a damaged row need not be JSON.

    The text follows a brace or a comma, and inside a string every quote has a backslash before it.
    """
    member = payload.encode({key: value})[1:-1].decode()
    sought = "strpos(tags, ?) > 0"
    return f"({sought} or {sought})", (f"{{{member}", f",{member}")


_DIALECT: Final = Dialect(
    other_kind="kind <> ?",
    waiting_for=(
        "exists (select from {schema}.waits w where w.hub_no = i.hub_no and w.name = ? "
        "and w.instance_no = i.instance_no)"
    ),
    status=_status,
    tag=_tag,
)

__all__ = ["build", "build_count", "build_tasks", "can_match", "is_sayable"]
