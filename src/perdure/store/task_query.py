"""The query for people's tasks: open waits, due first, through an index. Shared by SQL's two stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.model.damaged import wait_of
from perdure.model.human_tasks import role_text
from perdure.model.records import NEVER_DUE, TaskFilter, TaskRow, WaitRow
from perdure.store.column_encryption import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perdure.store.column_encryption import Vault

DUE: Final = f"(case w.deadline when 0 then {NEVER_DUE} else w.deadline end)"
"""The indexed expression, word for word."""
WHOSE: Final = "(case w.holder when '' then w.assignee else w.holder end)"
"""Whose task it is, word for word as in the index waits_of_person."""
_WIDTH: Final = len(WaitRow._fields)
_OF_INSTANCE: Final = ("instance_id", "name", "tags", "status")
COLUMNS: Final = ", ".join(
    [*(f"w.{name}" for name in WaitRow._fields), *(f"i.{name}" for name in _OF_INSTANCE)]
)


def conditions(wanted: TaskFilter, has_text: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Each condition of the filter, with its values. `has_text` tests whether the first text contains the second."""
    if wanted.person:
        yield f"{WHOSE} = ? and (w.holder <> '' or w.assignee <> '')", (wanted.person,)
    if wanted.role:
        yield has_text.format("w.roles", "?"), (role_text((wanted.role,)),)
    if wanted.name:
        yield "i.name = ?", (wanted.name,)
    if wanted.event:
        yield "w.name = ?", (wanted.event,)
    if wanted.due_before is not None:
        yield f"{DUE} < ?", (wanted.due_before,)
    if wanted.instance_no is not None:
        yield "w.instance_no = ?", (wanted.instance_no,)
    if wanted.after is not None:
        # The first comparison finds the place in the index; the second alone would read all rows before it.
        yield f"{DUE} >= ?", wanted.after[:1]
        yield f"({DUE}, w.instance_no, w.wait_id) > (?, ?, ?)", wanted.after


def tasks_of(rows: Sequence[Any], vault: Vault | None) -> list[TaskRow]:
    """The rows of the statement."""
    waits = opened(vault, "waits", [tuple(row[:_WIDTH]) for row in rows])
    return [TaskRow(wait_of(wait), *row[_WIDTH:]) for wait, row in zip(waits, rows, strict=True)]


__all__ = ["COLUMNS", "DUE", "conditions", "tasks_of"]
