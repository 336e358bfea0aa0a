"""The trace of an instance with its sub-orchestrations, from a store, at any time after the start.

The ids are those that a live export sends. Every kept execution of an instance is read, and of each call the
sub-orchestration that it started, unless that was purged or its id has another instance by now.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.errors import DecryptionFailed, InstanceNotFound
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.encryption import Unreadable
from perdure.model.events import ParentLink
from perdure.model.instances import execution_id_of
from perdure.model.span_ids import trace_id_of
from perdure.model.trace_context import trace_in, trace_of
from perdure.telemetry.spans import Span, Subject, spans_of

if TYPE_CHECKING:
    from perdure.model.records import InstanceRow
    from perdure.replay.rewinding import Episode
    from perdure.store.port import ClientStore

MOST_INSTANCES: Final = 1_000
MOST_SPANS: Final = 100_000
DEEPEST: Final = 100
"""Generations above an instance that are searched for the root of its tree."""


@dataclass
class Tree:
    """The spans of an instance and of the instances below it; each instance's, execution after execution.

    `left_out` counts instances that are not read because the tree is too large.
    """

    hub: str
    spans: list[Span] = field(default_factory=list)
    left_out: int = 0


def tree_of(store: ClientStore, instance_id: str, hub: str, *, messages: bool = True) -> Tree:
    """The trace of an instance and its sub-orchestrations.

    Parameters:
        hub: the name of the hub, for the spans.
        messages: whether spans have the text of errors.

    Raises InstanceNotFound, DecryptionFailed.
    """
    first = store.get(instance_id)
    if first is None:
        raise InstanceNotFound(f"there is no instance {instance_id!r} in hub {hub!r}")
    tree = Tree(hub)
    waiting: deque[tuple[InstanceRow, int]] = deque([(first.row, _root_trace(store, first.row))])
    seen = 0
    while waiting:
        row, root_trace = waiting.popleft()
        if seen and (seen >= MOST_INSTANCES or len(tree.spans) >= MOST_SPANS):
            tree.left_out += 1
            continue
        seen += 1
        for number in store.executions(row.instance_no):
            recorded = _recorded(store, row, number)
            subject = _subject(row, number, hub, root_trace, messages=messages)
            spans = spans_of(subject, recorded)
            tree.spans += spans
            trace = spans[-1].trace_id if spans else 0
            children, left_out = _children(
                store, row, number, recorded, room=MOST_INSTANCES - seen - len(waiting)
            )
            waiting.extend((child, trace) for child in children)
            tree.left_out += left_out
    return tree


def _subject(row: InstanceRow, number: int, hub: str, root_trace: int, *, messages: bool) -> Subject:
    return Subject(
        instance_id=row.instance_id,
        execution_id=execution_id_of(row.salt, number),
        name=row.name,
        version=row.version,
        hub=hub,
        parent=row.parent,
        tags=payload.decode(row.tags.encode()) if row.tags else {},
        replays=row.replays,
        root_trace=root_trace if row.parent is not None and number == 1 else 0,
        messages=messages,
    )


def _recorded(store: ClientStore, row: InstanceRow, number: int) -> list[Episode]:
    """The rows of one execution, without large bodies: no span needs one."""
    found = store.history_of(row.instance_no, number)
    recorded: list[Episode] = []
    for one in found.history if found is not None else []:
        if isinstance(one.events, Unreadable):
            raise DecryptionFailed(
                f"the trace of instance {row.instance_id!r} cannot be made: {one.events.why}"
            )
        try:
            recorded.append((one.at, ev.decode_events(one.events)))
        except msgspec.MsgspecError:
            break  # a newer version wrote it: what comes before is still shown
    return recorded


def _children(
    store: ClientStore, row: InstanceRow, number: int, recorded: list[Episode], *, room: int
) -> tuple[list[InstanceRow], int]:
    """The instances that the calls of an execution started, at most `room`, and how many further calls it has."""
    execution_id = execution_id_of(row.salt, number)
    found: list[InstanceRow] = []
    left_out = 0
    for _, events in recorded:
        for event in events:
            if not isinstance(event, ev.SubOrchestrationCreated):
                continue
            if len(found) >= room:  # a look-up for each of 100,000 calls would take seconds
                left_out += 1
                continue
            child = store.get(event.instance_id)
            link = ParentLink(row.instance_id, execution_id, event.id)
            if child is not None and child.row.parent == link:
                found.append(child.row)
    return found, left_out


def _root_trace(store: ClientStore, row: InstanceRow) -> int:
    """The trace of the tree that a sub-orchestration belongs to; 0 for a root. Its caller may be purged: then the
    trace is that of the highest ancestor whose id is known.
    """
    if row.parent is None:
        return 0
    link = row.parent
    for _ in range(DEEPEST):
        above = store.get(link.instance_id)
        number = int(link.execution_id.rpartition("-")[2])
        if above is None or execution_id_of(above.row.salt, number) != link.execution_id:
            break
        carried = trace_in(trace_of(_recorded(store, above.row, number)))
        if carried is not None:
            return carried.trace_id
        if above.row.parent is None or number > 1:
            break
        link = above.row.parent
    return trace_id_of(link.instance_id, link.execution_id)


__all__ = ["Tree", "tree_of"]
