"""Cron expressions with a time zone: the ticks after a given time. Pure, the clock is an argument.

An expression has five fields (minute hour day month weekday) or six with seconds first, as in Azure's NCRONTAB. When
clocks change, both forms follow the rules of Debian's cron. A schedule with explicit minutes and hours has fixed
times. A fixed time inside the spring gap fires once, at the end of the gap, and a fixed time that autumn repeats
fires once. A schedule whose minute or hour begins with `*` is an interval. It follows elapsed time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from perdure.model.durations import instant, moment
from perdure.triggers.ticks import Ticks

SECOND = 1_000_000  # microseconds


@dataclass(frozen=True)
class Cron(Ticks):
    """A cron expression in a time zone.

    Raises ValueError for an invalid expression or zone, and for an expression that never matches.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            next(self.ticks(instant(datetime(2024, 1, 1, tzinfo=UTC))))
        except StopIteration:
            raise ValueError(f"the cron expression {self.expression!r} never matches") from None

    def ticks(self, after: int) -> Iterator[int]:
        """Every tick later than `after`, in microseconds since 1970 (UTC)."""
        zone = _zone(self.timezone)
        _check(self.expression)
        ticks = _fixed if _is_fixed(self.expression) else _passing
        return _in_order(after, ticks(self.expression, after, zone))

    def explain(self) -> str:
        """The expression in words, such as "At 02:00"."""
        return CronSim(_plain(self.expression), datetime(2024, 1, 1, tzinfo=UTC)).explain()


def _is_fixed(expression: str) -> bool:
    """Whether the expression has explicit minutes and hours."""
    return not any(field.startswith("*") for field in expression.split()[-5:-3])


def _fixed(expression: str, after: int, zone: ZoneInfo) -> Iterator[int]:
    """Wall-clock times as ticks. For a time that occurs twice, the first one."""
    for date in CronSim(expression, moment(after).astimezone(zone).replace(tzinfo=None)):
        early, late = (instant(date.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
        # Inside a gap, fold=1 gives the earlier time.
        yield early if early <= late else _change(late, early, zone)


def _passing(expression: str, after: int, zone: ZoneInfo) -> Iterator[int]:
    """Every time that the wall clock shows a matching time. The offset is constant between two clock changes."""
    offset = _offset(after, zone)
    begin = after + offset
    while True:
        for date in CronSim(expression, moment(begin).replace(tzinfo=None)):
            tick = instant(date.replace(tzinfo=UTC)) - offset
            if _offset(tick, zone) != offset:
                break
            yield tick
            after = tick
        else:
            return
        after = _change(after, tick, zone)
        offset = _offset(after, zone)
        begin = after + offset - SECOND  # a tick can coincide with the change


def _offset(at: int, zone: ZoneInfo) -> int:
    return instant(moment(at).astimezone(zone).replace(tzinfo=UTC)) - at


def _change(before: int, after: int, zone: ZoneInfo) -> int:
    """The time between these two at which the zone's offset changes."""
    offset = _offset(before, zone)
    low, high = before // SECOND, after // SECOND
    while low < high:
        middle = (low + high) // 2
        if _offset(middle * SECOND, zone) == offset:
            low = middle + 1
        else:
            high = middle
    return low * SECOND


def _in_order(after: int, ticks: Iterable[int]) -> Iterator[int]:
    """Each tick once. Several times inside a gap fall on the same tick, and a repeated hour fires only once."""
    for tick in ticks:
        if tick > after:
            after = tick
            yield tick


_FORM = (
    "It has five fields (minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-7 or SUN-SAT), or six with seconds "
    "in front, each with *, lists, ranges or steps: '30 9 * * MON-FRI' is half past nine on working days"
)
_WIDTHS = {"second": 60, "minute": 60, "hour": 24, "day": 31, "month": 12, "weekday": 7}


def _check(expression: str) -> None:
    """Raise ValueError for an invalid expression. `*/90` minutes is invalid too, because it would fire each hour."""
    try:
        CronSim(expression, datetime(2024, 1, 1))
    except CronSimError as error:
        raise ValueError(f"{expression!r} is not a cron expression: {error}. {_FORM}") from error
    fields = expression.split()
    for (name, width), field in zip(list(_WIDTHS.items())[-len(fields) :], fields, strict=False):
        for step in re.findall(r"/(\d+)", field):
            if int(step) > width:
                raise ValueError(
                    f"{expression!r} does not fire every {step} {name}s: a step of {step} is larger than the {name} "
                    f"field, which has {width} values. For a longer interval list the {name}s, use a step in the "
                    "next field, or let an orchestrator wait with create_timer"
                )


def _plain(expression: str) -> str:
    """Drop a seconds field of 0, because five fields have a shorter explanation."""
    fields = expression.split()
    return " ".join(fields[1:]) if len(fields) == 6 and fields[0] == "0" else " ".join(fields)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError, TypeError) as error:
        raise ValueError(
            f"{name!r} is not a time zone. Use a name such as Europe/Berlin. On Windows, install tzdata"
        ) from error


__all__ = ["Cron"]
