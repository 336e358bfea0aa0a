"""The timeline of an instance: history as rows of spans on one time axis.

A row is a logical call, a timer, a wait for an event or a sub-orchestration. The attempts of a retried activity share
a row, with the pauses between them. A span without an end extends to the present.
Many rows of one name, as those of a fan-out, are one line with their numbers; the open and the failed ones follow it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.http.pages.time_axis import Axis
from perdure.model import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perdure.model.events import HistoryEvent

ROWS = 150
MANY = 8  # rows of one name that become one line
NAMED = 5  # open or failed ones that follow this line
_TROUBLE = ("open", "failed", "canceled", "done")
_BUSY = frozenset(("activity", "entity"))


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


@dataclass(frozen=True)
class Tally:
    """How many rows of one name are in which state, and how long those that are done took, in seconds, in order."""

    states: Mapping[str, int]
    seconds: Sequence[float]

    @property
    def total(self) -> int:
        return sum(self.states.values())

    def quantile(self, share: float) -> float:
        """How long this share of those that are done took at most, in seconds."""
        return self.seconds[min(int(share * len(self.seconds)), len(self.seconds) - 1)]


@dataclass
class TimelineRow:
    """One row of the timeline: one call, timer or wait, or with a `tally` many of one name.

    `instance_id` is that of a sub-orchestration. `is_member` marks a row below the line of its name.
    """

    label: str
    kind: str
    spans: list[Span] = field(default_factory=list)
    instance_id: str = ""
    tally: Tally | None = None
    is_member: bool = False

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
    children: tuple[TimelineRow, ...]
    axis: Axis

    def bars(self, row: TimelineRow) -> list[Bar]:
        """The positions of a row's spans on the axis."""
        return [self._bar(span) for span in row.spans]

    def _bar(self, span: Span) -> Bar:
        x = self.axis.place(span.start)
        width = self.axis.place(self.end if span.end is None else span.end) - x
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


def timeline_of(history: Iterable[tuple[int, HistoryEvent]], now: int, *, only: str = "") -> Timeline | None:
    """The timeline of one execution, or None if it has no spans. Times are in microseconds.

    Many rows of one name are one line, unless `only` names it; then its rows are all that is shown.
    """
    draft = _Draft()
    times: list[int] = []
    ended = False
    for at, event in history:
        times.append(at)
        ended = isinstance(event, ev.Ending) or (ended and not isinstance(event, ev.ExecutionRewound))
        draft.apply(at, event)
    rows = draft.rows
    if only:
        rows = _named(rows, only)
    if not rows:
        return None
    start, end = times[0], (times[-1] if ended else max(now, times[-1]))
    end = max(end, start + 1)
    lines = rows if only else _grouped(rows, end)
    axis = Axis(sorted({start, end, *(at for at in times if start <= at <= end)}), _idle_in(draft.rows, end))
    children = tuple(row for row in draft.rows if row.instance_id)
    return Timeline(tuple(lines[:ROWS]), start, end, max(0, len(lines) - ROWS), children, axis)


def _idle_in(rows: Iterable[TimelineRow], end: int) -> Callable[[int, int], bool]:
    """Whether no activity and no operation of an entity runs in a stretch."""
    busy: list[list[int]] = []
    spans = (span for row in rows for span in row.spans if span.kind in _BUSY)
    for since, until in sorted((span.start, end if span.end is None else span.end) for span in spans):
        if busy and since <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], until)
        else:
            busy.append([since, until])
    starts = [since for since, _ in busy]

    def is_idle(begin: int, until: int) -> bool:
        at = bisect_right(starts, begin) - 1
        return not (at >= 0 and busy[at][1] > begin) and not (at + 1 < len(busy) and starts[at + 1] < until)

    return is_idle


def _named(rows: Sequence[TimelineRow], only: str) -> list[TimelineRow]:
    """The rows of one name, the open and the failed ones first."""
    return sorted((row for row in rows if row.label == only), key=lambda row: _TROUBLE.index(row.state))


def _grouped(rows: Sequence[TimelineRow], now: int) -> list[TimelineRow]:
    """The rows, with a line for all of one name where there are many. Those that are open or failed follow it."""
    counts = Counter((row.kind, row.label) for row in rows)
    members: dict[tuple[str, str], list[TimelineRow]] = defaultdict(list)
    lines: list[TimelineRow | tuple[str, str]] = []
    for row in rows:
        named = row.kind, row.label
        if counts[named] < MANY:
            lines.append(row)
            continue
        if named not in members:
            lines.append(named)
        members[named].append(row)
    found: list[TimelineRow] = []
    for line in lines:
        found += [line] if isinstance(line, TimelineRow) else _line_of(members[line], now)
    return found


def _line_of(members: Sequence[TimelineRow], now: int) -> list[TimelineRow]:
    first = members[0]
    states = Counter(row.state for row in members)
    worst = next(state for state in _TROUBLE if states[state])
    ends = [now if span.end is None else span.end for row in members for span in row.spans]
    line = TimelineRow(
        first.label, first.kind, [Span(first.kind, min(r.spans[0].start for r in members), max(ends), worst)]
    )
    line.tally = Tally(dict(states), sorted(row.lasted(now) for row in members if row.state == "done"))
    troubled = sorted(
        (row for row in members if row.state in ("open", "failed")), key=lambda row: _TROUBLE.index(row.state)
    )
    for row in troubled[:NAMED]:
        row.is_member = True
    return [line, *troubled[:NAMED]]


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


__all__ = ["Bar", "Span", "Tally", "Timeline", "TimelineRow", "timeline_of"]
