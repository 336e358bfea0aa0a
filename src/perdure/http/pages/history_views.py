"""The history of an instance in two forms: in short, with one line for a call or for many calls, and in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from perdure.http.pages.compact_history import compact_lines
from perdure.http.pages.history_lines import lines_of
from perdure.http.pages.timeline_links import count_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perdure.model.events import HistoryEvent

LINES: Final = 500


@dataclass(frozen=True)
class HistoryView:
    """What the page shows of a history of `total` events: `lines` in the form that the address asks for.

    The other fields are links: to the two forms, to earlier lines ("" if there are none) and to later ones.
    """

    is_full: bool
    lines: Sequence[Any]
    total: int
    in_short: str
    in_full: str
    earlier: str
    later: str


def history_of(
    history: Sequence[tuple[int, HistoryEvent]], query: Mapping[str, str], here: str
) -> HistoryView:
    """The history as the address asks for it: `history` is the form, `before` the end of the part that is shown."""
    is_full = query.get("history") == "full"
    number = count_of(query.get("execution", ""))
    execution = {"execution": str(number)} if number else {}
    form = {**execution, **({"history": "full"} if is_full else {})}
    told = compact_lines(history) if not is_full else None
    total = len(history) if told is None else len(told)
    end = min(count_of(query.get("before", "")) or total, total)
    since = max(0, end - LINES)
    lines = told[since:end] if told is not None else lines_of(history, since, end)
    return HistoryView(
        is_full,
        lines,
        len(history),
        _address(here, execution),
        _address(here, {**execution, "history": "full"}),
        _address(here, {**form, "before": str(since)}) if since else "",
        _address(here, {**form, "before": str(end + LINES)}) if end < total else "",
    )


def _address(here: str, asked: Mapping[str, str]) -> str:
    return f"{here}?{urlencode(asked)}#history" if asked else f"{here}#history"


__all__ = ["HistoryView", "history_of"]
