"""Writes tracking events to the logger `perdure.tracking`, once the commit is durable that makes them true.

The loop's thread hands over references to what was committed and goes on. A thread of its own reads the events and
writes the records, so that a slow handler delays no instance. A full queue drops events and counts them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.engine.core.noted import Replayed
from perdure.engine.core.telemetry import Body, Durable
from perdure.model import events as ev
from perdure.model.instances import execution_id_of
from perdure.model.messages import ActivityResult, decode_message
from perdure.model.records import DroppedRow, InstanceRow, ResultRow
from perdure.model.trace_context import ids_of
from perdure.telemetry import tracking_events as tracked
from perdure.telemetry.tracking_events import CATEGORY, Subject, TrackingEvent
from perdure.version import __version__

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.replay.settle import Invocation

PENDING: Final = 100_000  # rows and attempts that wait for the thread at most
TIMERS_KEPT: Final = 10_000  # executions whose timers' due times are remembered, the latest ones
HELD_FOR: Final = (
    5.0  # seconds that the begin of an activity waits for the next commit, which may come before it
)
STOPS_WITHIN: Final = 10.0  # seconds in which the last events must be written
log = logging.getLogger("perdure.tracking")
own = logging.getLogger("perdure.telemetry")

Call = tuple[str, int]  # execution id, task id
Result = ev.TaskCompleted | ev.TaskFailed


class Begun(msgspec.Struct, frozen=True):
    """The body of an activity began."""

    invocation: Invocation
    at: int

    @property
    def call(self) -> Call:
        return self.invocation.execution_id, self.invocation.task_id


class Row(msgspec.Struct, frozen=True):
    """An episode, as it was committed: the bytes of its row, or its events if it has none."""

    subject: Subject
    at: int
    events: bytes | Sequence[ev.HistoryEvent]


class Committed(msgspec.Struct, frozen=True):
    """What one batch made true."""

    at: int
    created: Sequence[Subject]
    rows: Sequence[Row]
    attempts: Sequence[Body]
    results: Sequence[ResultRow]
    dropped: Sequence[tuple[Subject, DroppedRow]]
    replays: Sequence[tuple[Subject, str, int]]
    begins: Sequence[Invocation]

    @property
    def weight(self) -> int:
        parts = (self.created, self.rows, self.attempts, self.dropped, self.replays)
        return sum(map(len, parts))


class Tracking:
    """The tracking events of one worker.

    Parameters:
        hub: the hub.
        app: the name of the application.
        now: the engine's clock, in microseconds.
        replays: write a record for each replay, too.
    """

    follows_bodies = True

    def __init__(self, hub: str, app: str, now: Callable[[], int], *, replays: bool = False) -> None:
        self._shared = {
            "hubName": hub,
            "appName": os.environ.get("WEBSITE_SITE_NAME", "") or app,
            "slotName": os.environ.get("WEBSITE_SLOT_NAME", ""),
            "extensionVersion": __version__,
        }
        self._now = now
        self._replays = replays
        self._queue: SimpleQueue[Committed | Begun | None] = SimpleQueue()
        self._numbers = count()
        self._timers: OrderedDict[str, dict[int, int]] = OrderedDict()
        self._begun: list[Begun] = []
        self._waiting = 0
        self._gate = threading.Lock()
        self.dropped = 0
        if log.level == logging.NOTSET:
            log.setLevel(logging.INFO)
        self._thread = threading.Thread(target=self._write_all, name="perdure-tracking", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------- the engine's verbs

    def committed(self, durable: Durable) -> None:
        made = self._made_true(durable)
        if made.weight:
            self._put(made, made.weight)

    def begun(self, attempt: Body) -> None:
        if not attempt.invocation.name.startswith("@"):  # no operation of an entity
            self._put(Begun(attempt.invocation, self._now()), 1)

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        pass  # the commit of its result tells more

    def close(self) -> None:
        """Write what is left, and stop."""
        self._queue.put(None)
        self._thread.join(STOPS_WITHIN)
        if self._thread.is_alive():
            own.warning("the handlers of perdure.tracking are slow: its last records are lost")

    def _put(self, item: Committed | Begun, weight: int) -> None:
        """Queue an item for the thread. Called by the loop's thread, and by those of activities."""
        with self._gate:
            is_full = self._waiting > PENDING
            if is_full:
                is_first, self.dropped = not self.dropped, self.dropped + weight
            else:
                self._waiting += weight
        if not is_full:
            self._queue.put(item)
        elif is_first:
            own.warning("the handlers of perdure.tracking are slow: some of its records are dropped")

    def _done(self, weight: int) -> None:
        with self._gate:
            self._waiting -= weight

    def _made_true(self, durable: Durable) -> Committed:
        """References to what a batch made true, with the instances: its rows have only their numbers."""
        batch, touched = durable.batch, durable.touched
        rows = [
            Row(_subject_of(one.instance, one.execution_no, one.trace), one.at, one.events)
            for one in durable.released.unwritten
        ]
        for row in batch.history:
            instance = touched.get(row.instance_no)
            if instance is not None:
                trace = durable.trace_of(instance) if row.execution_no == instance.execution_no else ""
                rows.append(Row(_subject_of(instance, row.execution_no, trace), row.at, row.events))
        names = {one.instance_id: one.name for one in touched.values()} if batch.dropped else {}
        return Committed(
            batch.at,
            [
                Subject(
                    row.instance_id, row.name, False, execution_id_of(row.salt, 1), _trace_in(touched, row)
                )
                for row in batch.new_instances
                if row.kind == "orchestration" and row.parent_id is None
            ],
            rows,
            durable.attempts,
            batch.results,
            [
                (Subject(row.instance_id, names.get(row.instance_id, ""), False), row)
                for row in batch.dropped
                if row.kind == "event"
            ],
            self._replays_in(durable) if self._replays else (),
            durable.released.invocations,
        )

    def _replays_in(self, durable: Durable) -> list[tuple[Subject, str, int]]:
        of_id = {one.instance_id: one for one in durable.touched.values()}
        found = []
        for one in durable.released.noted:
            if isinstance(one, Replayed):
                instance = of_id.get(one.instance_id)
                subject = (
                    Subject(one.instance_id, one.orchestrator, False)
                    if instance is None
                    else _subject_of(instance, instance.execution_no, instance.trace)
                )
                found.append((subject, one.reason, one.replays))
        return found

    # ----------------------------------------------------------------------------------- its own thread

    def _write_all(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=HELD_FOR if self._begun else None)
            except Empty:
                self._shielded(self._write_begun, self._take_begun())
                continue
            if item is None:
                self._shielded(self._write_begun, self._take_begun())
                return
            self._shielded(self._write, item)

    def _shielded(self, write: Callable[[Any], None], given: Any) -> None:
        try:
            write(given)
        except Exception:
            own.exception("a tracking event could not be written")

    def _take_begun(self) -> list[Begun]:
        begun, self._begun = self._begun, []
        return begun

    def _write_begun(self, begun: Iterable[Begun]) -> None:
        for one in begun:
            self._done(1)
            given = one.invocation
            event = tracked.activity_started(_caller_of(given), given.name, given.input, given.task_id)
            self._tell(one.at, event)

    def _write(self, item: Committed | Begun) -> None:
        """Write an item. A thread may begin an activity before the loop has told of the batch that starts it."""
        match item:
            case Begun():
                self._begun.append(item)
            case Committed():
                begun = self._take_begun()
                begins = {(one.execution_id, one.task_id) for one in item.begins}
                self._write_begun(one for one in begun if one.call not in begins)
                self._done(item.weight)
                for at, event in self._in_order(item):
                    self._tell(at, event)
                self._write_begun(one for one in begun if one.call in begins)

    def _in_order(self, made: Committed) -> Iterator[tuple[int, TrackingEvent]]:
        """The events of one batch: what its code received comes before what it did about it."""
        for subject in made.created:
            yield made.at, tracked.instance_created(subject)
        decoded = [(row, _decoded(row.events)) for row in made.rows]
        results = dict(_results_in(decoded, made.results))
        for subject, reason, replays in made.replays:
            yield made.at, tracked.replayed(subject, reason, replays)
        for attempt in made.attempts:
            event = _ended(attempt.invocation, results)
            if event is not None:
                yield made.at, event
        for row, events in decoded:
            for event in tracked.events_of(row.subject, events, self._timers_of(row.subject, events)):
                yield row.at, event
        for subject, dropped in made.dropped:
            yield dropped.at, tracked.event_dropped(subject, dropped)

    def _timers_of(self, subject: Subject, events: Sequence[ev.HistoryEvent]) -> dict[int, int]:
        """The due times of this execution's timers, as far as this worker has seen them."""
        known = self._timers.get(subject.execution_id, {})
        created = {event.id: event.fire_at for event in events if isinstance(event, ev.TimerCreated)}
        if created:
            known = self._timers[subject.execution_id] = {**known, **created}
            self._timers.move_to_end(subject.execution_id)
            if len(self._timers) > TIMERS_KEPT:
                self._timers.popitem(last=False)
        if events and isinstance(events[-1], ev.Ending):
            self._timers.pop(subject.execution_id, None)
        return known

    def _tell(self, at: int, event: TrackingEvent) -> None:
        if not log.isEnabledFor(event.level):
            return
        fields = {**event.fields, **self._shared, "sequenceNumber": next(self._numbers)}
        extra: dict[str, Any] = {f"prop__{name}": value for name, value in fields.items()}
        extra["Category"] = CATEGORY
        extra |= _span_of(event.subject)
        text = event.text.format(**fields)
        record = log.makeRecord(log.name, event.level, __file__, 0, "%s", (text,), None, extra=extra)
        record.created = at / 1e6
        record.msecs = at // 1_000 % 1_000
        log.handle(record)


