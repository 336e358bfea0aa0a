"""The timeline of an instance: history as rows of spans on one time axis.

A row is a logical call, a timer, a wait for an event or a sub-orchestration. The attempts of a retried activity share
a row, with the pauses between them. A span without an end extends to the present.
Durations differ by nine orders of magnitude within one instance (a claim waits for days between activities of
milliseconds). If a linear axis would make a span invisible, the axis is compressed: each stretch between two events
gets a width by the logarithm of its length. Order and overlap stay correct, and the page says so.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from math import log2
from typing import TYPE_CHECKING

from perdure.model import events as ev

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.model.events import HistoryEvent

ROWS = 150
TOO_THIN = 0.01  # of the axis


@dataclass
class Span:
    """A period of time. `state` is done, failed, open or canceled, `kind` is activity, retry and so on."""

    kind: str
    start: int
    end: int | None = None
    state: str = "open"
    note: str = ""

    def close(self, at: int, state: str, note: str = "") -> None:
        self.end, self.state = at, state
        self.note = note or self.note


@dataclass
class TimelineRow:
    """One row of the timeline. `instance_id` is that of a sub-orchestration."""

    label: str
    kind: str
    spans: list[Span] = field(default_factory=list)
    instance_id: str = ""

    @property
    def state(self) -> str:
        return self.spans[-1].state if self.spans else "open"

    @property
    def attempts(self) -> int:
        return sum(span.kind == self.kind for span in self.spans)

    def lasted(self, now: int) -> float:
        """Seconds from the start of the first span to the end of the last one."""
        ends = [now if span.end is None else span.end for span in self.spans]
        return (max(ends) - self.spans[0].start) / 1e6 if ends else 0.0


@dataclass(frozen=True)
class Bar:
    """The position of a span, in percent of the axis."""

    span: Span
    x: float
    width: float


@dataclass(frozen=True)
class Timeline:
    rows: tuple[TimelineRow, ...]
    start: int
    end: int
    left_out: int
    compressed: bool
    _axis: Axis

    def bars(self, row: TimelineRow) -> list[Bar]:
        """The positions of a row's spans on the axis."""
        return [self._bar(span) for span in row.spans]

    def _bar(self, span: Span) -> Bar:
        x = self._axis.place(span.start)
        width = self._axis.place(self.end if span.end is None else span.end) - x
        width = max(width, 0.6)
        return Bar(span, round(min(x, 100 - width), 3), round(width, 3))

    def legend(self) -> list[str]:
        """The kinds of spans in the timeline, in a fixed order, for the legend of colours."""
        spans = [span for row in self.rows for span in row.spans]
        seen = {span.kind for span in spans} | {"failed" for span in spans if span.state == "failed"}
        return [
            word
            for word in ("activity", "child", "wait", "entity", "timer", "retry", "failed")
            if word in seen
        ]

    def ticks(self) -> list[tuple[float, int]]:
        """Positions on the axis, in percent, with their times."""
        return [(share, self._axis.instant(share)) for share in (0.0, 25.0, 50.0, 75.0, 100.0)]


class Axis:
    """Converts times to percentages and back, piecewise linearly between `marks`."""

    def __init__(self, marks: Sequence[int], *, compressed: bool) -> None:
        self.marks = marks
        weights = [_weight(b - a) if compressed else float(b - a) for a, b in pairwise(marks)]
        total = sum(weights) or 1.0
        self.places = [0.0]
        for weight in weights:
            self.places.append(self.places[-1] + 100.0 * weight / total)

    def place(self, at: int) -> float:
        i = min(max(bisect_right(self.marks, at) - 1, 0), max(len(self.marks) - 2, 0))
        return _between(at, self.marks, self.places, i)

    def instant(self, place: float) -> int:
        i = min(max(bisect_right(self.places, place) - 1, 0), max(len(self.places) - 2, 0))
        return round(_between(place, self.places, self.marks, i))


