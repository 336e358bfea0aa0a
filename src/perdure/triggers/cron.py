"""Cron expressions with a time zone: which ticks there are after an instant. Pure; the clock is an argument.

Five fields (minute hour day month weekday) or six with seconds first, as in Azure's NCRONTAB. The rules of
Debian's cron hold where clocks change: a fixed time that spring leaves out comes right after the gap, and one
that autumn repeats comes once; intervals (`*/15`) follow the time that really passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from perdure.model.times import instant, moment


@dataclass(frozen=True)
class Cron:
    """When something happens: an expression, read in a time zone.

    Raises ValueError for an expression or a zone that cannot be read, or that never comes.
    """

    expression: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        try:
            next(self.ticks(instant(datetime(2024, 1, 1, tzinfo=UTC))))
        except StopIteration:
            raise ValueError(f"the cron expression {self.expression!r} never comes") from None

    def ticks(self, after: int) -> Iterator[int]:
        """Every tick later than `after`; both in microseconds since 1970, as instants in UTC."""
        local = moment(after).astimezone(_zone(self.timezone))
        try:
            dates = CronSim(_plain(self.expression), local)
        except CronSimError as error:
            raise ValueError(f"{self.expression!r} is not a cron expression: {error}") from error
        return (instant(date.astimezone(UTC)) for date in dates)

    def next(self, after: int) -> int:
        """The first tick later than `after`."""
        return next(self.ticks(after))

    def between(self, after: int, until: int, most: int) -> list[int]:
        """Ticks later than `after` and not later than `until`, `most` of them at most, in order."""
        found = takewhile(lambda tick: tick <= until, self.ticks(after))
        return [tick for _, tick in zip(range(most), found, strict=False)]

    def explain(self) -> str:
        """The expression in words, such as "At 02:00"."""
        return CronSim(_plain(self.expression), datetime(2024, 1, 1, tzinfo=UTC)).explain()


def _plain(expression: str) -> str:
    """Six fields that only begin with second 0 are five: those know what to do where clocks change."""
    fields = expression.split()
    return " ".join(fields[1:]) if len(fields) == 6 and fields[0] == "0" else " ".join(fields)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(
            f"{name!r} is not a time zone: use a name such as Europe/Berlin (on Windows install tzdata)"
        ) from error


__all__ = ["Cron"]
