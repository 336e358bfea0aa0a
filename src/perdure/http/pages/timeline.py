"""The timeline of an instance: history as rows of spans on one time axis.

A row is a logical call, a timer, a wait for an event or a sub-orchestration. The attempts of a retried activity share
a row, with the pauses between them. A span without an end extends to the present.
Rows of one name are a group, so that an instance of ten thousand activities is one screen. What failed and what is
open comes first. The axis is in `perdure.http.pages.time_axis`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING, Final

from perdure.http.formatting import without_module
from perdure.http.pages.time_axis import TimeAxis, idle_stretches
from perdure.model import events as ev

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from perdure.model.events import HistoryEvent

ROWS: Final = 100
BAD_ROWS: Final = 20  # of a group that is not opened
GROUPED_FROM: Final = 3
BLOCKS: Final = 60
TOO_THIN: Final = 0.01  # of the axis
_URGENCY: Final = {"failed": 0, "open": 1}


@dataclass
class Span:
    """A period of time. `state` is done, failed, open or canceled, `kind` is activity, retry and so on."""

    kind: str
    start: int
    end: int | None = None
    state: str = "open"
    note: str = ""
    due: int = 0  # of a timer, in microseconds

    def close(self, at: int, state: str, note: str = "") -> None:
        self.end, self.state = at, state
        self.note = note or self.note


@dataclass
class TimelineRow:
    """One row of the timeline. `instance_id` is that of a sub-orchestration.

    `first` is the number of its first event in the history, `place` its place in its group, from 1; else 0.
    """

    label: str
    kind: str
    spans: list[Span] = field(default_factory=list)
    instance_id: str = ""
    first: int = 0
    place: int = 0

    @property
    def state(self) -> str:
        return self.spans[-1].state if self.spans else "open"

    @property
    def attempts(self) -> int:
        return sum(span.kind == self.kind for span in self.spans)

    @property
    def tries(self) -> list[Span]:
        """The attempts of the call."""
        return [span for span in self.spans if span.kind == self.kind]

    @property
    def again_at(self) -> int:
        """The time of the next attempt in microseconds, or 0 if none is planned."""
        last = self.spans[-1] if self.spans else None
        return last.due if last is not None and last.kind == "retry" and last.state == "open" else 0

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
class Block:
    """A block of a group's density: position and width in percent, height in pixels."""

    x: float
    width: float
    height: int
    has_failed: bool


@dataclass(frozen=True)
class Group:
    """Rows of the same name and kind, told in one line."""

    label: str
    kind: str
    rows: tuple[TimelineRow, ...]
    chosen: tuple[TimelineRow, ...]
    is_chosen: bool = False

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter(row.state for row in self.rows)

    @property
    def state(self) -> str:
        return next((state for state in ("failed", "open", "canceled") if self.counts[state]), "done")

    @cached_property
    def _lengths(self) -> list[float]:
        return sorted(row.lasted(0) for row in self.rows if row.state == "done")

    def percentile(self, share: int) -> float | None:
        """Seconds within which `share` percent of the finished calls were done."""
        lengths = self._lengths
        return lengths[max(0, ceil(len(lengths) * share / 100) - 1)] if lengths else None


@dataclass(frozen=True)
class View:
    """How a timeline is looked at.

    `idle` is show or hide; "" hides idle time where a bar would be too thin. `since` and `until` choose a part, in
    seconds after the start. `group` and `kind` open one group, `sort` puts its slowest first, `skip` leaves rows out.
    """

    idle: str = ""
    order: str = "bad"
    since: float = 0.0
    until: float = 0.0
    group: str = ""
    kind: str = ""
    sort: str = ""
    skip: int = 0
    execution: int = 0  # of an eternal orchestration; 0 for the current one


@dataclass(frozen=True)
class Timeline:
    """Lines on a time axis. `begun` and `end` are those of the instance, in microseconds."""

    lines: tuple[TimelineRow | Group, ...]
    begun: int
    end: int
    left_out: int
    can_hide: bool
    axis: TimeAxis
    view: View
    rows: tuple[TimelineRow, ...]

    @property
    def hides_idle(self) -> bool:
        return bool(self.axis.cuts)

    @property
    def hidden(self) -> float:
        """Seconds of idle time that are cut out."""
        return sum(piece.end - piece.start for piece in self.axis.cuts) / 1e6

    @property
    def is_part(self) -> bool:
        return (self.axis.start, self.axis.end) != (self.begun, self.end)

    def bars(self, row: TimelineRow) -> list[Bar]:
        """The positions of a row's spans on the axis."""
        return [self._bar(span) for span in row.spans if self._is_shown(span)]

    def elsewhere(self, row: TimelineRow) -> str:
        """Whether a row is outside the part that is shown: "before", "after" or ""."""
        if any(self._is_shown(span) for span in row.spans):
            return ""
        return "before" if row.spans[-1].start < self.axis.start else "after"

    def density(self, group: Group) -> list[Block]:
        """How many calls of a group were under way in each part of the axis, and where calls failed."""
        edges = [0] * (BLOCKS + 1)
        failed: set[int] = set()
        for row in group.rows:
            for span in row.spans:
                if span.kind != group.kind or not self._is_shown(span):
                    continue
                first = self._block(span.start)
                last = self._block(self._end(span))
                edges[first] += 1
                edges[last + 1] -= 1
                if span.state == "failed":
                    failed.add(last)
        running = list(accumulate(edges[:-1]))
        most = max(running, default=0) or 1
        wide = 100 / BLOCKS
        return [
            Block(at * wide, wide * 0.86, max(3, round(14 * count / most)), at in failed)
            for at, count in enumerate(running)
            if count
        ]

    def _block(self, at: int) -> int:
        return min(int(self.axis.place(at) * BLOCKS / 100), BLOCKS - 1)

    def _end(self, span: Span) -> int:
        return self.end if span.end is None else span.end

    def _is_shown(self, span: Span) -> bool:
        return span.start <= self.axis.end and self._end(span) >= self.axis.start

    def _bar(self, span: Span) -> Bar:
        x = self.axis.place(span.start)
        width = max(self.axis.place(self._end(span)) - x, 0.6)
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
        return self.axis.ticks()


