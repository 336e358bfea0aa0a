"""Values as people read them on a page: instants, durations, JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from perdure.failure import chain_of
from perdure.model.http_calls import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from perdure.model.instances import OrchestrationStatus

SHOWN = 20_000  # characters of one value on a page
_UNITS = ((86_400.0, "day"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


class ShortenedJson(NamedTuple):
    """A value as indented JSON, and how many characters of it were left out."""

    text: str
    left_out: int


def plain(text: str, also: str = "\n\t") -> str:
    """Text without what a terminal would take for a command, and what a page would show as other than it is."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in also else f"\\x{ord(c):02x}" for c in text)


def ago(at: datetime, now: datetime) -> str:
    """How long before (or after) `now` an instant is: "3 min ago", "in 2 days", "just now"."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 2:
        return "just now"
    return f"in {_nearest(-seconds)}" if seconds < 0 else f"{_largest(seconds)} ago"


def lasting(seconds: float) -> str:
    """A duration to two units: "840 µs", "12 ms", "1.4 s", "3 min 20 s", "2 days 4 h"."""
    if seconds <= 0:
        return "0 s"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return _largest(seconds, units=2)


def exact(at: datetime) -> str:
    """An instant to the millisecond, for a title."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def sentence(text: str) -> str:
    """What an error says, as a sentence of a page."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?', ':')) else '.'}" if text else ""


def went_wrong(one: OrchestrationStatus) -> str:
    """Why an instance failed, on one line; "" for one that did not.

    What is built in only carries somebody's function: there the function's own error is the reason.
    """
    if one.failure is None:
        return ""
    shown = chain_of(one.failure)[-1] if one.name.startswith(BUILT_IN) else one.failure
    return str(shown).removeprefix("perdure.errors.")


def wall_clock(at: datetime, timezone: str) -> str:
    """An instant as a clock in a time zone shows it: "Fri 27 Nov 2026, 02:00"."""
    local = at.astimezone(ZoneInfo(timezone))
    seconds = f":{local:%S}" if local.second else ""
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M}{seconds}"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers with those that follow each other drawn together: "0-3, 7, 9-10"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def pretty(value: Any, limit: int = SHOWN) -> ShortenedJson:
    """A JSON-ready value, indented. What is longer than a page can show is cut, and said to be."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return ShortenedJson(text[:limit], max(0, len(text) - limit))


def compact(value: Any, limit: int = 140) -> str:
    """A JSON-ready value on one line, with its end cut off when it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _nearest(seconds: float) -> str:
    """A duration to come, rounded: what ends in ninety days less a second ends in ninety days."""
    size = next(size for size, _ in _UNITS if seconds >= size)
    return _largest(round(seconds / size) * size)


def _largest(seconds: float, units: int = 1) -> str:
    parts: list[str] = []
    rest = round(seconds)
    for size, name in _UNITS:
        count = int(rest // size)
        if count and (not parts or len(parts) < units):
            parts.append(f"{count} {name}{'s' if name == 'day' and count > 1 else ''}")
            rest -= int(count * size)
        elif parts:
            break
    return " ".join(parts[:units]) or "0 s"
