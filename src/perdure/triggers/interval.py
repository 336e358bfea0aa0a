"""Intervals as schedules: `hh:mm:ss`, as in a TimeSpan of Azure. Pure, the clock is an argument.

The ticks are the multiples of the interval since 1970 (UTC), so that they do not depend on when a worker has started:
`00:05:00` fires at each full five minutes. As in .NET, an hour of 24 or more makes the text `dd:hh:mm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from itertools import count
from typing import Final

from perdure.triggers.ticks import Ticks

_FORM: Final = re.compile(
    r"(?:(?P<days>\d{1,5})\.)?(?P<first>\d{1,2}):(?P<second>\d{1,2}):(?P<third>\d{1,2})"
)
_HOURS, _SIXTY, _SECOND = 24, 60, 1_000_000


@dataclass(frozen=True)
class Interval(Ticks):
    """The same time between all ticks, as text. Raises ValueError for a text that is no interval."""

    text: str

    def __post_init__(self) -> None:
        if not self.length:
            raise ValueError(f"the interval {self.text!r} is 0: a schedule needs at least one second")

    @cached_property
    def length(self) -> int:
        """Microseconds between two ticks."""
        found = _FORM.fullmatch(self.text.strip())
        parts = [int(found[name]) for name in ("first", "second", "third")] if found is not None else []
        if found is None or max(parts[1:]) >= _SIXTY or (parts[0] >= _HOURS and found["days"]):
            raise ValueError(f"{self.text!r} is no interval: write hh:mm:ss or d.hh:mm:ss, such as 00:05:00")
        if parts[0] >= _HOURS:
            days, hours, minutes = parts
            return _micros(timedelta(days=days, hours=hours, minutes=minutes))
        hours, minutes, seconds = parts
        return _micros(timedelta(days=int(found["days"] or 0), hours=hours, minutes=minutes, seconds=seconds))

    def ticks(self, after: int) -> Iterator[int]:
        """Every tick later than `after`, in microseconds since 1970 (UTC)."""
        return count((after // self.length + 1) * self.length, self.length)

    def explain(self) -> str:
        """The interval in words, such as "Every 0:05:00"."""
        return f"Every {timedelta(microseconds=self.length)}"


def is_interval(expression: str) -> bool:
    """Whether a schedule's expression is an interval and no cron expression."""
    return ":" in expression


def _micros(length: timedelta) -> int:
    return length // timedelta(seconds=1) * _SECOND


__all__ = ["Interval", "is_interval"]
