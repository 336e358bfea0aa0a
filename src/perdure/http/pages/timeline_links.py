"""The addresses of an instance's page: which part of its timeline it shows, in which order, and which group is open.

Every choice is a link with parameters, so that the page works without script and an address can be passed on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from perdure.http.pages.timeline import ROWS, Timeline, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.http.pages.timeline import Group

_LONGEST: Final = 1e10  # seconds, some three hundred years
_MOST: Final = 10_000_000  # rows to leave out


def view_of(query: Mapping[str, str]) -> View:
    """The view that an address asks for. What it says wrongly counts as not said."""
    return View(
        idle=_one_of(query.get("idle", ""), ("show", "hide")),
        order=_one_of(query.get("order", ""), ("start",)) or "bad",
        since=_seconds(query.get("from", "")),
        until=_seconds(query.get("to", "")),
        group=query.get("group", ""),
        kind=query.get("kind", ""),
        sort=_one_of(query.get("sort", ""), ("slowest",)),
        skip=count_of(query.get("skip", "")),
        execution=count_of(query.get("execution", "")),
    )


def count_of(text: str) -> int:
    """A number of rows in an address; 0 if it is none."""
    return min(int(text), _MOST) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _one_of(text: str, known: tuple[str, ...]) -> str:
    return text if text in known else ""


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if isfinite(seconds) and 0 <= seconds < _LONGEST else 0.0


@dataclass(frozen=True)
class Links:
    """Links from one view of a timeline to others."""

    here: str
    view: View

    def to(self, **changed: Any) -> str:
        """The address of this view with some of its parts changed."""
        view = replace(self.view, **changed)
        query = {
            "idle": view.idle,
            "order": "start" if view.order == "start" else "",
            "from": f"{view.since:.6f}" if view.since else "",
            "to": f"{view.until:.6f}" if view.until else "",
            "group": view.group,
            "kind": view.kind,
            "sort": view.sort,
            "skip": str(view.skip or ""),
            "execution": str(view.execution or ""),
        }
        asked = urlencode({name: value for name, value in query.items() if value})
        return f"{self.here}?{asked}#timeline" if asked else f"{self.here}#timeline"

    def part(self, timeline: Timeline, since: int, until: int) -> str:
        """Zoom into a part, from and to in microseconds."""
        return self.to(since=(since - timeline.begun) / 1e6, until=(until - timeline.begun) / 1e6)

    def whole(self) -> str:
        return self.to(since=0.0, until=0.0)

    def wider(self, timeline: Timeline) -> str:
        """Zoom out: twice the length around the same middle."""
        axis = timeline.axis
        more = (axis.end - axis.start) // 2
        since, until = max(timeline.begun, axis.start - more), min(timeline.end, axis.end + more)
        if (since, until) == (timeline.begun, timeline.end):
            return self.whole()
        return self.part(timeline, since, until)

    def moved(self, timeline: Timeline, parts: int) -> str:
        """Half a part earlier (-1) or later (1); "" at the edge."""
        axis = timeline.axis
        length = axis.end - axis.start
        since = min(max(timeline.begun, axis.start + parts * length // 2), timeline.end - length)
        return "" if since == axis.start else self.part(timeline, since, since + length)

    def group(self, group: Group, sort: str = "", skip: int = 0) -> str:
        """All calls of a group."""
        return self.to(group=group.label, kind=group.kind, sort=sort, skip=skip)

    def closed(self) -> str:
        return self.to(group="", kind="", sort="", skip=0)

    def more(self) -> str:
        return self.to(skip=self.view.skip + ROWS)


__all__ = ["Links", "count_of", "view_of"]
