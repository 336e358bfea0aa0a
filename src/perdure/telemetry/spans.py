"""The spans of an execution, from its history alone.

`ExecutionSpans` reads the rows of one execution in order and returns each span at the row that ends it. So the
same spans, with the same ids and times, come from the rows of each commit and from the whole history, years later.
An event has no time of its own: its row has one. Spans contain names, ids, times and statuses, never an input, an
output, the body of an event or a custom status.

A rewind continues an execution that had ended, when its spans may have been exported. Those stay as they were, and
what the rewind opens again ends in a second span, which begins with the rewind and has an id of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, assert_never

import msgspec

from perdure.failure import Failure
from perdure.model import events as ev
from perdure.model.durations import moment, stamp
from perdure.model.entities import EntityId
from perdure.model.events import ParentLink
from perdure.model.span_ids import span_id_of, trace_id_of
from perdure.model.trace_context import TraceContext, trace_before, trace_called, trace_in
from perdure.replay.pairing import Item
from perdure.replay.rewinding import Episode, counting
from perdure.replay.state import ENDED_AS, State

Attribute = str | int | float | bool
MOST_MOMENTS: Final = 128
"""The limit of OpenTelemetry for the events of one span."""


class SpanKind(StrEnum):
    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class SpanStatus(StrEnum):
    UNSET = "UNSET"
    OK = "OK"
    ERROR = "ERROR"


class Moment(msgspec.Struct, frozen=True):
    """What OpenTelemetry calls an event of a span. `at` is in microseconds since 1970."""

    at: int
    name: str
    attributes: dict[str, Attribute] = {}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span that history implies. Times are in microseconds since 1970; without `end` it is still open."""

    trace_id: int
    span_id: int
    parent_id: int  # 0 for none
    name: str
    kind: SpanKind
    start: int
    end: int | None
    status: SpanStatus = SpanStatus.UNSET
    message: str = ""  # of the status: an error's text
    attributes: dict[str, Attribute]
    links: tuple[TraceContext, ...] = ()
    events: tuple[Moment, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.end is None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The execution whose spans are made, with what its history does not contain.

    `root_trace` is the trace of the tree for a sub-orchestration whose start carries none; 0 if unknown. `replays`
    is how often the code was brought back; None if unknown. With `messages` False no span has the text of an error.
    """

    instance_id: str
    execution_id: str
    name: str
    version: str = ""
    hub: str = ""
    parent: ParentLink | None = None
    tags: Mapping[str, str] = {}
    replays: int | None = None
    root_trace: int = 0
    messages: bool = True

    @property
    def execution_no(self) -> int:
        return int(self.execution_id.rpartition("-")[2])

    @property
    def before(self) -> str:
        """The execution id of the execution that this one continues."""
        salt, _, number = self.execution_id.rpartition("-")
        return f"{salt}-{int(number) - 1}"


class _Folded(State):
    """The state, which also notes the waits that took an event or lost it again."""

    def __init__(self) -> None:
        super().__init__()
        self.touched: dict[int, None] = {}

    def _take(self, wait_id: int, item: Item) -> None:
        self.touched[wait_id] = None
        super()._take(wait_id, item)


class ExecutionSpans:
    """Reads the history of one execution, row by row, and returns the spans that end in each.

    `trace` is the trace that its spans belong to, from the row with `ExecutionStarted` on.
    """

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.trace = TraceContext(subject.root_trace or self._own_trace(), self._parent_span())
        self._links: tuple[TraceContext, ...] = ()
        self._state = _Folded()
        self._recorded: list[Episode] = []
        self._timers: dict[int, int] = {}  # when each open timer was created
        self._timed_out: set[int] = set()  # waits
        self._waits: dict[int, tuple[ev.EventAwaited, int]] = {}  # whose spans have not ended
        self._moments: list[Moment] = []
        self._began: int | None = None  # the present run: the start, or the last rewind
        self._runs = 0  # that have ended
        self._endings: dict[int, int] = {}  # how many spans of a part have ended, if any has
        self._parked_at: int | None = None
        self._parked = 0

    # ------------------------------------------------------------------------------------------- reading

    def read(self, at: int, events: Iterable[ev.HistoryEvent]) -> list[Span]:
        """The spans that end with the next row of history, which was written at this time."""
        row = list(events)
        self._recorded.append((at, []))
        ended: list[Span] = []
        for event in row:
            ended += self._ended_by(event, at)
            self._recorded[-1][1].append(event)
            if isinstance(event, ev.ExecutionRewound):
                self._reopen(at)
            else:
                self._state.apply(event, at)
            self._began_by(event, at)
            if isinstance(event, ev.Ending):
                ended += self._waits_ended(at)
                ended += self._cut_off(at)
                ended.append(self._execution_ended(event, at))
        ended += self._waits_ended(at)
        return ended

    def open(self) -> list[Span]:
        """The spans that have begun and not ended, the execution's own first."""
        if self._began is None or self._state.ending is not None:
            return []
        return [self._execution(None, SpanStatus.UNSET, "", "Running"), *self._parts(None, "Running")]

    def _ended_by(self, event: ev.HistoryEvent, at: int) -> Iterator[Span]:
        """The spans that an event ends, read before the state takes it over."""
        state = self._state
        match event:
            case ev.TaskCompleted() if event.task_id in state.activities:
                yield self._activity(event.task_id, at, SpanStatus.OK, "Completed")
            case ev.TaskFailed() if event.task_id in state.activities:
                yield self._activity(event.task_id, at, SpanStatus.ERROR, "Failed", event.failure)
            case ev.TaskCanceled() if event.task_id in state.activities:
                yield self._activity(event.task_id, at, SpanStatus.UNSET, "Canceled")
            case ev.SubOrchestrationCompleted() if event.task_id in state.children:
                yield self._child(event.task_id, at, SpanStatus.OK, "Completed")
            case ev.SubOrchestrationFailed() if event.task_id in state.children:
                yield self._child(event.task_id, at, SpanStatus.ERROR, "Failed", event.failure)
            case ev.TimerFired() if event.timer_id in state.timers:
                timer = state.timers[event.timer_id]
                if timer.purpose == "timeout":
                    self._timed_out.add(timer.of)
                yield self._timer(event.timer_id, at, SpanStatus.OK, "Completed")
            case ev.TimerCanceled() if event.timer_id in state.timers:
                yield self._timer(event.timer_id, at, SpanStatus.UNSET, "Canceled")
            case ev.EntityOperationCompleted() if event.task_id in state.operations:
                yield self._operation(event.task_id, at, SpanStatus.OK, "Completed")
            case ev.EntityOperationFailed() if event.task_id in state.operations:
                yield self._operation(event.task_id, at, SpanStatus.ERROR, "Failed", event.failure)
            case ev.EntitySignaled():
                yield self._signal(event, at)
            case _:
                pass

    def _began_by(self, event: ev.HistoryEvent, at: int) -> None:
        match event:
            case ev.ExecutionStarted():
                self._start(event, at)
            case ev.TimerCreated():
                self._timers[event.id] = at
            case ev.EventAwaited():
                self._waits[event.id] = (event, at)
            case ev.WaitCanceled():
                self._state.touched[event.wait_id] = None
            case ev.ExecutionSuspended():
                self._note(at, "suspended")
            case ev.ExecutionParked():
                self._note(at, "parked", {"perdure.parked.kind": event.kind})
                self._parked_at = at if self._parked_at is None else self._parked_at
            case ev.ExecutionResumed():
                self._note(at, "resumed")
                self._count_parked(at)
            case ev.ExecutionRewound():
                self._note(at, "rewound")
            case ev.LoopHeld():
                self._note(at, "held the loop", {"perdure.held": event.milliseconds / 1e3})
            case _:
                pass

    def _start(self, event: ev.ExecutionStarted, at: int) -> None:
        self._began = at
        carried = trace_in(event.trace)
        if carried is None and self.subject.root_trace:
            carried = TraceContext(self.subject.root_trace, 0)
        if self.subject.execution_no > 1:
            self._links = (trace_before(event.trace, self.subject.instance_id, self.subject.before),)
        if carried is None:
            return
        is_first = self.subject.execution_no == 1
        if is_first and carried.trace_id == trace_id_of(self.subject.instance_id, self.subject.execution_id):
            self._begin_trace(carried)
            return
        is_first_of_tree = self.subject.parent is None and is_first
        parent = carried.span_id if is_first_of_tree else self._parent_span()
        self.trace = carried._replace(span_id=parent)

    def _begin_trace(self, own: TraceContext) -> None:
        """The execution is the root of a trace of its own. A call that began it, in another trace, is a link."""
        self.trace = own._replace(span_id=0)
        call, caller = self._parent_span(), trace_called(own)
        if call and caller:
            self._links = (TraceContext(caller, call),)

    def _own_trace(self) -> int:
        """The trace without one in history. The caller of a sub-orchestration is the best guess for its root."""
        parent = self.subject.parent
        if parent is not None and self.subject.execution_no == 1:
            return trace_id_of(parent.instance_id, parent.execution_id)
        return trace_id_of(self.subject.instance_id, self.subject.execution_id)

    def _parent_span(self) -> int:
        """The span of the call that started a sub-orchestration; 0 for a root, or for a continued execution."""
        parent = self.subject.parent
        if parent is None or self.subject.execution_no > 1:
            return 0
        return span_id_of(parent.instance_id, parent.execution_id, parent.task_id)

    def _reopen(self, at: int) -> None:
        """Read the history that counts after a rewind: calls and waits in it are open again, from now on."""
        self._state = _Folded()
        for when, events in counting(self._recorded):
            for event in events:
                self._state.apply(event, when)
        self._state.touched.clear()
        self._count_parked(at)
        self._began = at
        self._timers = dict.fromkeys(self._state.timers, at)
        self._waits = dict(self._state.waits)

    def _count_parked(self, at: int) -> None:
        if self._parked_at is not None:
            self._parked += at - self._parked_at
            self._parked_at = None

    def _note(self, at: int, name: str, attributes: dict[str, Attribute] | None = None) -> None:
        if len(self._moments) < MOST_MOMENTS:
            self._moments.append(Moment(at, name, attributes or {}))

    # -------------------------------------------------------------------------------------------- ending

    def _waits_ended(self, at: int) -> Iterator[Span]:
        """The waits that a row ended: one that lost its event to another wait again has not."""
        touched, self._state.touched = self._state.touched, {}
        for wait_id in touched:
            if wait_id in self._waits and wait_id not in self._state.waits:
                _, _, item = self._state.taken.get(wait_id, (None, 0, None))
                yield self._wait(wait_id, at, self._outcome_of(wait_id, item), item)

    def _outcome_of(self, wait_id: int, item: Item | None) -> str:
        if item is not None:
            return "Completed"
        return "TimedOut" if wait_id in self._timed_out else "Canceled"

    def _cut_off(self, at: int) -> list[Span]:
        return list(self._parts(at, "Canceled"))

    def _parts(self, end: int | None, status: str) -> Iterator[Span]:
        """The calls, timers and waits that are open, ended at `end` if it is given."""
        state, unset = self._state, SpanStatus.UNSET
        for task_id in state.activities:
            yield self._activity(task_id, end, unset, status)
        for task_id in state.children:
            yield self._child(task_id, end, unset, status)
        for timer_id in state.timers:
            yield self._timer(timer_id, end, unset, status)
        for task_id in state.operations:
            yield self._operation(task_id, end, unset, status)
        for wait_id in list(self._waits):
            yield self._wait(wait_id, end, status, None)

    def _execution_ended(self, event: ev.Ending, at: int) -> Span:
        self._count_parked(at)
        if self._began is None:
            self._began = at  # it was terminated before it began
        status, failure = SpanStatus.OK, None
        match event:
            case ev.ExecutionFailed():
                status, failure = SpanStatus.ERROR, event.failure
            case ev.ExecutionTerminated():
                status = SpanStatus.UNSET
            case ev.ExecutionCompleted() | ev.ContinuedAsNew():
                pass
            case _:
                assert_never(event)
        ended_as = str(ENDED_AS[type(event)])
        span = self._execution(at, status, self._message(failure), ended_as, failure)
        self._runs += 1
        self._moments = []
        return span

    # --------------------------------------------------------------------------------------- the spans

    def _execution(
        self, end: int | None, status: SpanStatus, message: str, word: str, failure: Failure | None = None
    ) -> Span:
        subject = self.subject
        assert self._began is not None
        attributes = self._common("orchestration", word) | {
            "perdure.hub": subject.hub,
            "perdure.episodes": len(self._recorded),
            "perdure.rewound": self._runs,
            "perdure.parked": self._parked / 1e6,
        }
        if subject.replays is not None:
            attributes["perdure.replays"] = subject.replays
        attributes |= {f"perdure.tag.{name}": value for name, value in subject.tags.items()}
        return Span(
            trace_id=self.trace.trace_id,
            span_id=self._run_span(),
            parent_id=self.trace.span_id,
            name=f"orchestration:{versioned(subject.name, subject.version)}",
            kind=SpanKind.SERVER,
            start=self._began,
            end=end,
            status=status,
            message=message,
            attributes=attributes | _error_of(failure),
            links=self._links,
            events=(*self._moments, *self._exception(failure, end)),
        )

    def _activity(
        self, task_id: int, end: int | None, status: SpanStatus, word: str, failure: Failure | None = None
    ) -> Span:
        event, since = self._state.activities[task_id]
        attributes = self._common("activity", word) | {
            "durabletask.task.name": event.name,
            "durabletask.task.task_id": task_id,
            "perdure.attempt": event.attempt,
        }
        attributes.pop("durabletask.task.version", None)
        name = f"activity:{event.name}"
        return self._part(task_id, name, SpanKind.CLIENT, since, end, status, attributes, failure)

    def _child(
        self, task_id: int, end: int | None, status: SpanStatus, word: str, failure: Failure | None = None
    ) -> Span:
        event, since = self._state.children[task_id]
        attributes = self._common("orchestration", word) | {
            "durabletask.task.name": event.name,
            "durabletask.task.task_id": task_id,
            "perdure.attempt": event.attempt,
            "perdure.child.instance_id": event.instance_id,
        }
        attributes.pop("durabletask.task.version", None)
        if event.version:
            attributes["durabletask.task.version"] = event.version
        name = f"orchestration:{versioned(event.name, event.version)}"
        return self._part(task_id, name, SpanKind.CLIENT, since, end, status, attributes, failure)

    def _timer(self, timer_id: int, end: int | None, status: SpanStatus, word: str) -> Span:
        event = self._state.timers[timer_id]
        attributes = self._common("timer", word) | {
            "durabletask.task.task_id": timer_id,
            "durabletask.fire_at": stamp(moment(event.fire_at)),
        }
        if event.purpose:
            attributes["perdure.timer.purpose"] = event.purpose
        since = self._timers.get(timer_id, self._began or 0)
        name = f"orchestration:{self.subject.name}:timer"
        return self._part(timer_id, name, SpanKind.INTERNAL, since, end, status, attributes)

    def _wait(self, wait_id: int, end: int | None, word: str, item: Item | None) -> Span:
        event, since = self._waits[wait_id]
        if end is not None:
            del self._waits[wait_id]
        attributes = self._common("wait", word) | {
            "durabletask.task.task_id": wait_id,
            "perdure.event": event.name,
        }
        if event.deadline:
            attributes["perdure.deadline"] = stamp(moment(event.deadline))
        raised = trace_in(item[1].trace) if item is not None else None
        status = SpanStatus.OK if word == "Completed" else SpanStatus.UNSET
        name = f"orchestration:{self.subject.name}:wait:{event.name}"
        links = () if raised is None else (raised,)
        return self._part(wait_id, name, SpanKind.INTERNAL, since, end, status, attributes, links=links)

    def _operation(
        self, task_id: int, end: int | None, status: SpanStatus, word: str, failure: Failure | None = None
    ) -> Span:
        event, since = self._state.operations[task_id]
        attributes = self._of_entity(event, word)
        name = _operation_name(event.entity, event.operation)
        return self._part(task_id, name, SpanKind.CLIENT, since, end, status, attributes, failure)

    def _signal(self, event: ev.EntitySignaled, at: int) -> Span:
        attributes = self._of_entity(event, "Completed")
        if event.at:
            attributes["durabletask.task.scheduled_time"] = stamp(moment(event.at))
        name = _operation_name(event.entity, event.operation)
        return self._part(event.id, name, SpanKind.PRODUCER, at, at, SpanStatus.OK, attributes)

    def _of_entity(self, event: ev.EntityCalled | ev.EntitySignaled, word: str) -> dict[str, Attribute]:
        attributes = self._common("entity", word) | {
            "durabletask.task.name": entity_name(event.entity),
            "durabletask.task.operation": event.operation,
            "durabletask.task.task_id": event.id,
            "durabletask.event.target_instance_id": event.entity,
        }
        attributes.pop("durabletask.task.version", None)
        return attributes

    def _part(
        self,
        part: int,
        name: str,
        kind: SpanKind,
        since: int,
        end: int | None,
        status: SpanStatus,
        attributes: dict[str, Attribute],
        failure: Failure | None = None,
        links: tuple[TraceContext, ...] = (),
    ) -> Span:
        """A part of the execution; what a rewind opened again begins with the rewind."""
        subject = self.subject
        endings = self._endings.get(part, 0)
        if end is not None:
            self._endings[part] = endings + 1
        return Span(
            trace_id=self.trace.trace_id,
            span_id=span_id_of(subject.instance_id, subject.execution_id, part, endings),
            parent_id=self._run_span(),
            name=name,
            kind=kind,
            start=max(since, self._began or since),
            end=end,
            status=status,
            message=self._message(failure),
            attributes=attributes | _error_of(failure),
            links=links,
            events=self._exception(failure, end),
        )

    def _run_span(self) -> int:
        """The id of the execution's own span: a rewound execution has one for each time it ended."""
        return span_id_of(self.subject.instance_id, self.subject.execution_id, ending=self._runs)

    def _common(self, kind: str, word: str) -> dict[str, Attribute]:
        subject = self.subject
        attributes: dict[str, Attribute] = {
            "durabletask.type": kind,
            "durabletask.task.name": subject.name,
            "durabletask.task.instance_id": subject.instance_id,
            "durabletask.task.execution_id": subject.execution_id,
            "durabletask.task.status": word,
        }
        if subject.version:
            attributes["durabletask.task.version"] = subject.version
        return attributes

    def _message(self, failure: Failure | None) -> str:
        return str(failure) if failure is not None and self.subject.messages else ""

    def _exception(self, failure: Failure | None, at: int | None) -> tuple[Moment, ...]:
        """The event with which OpenTelemetry records an exception."""
        if failure is None or at is None:
            return ()
        attributes: dict[str, Attribute] = {"exception.type": failure.type}
        if self.subject.messages:
            attributes["exception.message"] = failure.message
        return (Moment(at, "exception", attributes),)


def spans_of(subject: Subject, history: Iterable[tuple[int, Iterable[ev.HistoryEvent]]]) -> list[Span]:
    """All spans of one execution, from its whole history: (time in microseconds, events) of each row.

    Spans that have ended come first, in the order of their ends; then those that are open, which have no end.
    """
    reader = ExecutionSpans(subject)
    ended = [span for at, events in history for span in reader.read(at, events)]
    return [*ended, *reader.open()]


def versioned(name: str, version: str) -> str:
    """An orchestrator's name with its version, as Azure writes it in the names of spans."""
    return f"{name}@({version})" if version else name


def entity_name(instance_id: str) -> str:
    """The name of an entity, from the id of its instance."""
    return EntityId.parse(instance_id).name


def _operation_name(instance_id: str, operation: str) -> str:
    return f"entity:{entity_name(instance_id)}:{operation}"


def _error_of(failure: Failure | None) -> dict[str, Any]:
    return {"error.type": failure.type} if failure is not None else {}


__all__ = [
    "Attribute",
    "ExecutionSpans",
    "Moment",
    "Span",
    "SpanKind",
    "SpanStatus",
    "Subject",
    "entity_name",
    "spans_of",
    "versioned",
]
