"""History in short: one line for a call with its end, and one for many calls of one name that ended alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from perdure.http.pages.history_lines import BAD, HistoryLine, lines_of
from perdure.model import events as ev

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from perdure.model.events import HistoryEvent

MANY: Final = 8  # calls of one name in a row that become one line
_OPENED: Final[dict[type, str]] = {
    ev.TaskScheduled: "activity",
    ev.SubOrchestrationCreated: "sub-orchestration",
    ev.TimerCreated: "timer",
    ev.EventAwaited: "event awaited",
    ev.EntityCalled: "entity",
    ev.LockRequested: "lock",
}
_CLOSED: Final[dict[type, tuple[str, str]]] = {
    ev.TaskCompleted: ("task_id", "done"),
    ev.TaskFailed: ("task_id", "failed"),
    ev.TaskCanceled: ("task_id", "canceled"),
    ev.SubOrchestrationCompleted: ("task_id", "done"),
    ev.SubOrchestrationFailed: ("task_id", "failed"),
    ev.EntityOperationCompleted: ("task_id", "done"),
    ev.EntityOperationFailed: ("task_id", "failed"),
    ev.TimerFired: ("timer_id", "fired"),
    ev.TimerCanceled: ("timer_id", "canceled"),
    ev.WaitCanceled: ("wait_id", "canceled"),
    ev.EventTaken: ("wait_id", "taken"),
    ev.LockReleased: ("lock_id", "released"),
}


@dataclass(frozen=True)
class CompactLine:
    """A call, timer or wait with its end, or an event that stays alone.

    `lasted` is in seconds, None while it is open or without an end. `count` is above 1 for many of one name.
    """

    number: int
    at: datetime
    what: str
    about: str
    tone: str
    state: str = ""
    lasted: float | None = None
    given: Any = None
    result: Any = None
    count: int = 1


def compact_lines(history: Sequence[tuple[int, HistoryEvent]]) -> list[CompactLine]:
    """The history in short, in the order in which things began."""
    lines = lines_of(history)
    ends = _ends(history, lines)
    unfinished = "canceled" if history and isinstance(history[-1][1], ev.Ending) else "open"
    told = (
        (line, event) for (_, event), line in zip(history, lines, strict=True) if type(event) not in _CLOSED
    )
    return list(_folded([_line(line, event, ends, unfinished) for line, event in told]))


def _ends(
    history: Sequence[tuple[int, HistoryEvent]], lines: Sequence[HistoryLine]
) -> dict[int, tuple[HistoryLine, HistoryEvent]]:
    """What ended each call, by the call's id. An attempt that a rewind repeats ends with the last of its ends."""
    found: dict[int, tuple[HistoryLine, HistoryEvent]] = {}
    for (_, event), line in zip(history, lines, strict=True):
        closes = _CLOSED.get(type(event))
        if closes is not None:
            found[getattr(event, closes[0])] = (line, event)
    return found


def _line(
    line: HistoryLine,
    event: HistoryEvent,
    ends: dict[int, tuple[HistoryLine, HistoryEvent]],
    unfinished: str,
) -> CompactLine:
    what = _OPENED.get(type(event))
    if what is None:
        return CompactLine(line.number, line.at, line.kind, line.about, line.tone, given=line.body)
    opened = CompactLine(line.number, line.at, what, line.about, "decision", given=line.body)
    end = ends.get(event.id)  # type: ignore[union-attr]
    if end is None:
        return replace(opened, state=unfinished)
    last, closing = end
    state = _CLOSED[type(closing)][1]
    about = f"{line.about}: {closing.failure}" if state == "failed" else line.about  # type: ignore[union-attr]
    return replace(
        opened,
        about=about,
        tone="bad" if isinstance(closing, BAD) else "plain",
        state=state,
        lasted=(last.at - line.at).total_seconds(),
        result=last.body,
    )


def _folded(lines: Sequence[CompactLine]) -> Iterator[CompactLine]:
    for (what, about, state), run in groupby(lines, key=lambda line: (line.what, line.about, line.state)):
        same = list(run)
        if state not in ("done", "canceled") or len(same) < MANY:
            yield from same
            continue
        ends = [line.at.timestamp() + (line.lasted or 0.0) for line in same]
        lasted = max(ends) - same[0].at.timestamp()
        yield CompactLine(same[0].number, same[0].at, what, about, "plain", state, lasted, count=len(same))


__all__ = ["CompactLine", "compact_lines"]