def _between(value: float, source: Sequence[float], target: Sequence[float], i: int) -> float:
    if i + 1 >= len(source) or source[i + 1] == source[i]:
        return float(target[i])
    share = (value - source[i]) / (source[i + 1] - source[i])
    return target[i] + min(max(share, 0.0), 1.0) * (target[i + 1] - target[i])


def _weight(gap: int) -> float:
    return log2(1 + gap / 500)  # half a millisecond or less has almost no width


def timeline_of(history: Iterable[tuple[int, HistoryEvent]], now: int) -> Timeline | None:
    """The timeline of one execution, or None if it has no spans. Times are in microseconds."""
    draft = _Draft()
    times: list[int] = []
    ended = False
    for at, event in history:
        times.append(at)
        ended = isinstance(event, ev.Ending) or (ended and not isinstance(event, ev.ExecutionRewound))
        draft.apply(at, event)
    if not draft.rows:
        return None
    start, end = times[0], (times[-1] if ended else max(now, times[-1]))
    end = max(end, start + 1)
    shown = draft.rows[:ROWS]
    closed = ((span.start, span.end) for row in shown for span in row.spans if span.end is not None)
    compressed = has_thin(closed, start, end)
    marks = (
        sorted({*times, start, end, *(s.start for r in shown for s in r.spans)})
        if compressed
        else [start, end]
    )
    axis = Axis([mark for mark in marks if start <= mark <= end], compressed=compressed)
    return Timeline(tuple(shown), start, end, len(draft.rows) - len(shown), compressed, axis)


def has_thin(spans: Iterable[tuple[int, int]], start: int, end: int) -> bool:
    """Whether one of the spans (begin, end) is too short for a linear axis from `start` to `end`."""
    return any(0 < until - since < TOO_THIN * (end - start) for since, until in spans)