def _trace_in(touched: Mapping[int, Instance], row: InstanceRow) -> str:
    instance = touched.get(row.instance_no)
    return instance.trace if instance is not None and instance.execution_no == 1 else ""


def _subject_of(instance: Instance, execution_no: int, trace: str) -> Subject:
    execution_id = execution_id_of(instance.salt, execution_no)
    is_entity = instance.entity_state is not None
    return Subject(instance.instance_id, instance.name, is_entity, execution_id, trace)


def _span_of(subject: Subject) -> dict[str, str]:
    """The span of the execution, for what correlates records with spans."""
    if not subject.execution_id or subject.is_entity:
        return {}
    trace_id, span_id = ids_of(subject.instance_id, subject.execution_id, subject.trace)
    return {
        "trace_id": f"{trace_id:032x}",
        "span_id": f"{span_id:016x}",
        "ai.operation.name": f"orchestration:{subject.name}",
    }


def _decoded(events: bytes | Sequence[ev.HistoryEvent]) -> Sequence[ev.HistoryEvent]:
    return ev.decode_events(events) if isinstance(events, bytes) else events


def _caller_of(invocation: Invocation) -> Subject:
    given = invocation
    return Subject(given.instance_id, given.orchestrator, False, given.execution_id, given.trace)


def _ended(invocation: Invocation, results: dict[Call, Result]) -> TrackingEvent | None:
    """The event of an attempt whose result the instance has; None if it has none, as after a cancellation."""
    result = results.get((invocation.execution_id, invocation.task_id))
    if result is None or invocation.name.startswith("@"):
        return None
    subject, name, task_id = _caller_of(invocation), invocation.name, invocation.task_id
    match result:
        case ev.TaskCompleted():
            size = result.body.size if result.body is not None else 0
            return tracked.activity_completed(subject, name, tracked.redacted(result.result, size), task_id)
        case ev.TaskFailed():
            return tracked.activity_failed(subject, name, tracked.error_told(result.failure), task_id)


def _results_in(
    decoded: Iterable[tuple[Row, Sequence[ev.HistoryEvent]]], sent: Iterable[ResultRow]
) -> Iterator[tuple[Call, Result]]:
    """The results in rows of history, and those that this worker sent to the owner of their instance."""
    for row, events in decoded:
        for event in events:
            if isinstance(event, ev.TaskCompleted | ev.TaskFailed):
                yield (row.subject.execution_id, event.task_id), event
    for line in sent:
        message = decode_message(line.message)
        if isinstance(message, ActivityResult):
            yield (line.execution_id, line.task_id), _as_event(message)


def _as_event(message: ActivityResult) -> Result:
    if message.failure is not None:
        return ev.TaskFailed(task_id=message.task_id, failure=message.failure)
    return ev.TaskCompleted(task_id=message.task_id, result=message.result)


__all__ = ["Tracking"]
