"""Sealing: turns a batch into rows.

Every touched instance writes its open episode, its waits and its own row. Held messages become rows that polls
skip, and unhandled messages become rows that polls return. A message from outside that has not been answered
needs no row, because nothing was promised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.engine.core import activity_rows, entities, task_rows
from perdure.engine.core.envelope import Elsewhere, Envelope, acceptance_of
from perdure.engine.core.episodes import write_episode
from perdure.engine.core.repeats import id_in
from perdure.errors import PerdureError
from perdure.model import payload
from perdure.model.messages import Wake
from perdure.model.records import Batch, WaitRow
from perdure.replay.human_tasks import DecisionTask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.instance import Instance
    from perdure.replay.decide import Execution
    from perdure.replay.task import EventTask

STORED_AT_ONCE: Final = 2_000  # messages that get a row between two pauses


def seal(batch: OpenBatch) -> Batch:
    """Close the batch: rows of every touched instance, and inbox rows for unconsumed messages."""
    rows = batch.rows
    for instance in batch.touched.values():
        if not instance.purged:
            _seal_instance(batch, instance)
    if batch.held:
        _seal_held(batch)
    _seal_unconsumed(batch)
    rows.inbox_removed = batch.consumed
    rows.moved = batch.moved
    if rows.activities_placed and rows.activities_removed:
        _forget_placed(rows)
    rows.custom_status = list(dict(rows.custom_status).items())
    rows.executions_removed = list(dict(rows.executions_removed).items())
    return rows


def _forget_placed(rows: Batch) -> None:
    """Drop the rows of activities that were placed and cancelled within one batch."""
    gone = set(rows.activities_removed)
    rows.activities_placed = [
        row
        for row in rows.activities_placed
        if not {row[:3], (row.instance_id, row.execution_id, activity_rows.ALL)} & gone
    ]


def _seal_instance(batch: OpenBatch, instance: Instance) -> None:
    rows = batch.rows
    if instance.entity_state is not None and not entities.seal(batch, instance):
        return
    write_episode(batch, instance)
    execution = instance.execution
    if execution is not None:
        opened, closed = execution.take_waits()
        if opened or closed:
            if batch.announcing is not None:
                batch.announcing.waits(batch, instance, execution, opened, closed)
            _seal_waits(batch, instance, execution, opened, closed)
        due_at = execution.due_at()
        instance.due_at = due_at if due_at is not None and instance.is_running else None
        status = execution.take_status()
        if status is not None:
            rows.custom_status.append((instance.no, status))
    elif instance.is_finished:
        instance.due_at = None
    if instance.is_new:
        rows.new_instances.append(instance.row())
        moved = True
        instance.has_moved()
    else:
        rows.updates.append(instance.update())
        moved = instance.has_moved()
        if moved:
            batch.moved.add(instance.no)
    if moved and instance.entity_state is None and instance.no not in batch.gone:
        move = instance.move()
        if move is not None:
            rows.moves.append(move)
    if instance.due_at is not None:
        batch.released.due.append((instance.due_at, instance.instance_id))
    instance.touched_at = batch.now


def _seal_waits(
    batch: OpenBatch,
    instance: Instance,
    execution: Execution,
    opened: Iterable[EventTask[Any]],
    closed: Iterable[EventTask[Any]],
) -> None:
    for wait in opened:
        if wait.saved:
            assert isinstance(wait, DecisionTask)  # no other wait changes
            task_rows.update(batch, instance, wait)
            continue
        wait.saved = True
        instance.saved_waits += 1
        row = WaitRow(
            instance.no,
            wait.id,
            wait.name,
            instance.last_at,
            execution.deadline_of(wait),
            _schema(wait.expected),
        )
        record = wait.record if isinstance(wait, DecisionTask) else None
        batch.rows.waits_opened.append(task_rows.described(row, record))
        if instance.tasks is not None:
            instance.tasks[wait.id] = task_rows.opened(wait.name, record)
    for wait in closed:
        if wait.saved:
            wait.saved = False
            instance.saved_waits -= 1
            if instance.tasks is not None:
                instance.tasks.pop(wait.id, None)
            batch.rows.waits_closed.append((instance.no, wait.id))


def _seal_held(batch: OpenBatch) -> None:
    """Store held messages as rows that polls skip until the instance is resumed."""
    walks: dict[int, _Walk] = {}
    # Some messages were released again within this batch, and some of those were held a second time.
    for instance, envelope in {id(e): (i, e) for i, e in batch.held if e.held}.values():
        if not envelope.row_no:
            batch.store(envelope, None)
        elif _needs_another_row(instance, envelope, walks):
            envelope.stored_as = envelope.row_no
            batch.consumed.append(envelope.row_no)
            batch.store(envelope, None)
        else:
            batch.rows.inbox_held.append(envelope.row_no)
        if envelope.reply is not None:
            batch.tell(envelope, acceptance_of(envelope))
            operation_id = id_in(envelope.message)
            if operation_id:
                batch.remember(operation_id, envelope, acceptance_of(envelope))
        envelope.internal = False


def _needs_another_row(instance: Instance, envelope: Envelope, walks: dict[int, _Walk]) -> bool:
    """Whether its row would give the wrong order, or would request an answer that was already given."""
    if isinstance(envelope.reply, Elsewhere):
        return True
    if instance.entity_state is None:
        return False
    walk = walks.get(instance.no)
    if walk is None or not walk.reaches(envelope):
        walk = walks[instance.no] = _Walk(
            instance
        )  # a line is walked once, unless held messages changed places
        walk.reaches(envelope)
    return walk.greatest > envelope.row_no


class _Walk:
    """A walk along an entity's line: `greatest` is the greatest row number before the current place.

    The line is loaded in the order of its row numbers, and an operation outside the loop is identified by its
    place: so numbers must follow the order.
    """

    def __init__(self, instance: Instance) -> None:
        self.greatest = 0
        self._rest = iter(instance.waiting or ())
        self._last: Envelope | None = None

    def reaches(self, envelope: Envelope) -> bool:
        """Walk on to this envelope; False if it is not ahead in the line."""
        for other in self._rest:
            if self._last is not None:
                self.greatest = max(self.greatest, self._last.row_no)
            self._last = other
            if other is envelope:
                return True
        return False


def _seal_unconsumed(batch: OpenBatch) -> None:
    """Keep unhandled messages for the next batch; store those created in this one.

    Messages that have waited since an earlier batch are unchanged and skipped.
    """
    if batch.repeats:  # behind their firsts, which may have been released in this batch
        batch.backlog.extend(batch.repeats)
        batch.repeats.clear()
    lines = batch.lines
    if not (batch.deferred or batch.aside or batch.backlog or lines.recent):
        return
    for envelope in reversed([*batch.deferred, *(e for kept in batch.aside.values() for e in kept)]):
        lines.put_first(envelope)
    for envelope in batch.backlog:
        lines.append(envelope)
    batch.deferred.clear()
    batch.aside.clear()
    batch.backlog.clear()
    at_once = batch.at_once
    for number, envelope in enumerate(lines.recent, 1):
        if not number % STORED_AT_ONCE:
            batch.pause()
        if not envelope.waits:
            continue
        if envelope.hidden:  # released but not reached: polls must return it from now on
            batch.consumed.append(envelope.row_no)
            batch.show(envelope, at_once)
            envelope.hidden = False
        elif envelope.internal and not isinstance(envelope.message, Wake):
            batch.store(envelope, at_once)
            envelope.internal = False


_schemas: dict[Any, bytes | None] = {}


def _schema(expected: Any) -> bytes | None:
    """The JSON Schema of a wait's type, computed once per type."""
    try:
        if expected not in _schemas:
            schema = payload.schema_of(expected)
            _schemas[expected] = payload.encode(schema) if schema is not None else None
        return _schemas[expected]
    except (TypeError, PerdureError):
        return None
