"""Whether a command said what the page shows. Only what is stable counts.

Instants, ages, durations, made-up ids, attempts and the server's port are the same whatever their digits, white
space is one space, and `...` stands for anything. JSON is compared as JSON: what the page shows must be there.
"""

from __future__ import annotations

import json
import re
from typing import Any

_VARIABLE = (
    (re.compile(r"\x1b\[[0-9;?]*[A-Za-z]"), ""),
    (re.compile(r"^[\u2800-\u28ff].*"), ""),  # a line that turned while something was going on
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( UTC|Z|\+00:00)?"), "<instant>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{8}-\d+\b"), "<execution>"),
    (re.compile(r"just now|(in |\+)?\b[\d.]+ (µs|ms|s|min|h|days?)\b( \d+ (s|min|h)\b)?( ago)?"), "<age>"),
    (re.compile(r"(localhost|127\.0\.0\.1):\d+"), "<server>"),
    (re.compile(r"\bpid \d+\b"), "pid <pid>"),
    (re.compile(r"\battempt \d+\b"), "attempt <n>"),
)


def is_like(shown: str, said: str) -> bool:
    """Whether the output `said` is what the page has `shown`."""
    expected, found = _json(shown), _json(said)
    if expected is not None and found is not None:
        return _within(expected, found)
    got = "".join(f"{line}\n" for line in _lines(said))
    return re.fullmatch(_pattern(_lines(shown)), got) is not None


def _lines(text: str) -> list[str]:
    return [line for line in map(_stable, text.splitlines()) if line]


def _stable(text: str) -> str:
    for variable, name in _VARIABLE:
        text = variable.sub(name, text)
    return " ".join(text.split())


def _pattern(lines: list[str]) -> str:
    """`...` on a line of its own stands for any lines, inside a line for any text."""
    parts = []
    for line in lines:
        if line in ("...", "…"):
            parts.append(r"(?:.*\n)*")
        else:
            parts.append(r".*?".join(re.escape(part) for part in re.split(r"\.\.\.|…", line)) + r"\n")
    return "".join(parts)


def _json(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict | list) else None


def _within(shown: Any, said: Any) -> bool:
    match shown, said:
        case dict(), dict():
            return all(name in said and _within(value, said[name]) for name, value in shown.items())
        case list(), list():
            return len(shown) == len(said) and all(map(_within, shown, said))
        case str(), str():
            return re.fullmatch(_pattern([_stable(shown)]), f"{_stable(said)}\n") is not None
        case _:
            return shown == said and type(shown) is type(said)
