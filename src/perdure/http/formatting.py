"""Formats values for people: times, durations, JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from perdure.failure import chain_of
from perdure.model.http_calls import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from perdure.model.instances import OrchestrationStatus

SHOWN = 20_000  # characters of one value on a page
_UNITS = ((86_400.0, "day"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))


class ShortenedJson(NamedTuple):
    """A value as indented JSON, and the number of characters that were cut off."""

    text: str
    left_out: int


def plain(text: str, also: str = "\n\t") -> str:
    """Escape the characters that a terminal would execute or a page would show misleadingly."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in also else f"\\x{ord(c):02x}" for c in text)


def ago(at: datetime, now: datetime) -> str:
    """The distance of a time from `now`: "3 min ago", "in 2 days", "just now"."""
    seconds = (now - at).total_seconds()
    if abs(seconds) < 2:
        return "just now"
    return f"in {_nearest(-seconds)}" if seconds < 0 else f"{_largest(seconds)} ago"


def lasting(seconds: float) -> str:
    """A duration in at most two units: "840 µs", "12 ms", "1.4 s", "3 min 20 s", "2 days 4 h"."""
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
    """A time with milliseconds."""
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} UTC"


def sentence(text: str) -> str:
    """The message of an error as a sentence: with a capital letter and a full stop."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?', ':')) else '.'}" if text else ""


def went_wrong(one: OrchestrationStatus) -> str:
    """Why an instance failed, on one line; "" if it did not fail.

    A built-in orchestrator only runs a user's function, so the function's own error is the reason.
    """
    if one.failure is None:
        return ""
    shown = chain_of(one.failure)[-1] if one.name.startswith(BUILT_IN) else one.failure
    return str(shown).removeprefix("perdure.errors.")


def without_module(error: str) -> str:
    """An error as `Type: message`, without the module of its type."""
    kind, colon, message = error.partition(": ")
    is_type = all(part.isidentifier() for part in kind.split("."))
    return f"{kind.rpartition('.')[2]}{colon}{message}" if is_type else error


def in_short(value: Any, limit: int = 160) -> str:
    """A JSON-ready value in a few words: a text without quotes, an object as names with values."""
    if isinstance(value, str):
        return value[:limit]
    if not isinstance(value, dict) or not value:
        return compact(value, limit)
    told = ", ".join(f"{name} {one}" for name, one in _flat(value) if one not in (None, "", [], {}))
    return told if len(told) <= limit else told[: limit - 1] + "…"


def _flat(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, one in value.items():
        if isinstance(one, dict):
            yield from _flat(one)
        else:
            yield name, compact(one, 60) if isinstance(one, list) else one


def wall_clock(at: datetime, timezone: str) -> str:
    """A time in a time zone: "Fri 27 Nov 2026, 02:00"."""
    local = at.astimezone(ZoneInfo(timezone))
    seconds = f":{local:%S}" if local.second else ""
    return f"{local:%a} {local.day} {local:%b %Y, %H:%M}{seconds}"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as ranges: "0-3, 7, 9-10"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def pretty(value: Any, limit: int = SHOWN) -> ShortenedJson:
    """A JSON-ready value as indented JSON, cut off at `limit` characters."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    return ShortenedJson(text[:limit], max(0, len(text) - limit))


def compact(value: Any, limit: int = 140) -> str:
    """A JSON-ready value on one line, cut off at `limit` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _nearest(seconds: float) -> str:
    """A future duration, rounded: ninety days less a second is ninety days."""
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