def timeline_of(
    history: Iterable[tuple[int, HistoryEvent]], now: int, view: View = View()
) -> Timeline | None:
    """The timeline of one execution, or None if it has no spans. Times are in microseconds."""
    draft = _Draft()
    times: list[int] = []
    ended = False
    for number, (at, event) in enumerate(history):
        times.append(at)
        ended = isinstance(event, ev.Ending) or (ended and not isinstance(event, ev.ExecutionRewound))
        draft.number = number
        draft.apply(at, event)
    if not draft.rows:
        return None
    start, end = times[0], (times[-1] if ended else max(now, times[-1]))
    end = max(end, start + 1)
    idle = idle_stretches(_busy(draft.rows, times, end), start, end)
    axis = _axis(draft.rows, start, end, idle, view)
    lines = _grouped(draft.rows, view)
    if view.order == "bad":
        lines.sort(key=lambda line: _URGENCY.get(line.state, 2))
    skip = 0 if view.group else view.skip
    shown = lines[skip : skip + ROWS]
    left_out = max(0, len(lines) - skip - len(shown))
    return Timeline(tuple(shown), start, end, left_out, bool(idle), axis, view, tuple(draft.rows))


def _busy(rows: Iterable[TimelineRow], times: Iterable[int], end: int) -> list[tuple[int, int]]:
    """When something ran or happened. Waits, timers, pauses and children are no work of this instance."""
    ran = [
        (span.start, end if span.end is None else span.end)
        for row in rows
        for span in row.spans
        if span.kind in ("activity", "entity")
    ]
    return [*ran, *((at, at) for at in times)]


def _axis(
    rows: Iterable[TimelineRow], start: int, end: int, idle: Sequence[tuple[int, int]], view: View
) -> TimeAxis:
    since = min(max(start, start + round(view.since * 1e6)), end - 1)
    until = min(end, start + round(view.until * 1e6)) if view.until > view.since else end
    until = max(until, since + 1)
    closed = ((s.start, s.end) for row in rows for s in row.spans if s.end is not None)
    least = TOO_THIN * (until - since)
    hides = view.idle == "hide" or (view.idle == "" and any(0 < b - a < least for a, b in closed))
    cuts = [(max(a, since), min(b, until)) for a, b in idle if a < until and b > since] if hides else []
    return TimeAxis(since, until, cuts)


def _grouped(rows: Sequence[TimelineRow], view: View) -> list[TimelineRow | Group]:
    """Rows of one name and kind as a group at the place of the first one, from `GROUPED_FROM` on."""
    of: dict[tuple[str, str], list[TimelineRow]] = {}
    for row in rows:
        of.setdefault((row.label, row.kind), []).append(row)
    lines: list[TimelineRow | Group] = []
    for (label, kind), alike in of.items():
        if len(alike) < GROUPED_FROM:
            lines += alike
            continue
        for place, row in enumerate(alike, 1):
            row.place = place
        is_chosen = (label, kind) == (view.group, view.kind)
        lines.append(Group(label, kind, tuple(alike), _chosen(alike, view if is_chosen else None), is_chosen))
    lines.sort(key=lambda line: (line.rows[0] if isinstance(line, Group) else line).first)
    return lines


def _chosen(rows: Sequence[TimelineRow], view: View | None) -> tuple[TimelineRow, ...]:
    """The rows of a group that the page shows: those that failed or are open, or the page that was asked for."""
    if view is None:
        bad = [row for row in rows if row.state in _URGENCY]
        return tuple(sorted(bad, key=lambda row: _URGENCY[row.state])[:BAD_ROWS])
    ordered = (
        sorted(rows, key=lambda row: -row.lasted(row.spans[0].start)) if view.sort == "slowest" else rows
    )
    return tuple(ordered[view.skip : view.skip + ROWS])


class _Draft:
    """The rows while the history is being read."""

    def __init__(self) -> None:
        self.number = 0
        self.rows: list[TimelineRow] = []
        self.rows_of: dict[int, TimelineRow] = {}  # by the id of a span
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
                self._close(event.task_id, at, "failed", without_module(str(event.failure)))
            case ev.TaskCompleted() | ev.SubOrchestrationCompleted():
                self._close(event.task_id, at, "done")
            case ev.TaskFailed() | ev.SubOrchestrationFailed():
                self._close(event.task_id, at, "failed", without_module(str(event.failure)))
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
        self.rows.append(TimelineRow(label, kind, first=self.number))
        return self.rows[-1]

    def _span(self, row: TimelineRow, event_id: int, kind: str, at: int) -> Span:
        span = Span(kind, at)
        row.spans.append(span)
        self.open[event_id] = span
        self.rows_of[id(span)] = row
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
        self._span(row or self._row("timer", "timer"), event.id, kind, at).due = event.fire_at

    def _granted(self, lock_id: int, at: int) -> None:
        """Waiting for a lock and holding it are two spans of one row."""
        self.locks[lock_id] = self.locks.get(lock_id, 1) - 1
        waited = self.open.get(lock_id)
        if not self.locks[lock_id] and waited is not None:
            self._close(lock_id, at, "done")
            row = self.rows_of[id(waited)]
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


__all__ = ["Bar", "Block", "Group", "Span", "Timeline", "TimelineRow", "View", "timeline_of"]
