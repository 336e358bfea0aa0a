"""Which ticks there are: fields, zones, and the nights when clocks change."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from perdure.model.times import instant, moment
from perdure.triggers.cron import Cron

BERLIN = ZoneInfo("Europe/Berlin")


def local(expression: str, begin: datetime, count: int) -> list[str]:
    ticks = Cron(expression, "Europe/Berlin").ticks(instant(begin))
    return [moment(next(ticks)).astimezone(BERLIN).isoformat(timespec="minutes") for _ in range(count)]


def test_a_fixed_time_that_spring_leaves_out_comes_right_after_the_gap() -> None:
    begin = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    for expression in ("30 2 * * *", "0 30 2 * * *"):
        assert local(expression, begin, 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]


def test_a_fixed_time_that_autumn_repeats_comes_once() -> None:
    begin = datetime(2026, 10, 24, 12, tzinfo=BERLIN)
    assert local("30 2 * * *", begin, 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]


def test_an_interval_follows_the_time_that_passes() -> None:
    begin = datetime(2026, 10, 25, 1, 59, tzinfo=BERLIN)
    ticks = local("*/30 * * * *", begin, 5)
    assert ticks == [
        "2026-10-25T02:00+02:00",
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:00+01:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:00+01:00",
    ]


def test_six_fields_begin_with_seconds() -> None:
    begin = instant(datetime(2026, 1, 1, tzinfo=UTC))
    ticks = Cron("*/20 * * * * *").between(begin, begin + 60_000_000, 10)
    assert [moment(tick).second for tick in ticks] == [20, 40, 0]


@pytest.mark.parametrize(
    ("expression", "zone", "why"),
    [
        ("* * *", "UTC", "not a cron expression"),
        ("61 * * * *", "UTC", "not a cron expression"),
        ("0 0 30 2 *", "UTC", "not a cron expression"),
        ("* * * * *", "Europe/Atlantis", "not a time zone"),
        ("* * * * *", "../../etc/passwd", "not a time zone"),
    ],
)
def test_what_cannot_be_read_says_why(expression: str, zone: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Cron(expression, zone)
