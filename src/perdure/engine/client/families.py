"""Families: an instance and its sub-orchestrations, including children that history no longer names.

The kept histories of a parent name the children of their executions. For executions without history, and for
earlier runs of the same id, only the children's rows name the parent. The search follows each child to its own
children.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.model import events as ev
from perdure.model.instances import CHILD_MARK
from perdure.model.records import InstanceFilter

if TYPE_CHECKING:
    from perdure.model.records import InstanceRow
    from perdure.store.port import ClientStore

PAGE: Final = 500


def finished_family(store: ClientStore, instance_id: str) -> list[str]:
    """The ids of an instance's finished sub-orchestrations and their descendants, children before their
    parents.

    A sub-orchestration that has not finished is left out, with its descendants.
    """
    return [row.instance_id for row in _descendants(store, instance_id, {instance_id})]


def _descendants(store: ClientStore, parent_id: str, seen: set[str]) -> Iterator[InstanceRow]:
    for row in _children(store, parent_id):
        if row.instance_id not in seen and row.completed_at is not None:
            seen.add(row.instance_id)
            yield from _descendants(store, row.instance_id, seen)
            yield row


def _children(store: ClientStore, parent_id: str) -> list[InstanceRow]:
    stored = store.get(parent_id)
    found = {row.instance_id: row for row in _of(store, InstanceFilter(prefix=parent_id + CHILD_MARK))}
    if stored is not None:
        kept = store.executions(stored.row.instance_no)
        for child_id in _named(store, stored.row, kept) - found.keys():
            child = store.get(child_id)
            if child is not None:
                found[child_id] = child.row
        # some executions have no history: only the children's rows name the parent
        if len(kept) < stored.row.execution_no:
            found.update((row.instance_id, row) for row in _of(store, InstanceFilter(parent=parent_id)))
    return [row for row in found.values() if row.parent_id == parent_id]


def _named(store: ClientStore, row: InstanceRow, kept: list[int]) -> set[str]:
    """The children that the kept executions of an instance started."""
    histories = (store.history_of(row.instance_no, number) for number in kept)
    return {
        event.instance_id
        for stored in histories
        if stored is not None
        for one in stored.history
        if b'"SubOrchestrationCreated"' in one.events
        for event in _readable(one.events)
        if isinstance(event, ev.SubOrchestrationCreated)
    }


def _readable(events: bytes) -> list[ev.HistoryEvent]:
    try:
        return ev.decode_events(events)
    except msgspec.MsgspecError:
        return []


def _of(store: ClientStore, wanted: InstanceFilter) -> Iterator[InstanceRow]:
    before: int | None = None
    while True:
        rows = store.query(replace(wanted, before_no=before, top=PAGE))
        yield from rows
        if len(rows) < PAGE:
            return
        before = rows[-1].instance_no


__all__ = ["finished_family"]
