"""The SQLite statement for a filtered query of instances. Its texts are few enough to stay prepared."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from perdure.model.records import InstanceRow
from perdure.store.filters import Dialect, conditions, has_index, order
from perdure.store.task_query import COLUMNS, DUE
from perdure.store.task_query import conditions as conditions_of_tasks

if TYPE_CHECKING:
    from perdure.model.records import InstanceFilter, TaskFilter
    from perdure.store.filters import Condition


def build(wanted: InstanceFilter, hub_no: int) -> tuple[str, tuple[Any, ...]]:
    """The statement and its values."""
    # Without a plus SQLite would take the index of ids for the hub's sake and sort a million rows.
    where, values = _where("hub_no = ?" if has_index(wanted) else "+hub_no = ?", wanted, hub_no)
    columns = ", ".join(InstanceRow._fields)
    return (
        f"select {columns} from instances where {where} order by {order(wanted)} limit ?",
        (*values, wanted.top),
    )


def build_tasks(wanted: TaskFilter, hub_no: int) -> tuple[str, tuple[Any, ...]]:
    """The statement for a list of tasks, and its values."""
    found = [("i.hub_no = ?", (hub_no,)), *conditions_of_tasks(wanted, "instr({}, {}) > 0")]
    index = f"indexed by {_index_of(wanted)}" if wanted.instance_no is None else ""
    return (
        f"select {COLUMNS} from waits w {index} cross join instances i on i.instance_no = w.instance_no "
        f"where {' and '.join(text for text, _ in found)} order by {DUE}, w.instance_no, w.wait_id limit ?",
        (*[value for _, values in found for value in values], wanted.top),
    )


def _index_of(wanted: TaskFilter) -> str:
    return "waits_of_person" if wanted.person else "waits_due"


def build_count(wanted: InstanceFilter, hub_no: int) -> tuple[str, tuple[Any, ...]]:
    """The statement that counts matching instances, and its values."""
    where, values = _where("hub_no = ?", replace(wanted, before_no=None, after_no=None), hub_no)
    return f"select count(*) from instances where {where}", values


def _where(hub: str, wanted: InstanceFilter, hub_no: int) -> Condition:
    found = [(hub, (hub_no,)), *conditions(wanted, _DIALECT)]
    return " and ".join(text for text, _ in found), tuple(value for _, values in found for value in values)


def _status(wanted: tuple[str, ...]) -> Condition:
    return f"status in ({', '.join('?' * len(wanted))})", wanted


def _tag(key: str, value: str) -> Condition:
    return (
        "exists (select 1 from json_each(case when json_valid(instances.tags) then instances.tags end) t "
        "where t.key = ? and t.value = ?)",
        (key, value),
    )


_DIALECT: Final = Dialect(
    other_kind="kind is not ?",
    waiting_for="instance_no in (select w.instance_no from waits w where w.name = ?)",
    status=_status,
    tag=_tag,
)

__all__ = ["build", "build_count", "build_tasks"]
