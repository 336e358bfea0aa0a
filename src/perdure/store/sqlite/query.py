"""The one statement that is composed: a query for instances with any of its filters.

Pages are cut by key: "smaller than the last number seen" costs the same on page 1,000 as on page 1. Every
filter adds one condition; the texts are few enough to stay prepared. Prefixes are ranges, so `%` and `_` in
an id mean themselves; tags are compared as values, so dots and quotes in their names mean themselves too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from perdure.model.entities import ENTITY
from perdure.model.records import InstanceRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.model.records import InstanceFilter

    Condition = tuple[str, tuple[Any, ...]]

_UNFINISHED: Final = frozenset({"Pending", "Running", "Suspended", "ContinuedAsNew"})
_UNHAPPY: Final = frozenset({"Failed", "Terminated", "Canceled"})
PARKED: Final = (
    "completed_at is null and status in ('Pending', 'Suspended') and reason <> '' "
    "and reason not like 'operator%' and reason not like 'scheduled:%'"
)
_LAST: Final = "\U0010ffff"


def build(wanted: InstanceFilter, hub_no: int) -> tuple[str, tuple[Any, ...]]:
    """The statement and its values."""
    # Without a plus SQLite would take the index of ids for the hub's sake and sort a million rows.
    hub = "hub_no = ?" if _has_index(wanted) else "+hub_no = ?"
    conditions = [(hub, (hub_no,)), *_conditions(wanted)]
    sql = (
        f"select {', '.join(InstanceRow._fields)} from instances "
        f"where {' and '.join(text for text, _ in conditions)} order by instance_no desc limit ?"
    )
    return sql, (*(value for _, values in conditions for value in values), wanted.top)


def build_count(wanted: InstanceFilter, hub_no: int) -> tuple[str, tuple[Any, ...]]:
    """The statement that counts what matches, and its values."""
    conditions = [("hub_no = ?", (hub_no,)), *_conditions(replace(wanted, before_no=None))]
    sql = f"select count(*) from instances where {' and '.join(text for text, _ in conditions)}"
    return sql, tuple(value for _, values in conditions for value in values)


def _has_index(wanted: InstanceFilter) -> bool:
    """Is there an index that finds few rows, to be sorted then? If not, they are read from the newest."""
    return bool(wanted.prefix or wanted.parked or wanted.parent) or any(
        map(_covers, (_UNHAPPY, _UNFINISHED), [wanted.status] * 2)
    )


def _covers(indexed: frozenset[str], statuses: tuple[str, ...]) -> bool:
    return bool(statuses) and indexed.issuperset(statuses)


def _conditions(wanted: InstanceFilter) -> Iterator[Condition]:
    if wanted.status:
        yield _status(wanted.status)
    if wanted.kind:
        # What is neither is damaged, and is listed among the orchestrations.
        yield ("kind = ?", (ENTITY,)) if wanted.kind == ENTITY else ("kind is not ?", (ENTITY,))
    if wanted.name is not None:
        yield "name = ?", (wanted.name,)
    if wanted.prefix:
        yield _prefix(wanted.prefix)
    for key, value in wanted.tags:
        yield (
            "exists (select 1 from json_each(case when json_valid(instances.tags) then instances.tags end) t "
            "where t.key = ? and t.value = ?)",
            (key, value),
        )
    if wanted.created_from is not None:
        yield "created_at >= ?", (wanted.created_from,)
    if wanted.created_to is not None:
        yield "created_at <= ?", (wanted.created_to,)
    if wanted.waiting_for is not None:
        yield "instance_no in (select w.instance_no from waits w where w.name = ?)", (wanted.waiting_for,)
    if wanted.parked:
        yield PARKED, ()
    if wanted.parent is not None:
        yield "parent_id = ?", (wanted.parent,)
    if wanted.before_no is not None:
        yield "instance_no < ?", (wanted.before_no,)


def _status(wanted: tuple[str, ...]) -> Condition:
    """With the condition of a partial index, word for word, where it holds for all that is wanted."""
    marks = f"status in ({', '.join('?' * len(wanted))})"
    if _covers(_UNHAPPY, wanted):
        marks += " and status in ('Failed', 'Terminated', 'Canceled')"
    elif _covers(_UNFINISHED, wanted):
        marks += " and completed_at is null"
    return marks, wanted


def _prefix(prefix: str) -> Condition:
    end = prefix.rstrip(_LAST)
    if not end:
        return "instance_id >= ?", (prefix,)
    after = ord(end[-1]) + 1
    if 0xD800 <= after <= 0xDFFF:  # surrogates are not characters
        after = 0xE000
    return "instance_id >= ? and instance_id < ?", (prefix, end[:-1] + chr(after))
