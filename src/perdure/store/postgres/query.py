"""The one statement that is composed: a query for instances with any of its filters.

Pages are cut by key: "smaller than the last number seen" costs the same on page 1,000 as on page 1. Every filter
adds one condition. Prefixes are ranges, so `%` and `_` in an id mean themselves; tags are compared as values, so
dots and quotes in their names mean themselves too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from perdure.model import payload
from perdure.model.entities import ENTITY
from perdure.model.records import InstanceRow
from perdure.store.postgres.binary import number, text, texts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.model.records import InstanceFilter

    Condition = tuple[str, tuple[bytes, ...]]

_UNFINISHED: Final = frozenset({"Pending", "Running", "Suspended", "ContinuedAsNew"})
_UNHAPPY: Final = frozenset({"Failed", "Terminated", "Canceled"})
PARKED: Final = (
    "completed_at is null and status in ('Pending', 'Suspended') and reason <> '' "
    "and reason not like 'operator%' and reason not like 'scheduled:%'"
)
_LAST: Final = "\U0010ffff"


def build(wanted: InstanceFilter, schema: str, hub_no: int) -> tuple[str, tuple[bytes, ...]]:
    """The statement and its values."""
    where, values = _where(wanted, hub_no)
    sql = (
        f"select {', '.join(InstanceRow._fields)} from {{schema}}.instances i where {where} "
        f"order by instance_no desc limit ${len(values) + 1}::bigint"
    )
    return sql.replace("{schema}", schema), (*values, number(wanted.top))


def build_count(wanted: InstanceFilter, schema: str, hub_no: int) -> tuple[str, tuple[bytes, ...]]:
    """The statement that counts what matches, and its values."""
    where, values = _where(replace(wanted, before_no=None), hub_no)
    return f"select count(*) from {{schema}}.instances i where {where}".replace("{schema}", schema), values


def can_match(wanted: InstanceFilter) -> bool:
    """No text of the database holds a NUL or half a character, so nothing matches a filter with one."""
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
    """Whether PostgreSQL can be asked for this text at all."""
    return "\0" not in value and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))


def _where(wanted: InstanceFilter, hub_no: int) -> tuple[str, tuple[bytes, ...]]:
    texts_of, values = [f"hub_no = {hub_no}"], []
    for condition, given in _conditions(wanted):
        for value in given:
            values.append(value)
            condition = condition.replace("?", f"${len(values)}", 1)
        texts_of.append(condition)
    return " and ".join(texts_of), tuple(values)


def _conditions(wanted: InstanceFilter) -> Iterator[Condition]:
    if wanted.status:
        yield _status(wanted.status)
    if wanted.kind:
        # What is neither is damaged, and is listed among the orchestrations.
        yield f"kind {'=' if wanted.kind == ENTITY else '<>'} ?::text", (text(ENTITY),)
    if wanted.name is not None:
        yield "name = ?::text", (text(wanted.name),)
    if wanted.prefix:
        yield _prefix(wanted.prefix)
    for key, value in wanted.tags:
        yield _tag(key, value)
    if wanted.created_from is not None:
        yield "created_at >= ?::bigint", (number(wanted.created_from),)
    if wanted.created_to is not None:
        yield "created_at <= ?::bigint", (number(wanted.created_to),)
    if wanted.waiting_for is not None:
        yield (
            "exists (select from {schema}.waits w where w.hub_no = i.hub_no and w.name = ?::text "
            "and w.instance_no = i.instance_no)",
            (text(wanted.waiting_for),),
        )
    if wanted.parked:
        yield PARKED, ()
    if wanted.parent is not None:
        yield "parent_id = ?::text", (text(wanted.parent),)
    if wanted.before_no is not None:
        yield "instance_no < ?::bigint", (number(wanted.before_no),)


def _tag(key: str, value: str) -> Condition:
    """By the text in which an engine writes a tag, so that tags of a damaged row need not be JSON.

    It stands behind a brace or a comma, and inside of a string there is no quote without a backslash before it.
    """
    member = payload.encode({key: value})[1:-1].decode()
    sought = "strpos(tags, ?::text) > 0"
    return f"({sought} or {sought})", (text(f"{{{member}"), text(f",{member}"))


def _status(wanted: tuple[str, ...]) -> Condition:
    """With the condition of a partial index, word for word, where it holds for all that is wanted."""
    condition = "status = any(?::text[])"
    if _UNHAPPY.issuperset(wanted):
        condition += " and status in ('Failed', 'Terminated', 'Canceled')"
    elif _UNFINISHED.issuperset(wanted):
        condition += " and completed_at is null"
    return condition, (texts(wanted),)


def _prefix(prefix: str) -> Condition:
    end = prefix.rstrip(_LAST)
    if not end:
        return "instance_id >= ?::text", (text(prefix),)
    after = ord(end[-1]) + 1
    if 0xD800 <= after <= 0xDFFF:  # surrogates are not characters
        after = 0xE000
    return "instance_id >= ?::text and instance_id < ?::text", (text(prefix), text(end[:-1] + chr(after)))


__all__ = ["build", "build_count", "can_match", "is_sayable"]