class _Draft:
    """The rows while the history is being read."""

    def __init__(self) -> None:
        self.rows: list[TimelineRow] = []
        self.calls: dict[int, TimelineRow] = {}
        self.open: dict[int, Span] = {}
        self.waits: dict[str, list[Span]] = defaultdict(list)
        self.buffered: dict[str, int] = defaultdict(int)
        self.pairing = ev.OLDEST
        self.taken: dict[int, Span] = {}
        self.locks: dict[int, int] = {}  # entities still to be locked
        self.called: dict[int, TimelineRow] = {}
        self.cut_off: list[Span] = []

    def apply(self, at: int, event: HistoryEvent) -> None:
        match event:
            case ev.ExecutionStarted():
                self.pairing = event.pairing
                for carried in event.carried:
                    self.buffered[carried.name.casefold()] += 1
            case ev.TaskScheduled():
                self._call(event.id, event.call, event.name, "activity", at)
            case ev.SubOrchestrationCreated():
                row = self._call(event.id, event.call, event.name, "child", at)
                row.instance_id = event.instance_id
            case ev.TimerCreated():
                self._timer(event, at)
            case ev.EventAwaited():
                self._await(event, at)
            case ev.EntityCalled():
                self._span(self._row(f"{event.entity} {event.operation}", "entity"), event.id, "entity", at)
            case ev.LockRequested():
                self._span(self._row(f"lock of {', '.join(event.entities)}", "entity"), event.id, "wait", at)
                self.locks[event.id] = len(event.entities)
            case ev.LockGranted():
                self._granted(event.task_id, at)
            case ev.LockReleased():
                self._close(event.lock_id, at, "done")
            case ev.EntityOperationCompleted():
                self._close(event.task_id, at, "done")
            case ev.EntityOperationFailed():
                self._close(event.task_id, at, "failed", str(event.failure))
            case ev.TaskCompleted() | ev.SubOrchestrationCompleted():
                self._close(event.task_id, at, "done")
            case ev.TaskFailed() | ev.SubOrchestrationFailed():
                self._close(event.task_id, at, "failed", str(event.failure))
            case ev.TaskCanceled():
                self._close(event.task_id, at, "canceled")
            case ev.TimerFired():
                self._close(event.timer_id, at, "done")
            case ev.TimerCanceled():
                self._close(event.timer_id, at, "canceled")
            case ev.WaitCanceled():
                self._stopped(event.wait_id, at)
            case ev.EventTaken():
                self._take(self.open.get(event.wait_id), at)
            case ev.EventRaised():
                self._raised(event.name.casefold(), at)
            case ev.EventRejected():
                self._rejected(event)
            case (
                ev.ExecutionTerminated()
                | ev.ExecutionFailed()
                | ev.ExecutionCompleted()
                | ev.ContinuedAsNew()
            ):
                self.cut_off = [span for span in self.open.values() if span.state == "open"]
                for span in self.cut_off:
                    span.close(at, "canceled")
            case ev.ExecutionRewound():
                self._rewind(event, at)
            case _:
                pass

    def _row(self, label: str, kind: str) -> TimelineRow:
        self.rows.append(TimelineRow(label, kind))
        return self.rows[-1]

    def _span(self, row: TimelineRow, event_id: int, kind: str, at: int) -> Span:
        span = Span(kind, at)
        row.spans.append(span)
        self.open[event_id] = span
        return span

    def _call(self, event_id: int, call: int, name: str, kind: str, at: int) -> TimelineRow:
        first = event_id if call < 0 else call
        row = self.calls.get(first) or self._row(name, kind)
        self.calls[first] = self.called[event_id] = row
        self._span(row, event_id, kind, at)
        return row

    def _timer(self, event: ev.TimerCreated, at: int) -> None:
        if event.purpose in ("timeout", "remind", "escalate"):
            return  # the wait or call already has a row
        row = self.calls.get(event.of) if event.purpose == "retry" else None
        kind = "timer" if row is None else "retry"
        self._span(row or self._row("timer", "timer"), event.id, kind, at)

    def _granted(self, lock_id: int, at: int) -> None:
        """Waiting for a lock and holding it are two spans of one row."""
        self.locks[lock_id] = self.locks.get(lock_id, 1) - 1
        waited = self.open.get(lock_id)
        if not self.locks[lock_id] and waited is not None:
            self._close(lock_id, at, "done")
            row = next(row for row in self.rows if waited in row.spans)
            self._span(row, lock_id, "entity", at)

    def _rewind(self, event: ev.ExecutionRewound, at: int) -> None:
        """Reopen the spans that the failure cut off, and begin the failed calls again."""
        for span in self.cut_off:
            span.end, span.state = None, "open"
        for task_id in event.voided:
            row = self.called.get(task_id)
            if row is not None:
                self._span(row, task_id, row.kind, at)

    def _await(self, event: ev.EventAwaited, at: int) -> None:
        span = self._span(self._row(event.name, "wait"), event.id, "wait", at)
        name = event.name.casefold()
        if self.buffered[name]:
            self.buffered[name] -= 1
            self._close(event.id, at, "done")
        else:
            self.waits[name].append(span)

    def _raised(self, name: str, at: int) -> None:
        waiting = [span for span in self.waits[name] if span.state == "open"]
        if not waiting:
            self.buffered[name] += 1
        elif len(waiting) == 1 or self.pairing == ev.OLDEST:
            waiting[0].close(at, "done")

    def _take(self, span: Span | None, at: int) -> None:
        if span is not None:
            span.close(at, "done")

    def _stopped(self, wait_id: int, at: int) -> None:
        """A wait was cancelled. If it had received an event that the code has not read, the next wait gets it."""
        span = self.open.get(wait_id)
        if span is None or span.state != "done":
            self._close(wait_id, at, "canceled")
            return
        span.state = "canceled"
        self._raised(next((name for name, spans in self.waits.items() if span in spans), ""), at)

    def _rejected(self, event: ev.EventRejected) -> None:
        for span in self.waits[event.name.casefold()]:
            if self.open.get(event.wait_id) is span:
                span.end, span.state, span.note = None, "open", f"rejected: {event.reason}"

    def _close(self, event_id: int, at: int, state: str, note: str = "") -> None:
        span = self.open.pop(event_id, None)
        if span is not None and span.state == "open":
            span.close(at, state, note)


__all__ = ["Axis", "Bar", "Span", "Timeline", "TimelineRow", "has_thin", "timeline_of"]
