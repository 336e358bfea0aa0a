"""The conditions of a query for instances, shared by SQLite and PostgreSQL. `?` marks their values.

Pages are selected by key: "smaller than the last number seen" costs the same on page 1,000 as on page 1.
Prefixes are ranges, so `%` and `_` in an id are literal. Tags are compared as values, so dots and quotes in
their names are literal too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perdure.model.entities import ENTITY
from perdure.model.http_calls import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from perdure.model.records import InstanceFilter

    Condition = tuple[str, tuple[Any, ...]]

_UNFINISHED: Final = frozenset({"Pending", "Running", "Suspended", "ContinuedAsNew"})
_UNHAPPY: Final = frozenset({"Failed", "Terminated", "Canceled"})
PARKED: Final = (
    "completed_at is null and status in ('Pending', 'Suspended') and reason <> '' "
    "and reason not like 'operator%' and reason not like 'scheduled:%'"
)
_LAST: Final = "\U0010ffff"


@dataclass(frozen=True)
class Dialect:
    """The differences between databases."""

    other_kind: str  # any other kind: a row with a damaged kind is listed among the orchestrations
    waiting_for: str
    status: Callable[[tuple[str, ...]], Condition]
    tag: Callable[[str, str], Condition]


def conditions(wanted: InstanceFilter, dialect: Dialect) -> Iterator[Condition]:
    """Each condition of the filter, with its values."""
    if wanted.status:
        condition, values = dialect.status(wanted.status)
        yield condition + _index_of(wanted.status), values
    if wanted.kind:
        yield ("kind = ?" if wanted.kind == ENTITY else dialect.other_kind), (ENTITY,)
    if wanted.name is not None:
        yield "name = ?", (wanted.name,)
    if wanted.prefix:
        yield _prefix(wanted.prefix)
    for key, value in wanted.tags:
        yield dialect.tag(key, value)
    if wanted.created_from is not None:
        yield "created_at >= ?", (wanted.created_from,)
    if wanted.created_to is not None:
        yield "created_at <= ?", (wanted.created_to,)
    if wanted.ended_from is not None or wanted.ended_to is not None:
        yield "completed_at >= ?", (wanted.ended_from or 0,)
    if wanted.ended_to is not None:
        yield "completed_at <= ?", (wanted.ended_to,)
    if wanted.name_is_own:
        yield f"substr(name, 1, {len(BUILT_IN)}) <> '{BUILT_IN}'", ()
    if wanted.within is not None:
        yield "instance_no between ? and ?", wanted.within
    if wanted.waiting_for is not None:
        yield dialect.waiting_for, (wanted.waiting_for,)
    if wanted.parked:
        yield PARKED, ()
    if wanted.parent is not None:
        yield "parent_id = ?", (wanted.parent,)
    if wanted.before_no is not None:
        yield "instance_no < ?", (wanted.before_no,)
    if wanted.after_no is not None:
        yield "instance_no > ?", (wanted.after_no,)


def order(wanted: InstanceFilter) -> str:
    """The order of the rows."""
    if wanted.order == "ended":
        return "completed_at desc, instance_no desc"
    return f"instance_no {'asc' if wanted.oldest_first else 'desc'}"


def has_index(wanted: InstanceFilter) -> bool:
    """Whether an index finds few rows, which are then sorted. If not, rows are read from the newest."""
    by_end = wanted.status and (wanted.ended_from is not None or wanted.ended_to is not None)
    return bool(wanted.prefix or wanted.parked or wanted.parent or by_end or _index_of(wanted.status))


def _index_of(statuses: tuple[str, ...]) -> str:
    """The condition of a partial index, word for word, if the index holds every row with one of these statuses."""
    if not statuses:
        return ""
    if _UNHAPPY.issuperset(statuses):
        return " and status in ('Failed', 'Terminated', 'Canceled')"
    if _UNFINISHED.issuperset(statuses):
        return " and completed_at is null"
    return ""


def _prefix(prefix: str) -> Condition:
    end = prefix.rstrip(_LAST)
    if not end:
        return "instance_id >= ?", (prefix,)
    after = ord(end[-1]) + 1
    if 0xD800 <= after <= 0xDFFF:  # surrogates are not characters
        after = 0xE000
    return "instance_id >= ? and instance_id < ?", (prefix, end[:-1] + chr(after))


__all__ = ["PARKED", "Dialect", "conditions", "order", "has_index"]
