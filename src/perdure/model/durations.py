"""Times and durations. Internally, a time is an integer of microseconds since 1970 in UTC; in the API it is an
aware datetime, and a duration is a timedelta or a number of seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Final

Seconds = timedelta | float
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
EARLIEST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LATEST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
LONGEST: Final = 320_000_000_000_000_000  # microseconds of a duration: 10,140 years
_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def micros(duration: Seconds) -> int:
    """A duration in microseconds.

    Raises ValueError for NaN, infinities, durations beyond 10,000 years and text that is not a number,
    TypeError for any other type.
    """
    if isinstance(duration, timedelta):
        exact = duration // _MICROSECOND
        if abs(exact) > LONGEST:
            raise ValueError(
                f"a duration of {duration} is too long: the maximum is 10,000 years. To wait without a limit, "
                "set no timeout"
            )
        return exact
    try:
        value = float(duration)
    except OverflowError:
        value = inf
    except (TypeError, ValueError) as error:
        raise type(error)(f"a duration is a timedelta or a number of seconds, not {duration!r:.60}") from None
    if not abs(value) <= LONGEST / 1e6:
        raise ValueError(f"a duration must be a finite number of seconds, not {duration!r:.60}")
    return round(value * 1_000_000)


def in_range(at: int, what: str) -> int:
    """The time (microseconds since 1970). Raises ValueError if a datetime cannot represent it."""
    if not EARLIEST <= at <= LATEST:
        raise ValueError(
            f"{what} lies {'before the year 1' if at < 0 else 'beyond the year 9999'}: choose a nearer time"
        )
    return at


def instant(moment: datetime, what: str = "an instant") -> int:
    """An aware datetime as microseconds since 1970. Raises ValueError for a naive one, and beyond the year 9999."""
    if not isinstance(moment, datetime):
        raise TypeError(f"{what} must be an aware datetime (with a time zone), not {moment!r:.60}")
    if moment.utcoffset() is None:
        raise ValueError(
            f"{what} must be an aware datetime (with a time zone), not {moment!r}: "
            "use context.current_utc_datetime + timedelta(...), or datetime(..., tzinfo=UTC)"
        )
    return in_range((moment - _EPOCH) // _MICROSECOND, what)


def moment(at: int) -> datetime:
    """Microseconds since 1970 as an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=at)


def stamp(moment: datetime) -> str:
    """An aware datetime as Azure writes it, in UTC, to the microsecond."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def duration(text: str) -> timedelta:
    """Parse a duration, as written in commands and settings: `45s`, `90m`, `12h`, `3d`, `2w`, `1d12h`.

    A bare number is seconds. Raises ValueError for anything else.
    """
    plain = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        plain += "s"
    if not re.fullmatch(r"(\d+(\.\d+)?[smhdw])+", plain):
        raise ValueError(f"a duration is written as 45s, 90m, 12h, 3d, 2w or 1d12h, not {text!r}")
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", plain)
    try:
        return sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta())
    except OverflowError as error:
        raise ValueError(f"the duration {text!r} is too long") from error
