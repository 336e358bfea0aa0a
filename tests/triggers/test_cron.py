"""Which ticks there are: fields, zones, and the nights when clocks change."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from perdure.model.durations import instant, moment
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


CHANGES = {  # zone: an instant shortly before each change of its clock
    "Europe/Berlin": ("2026-03-28T21:00Z", "2026-10-24T20:00Z"),
    "America/New_York": ("2026-03-08T02:00Z", "2026-11-01T01:00Z"),
    "Australia/Lord_Howe": ("2026-04-04T10:00Z", "2026-10-03T10:00Z"),  # by half an hour
    "Pacific/Apia": ("2011-12-29T20:00Z",),  # by a day
}
FIXED = [(second, minute, hour) for second in (0, 30) for minute in (0, 15, 45) for hour in (1, 2, 3)]


@pytest.mark.parametrize("zone", [zone for zone in CHANGES if zone != "Pacific/Apia"])
@pytest.mark.parametrize(("second", "minute", "hour"), FIXED)
def test_a_fixed_time_comes_once_a_day_whatever_the_clock_does(
    zone: str, second: int, minute: int, hour: int
) -> None:
    for begin in map(datetime.fromisoformat, CHANGES[zone]):
        first = instant(begin)
        expressions = [f"{second} {minute} {hour} * * *"] + [f"{minute} {hour} * * *"] * (second == 0)
        for expression in expressions:
            ticks = Cron(expression, zone).between(first, first + 49 * 3600 * 1_000_000, 100)
            days = [moment(tick).astimezone(ZoneInfo(zone)).date() for tick in ticks]
            assert len(set(days)) == len(days) and len(days) >= 2, (begin, expression, days)


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize(
    "expression", ["*/20 * * * *", "15 */2 * * *", "30 */20 * * * *", "0 0,30 */3 * * *"]
)
def test_an_interval_ticks_whenever_the_wall_clock_shows_its_time(zone: str, expression: str) -> None:
    """Held against a clock that is read each second of the days around the change."""
    second, minute, hour = (expression if len(expression.split()) == 6 else f"0 {expression}").split()[:3]
    for begin in map(datetime.fromisoformat, CHANGES[zone]):
        first = instant(begin)
        shown = ((tick, moment(tick).astimezone(ZoneInfo(zone))) for tick in _every_ten_seconds(first))
        expected = [
            tick
            for tick, at in shown
            if _is_shown(second, at.second) and _is_shown(minute, at.minute) and _is_shown(hour, at.hour)
        ]
        assert Cron(expression, zone).between(first, first + 30 * 3600 * 1_000_000, 1_000) == expected


def _every_ten_seconds(first: int) -> range:
    return range(first + 10_000_000, first + 30 * 3600 * 1_000_000 + 1, 10_000_000)


def _is_shown(field: str, value: int) -> bool:
    if field.startswith("*/"):
        return value % int(field[2:]) == 0
    return field == "*" or str(value) in field.split(",")


def test_times_inside_the_gap_come_once_at_its_end() -> None:
    begin = datetime(2026, 3, 28, 12, tzinfo=BERLIN)
    assert local("*/20 10,30,50 2 * * *", begin, 2) == ["2026-03-29T03:00+02:00", "2026-03-30T02:10+02:00"]


def test_the_ticks_of_a_day_that_a_zone_leaves_out_come_at_the_end_of_the_gap() -> None:
    begin = instant(datetime.fromisoformat(CHANGES["Pacific/Apia"][0]))
    ticks = Cron("30 15 2 * * *", "Pacific/Apia").between(begin, begin + 60 * 3600 * 1_000_000, 10)
    shown = [moment(tick).astimezone(ZoneInfo("Pacific/Apia")).strftime("%d %H:%M:%S") for tick in ticks]
    assert shown == ["31 00:00:00", "31 02:15:30", "01 02:15:30"]


def test_ticks_do_not_depend_on_where_one_begins() -> None:
    """A scheduler that restarts in the middle of the change goes on with the tick that comes next."""
    cron = Cron("30 10,30 2 * * *", "Europe/Berlin")
    for day in (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 21, tzinfo=UTC)):
        begin, end = instant(day), instant(day) + 40 * 3600 * 1_000_000
        whole = cron.between(begin, end, 100)
        for after in range(begin, end, 7 * 60 * 1_000_000):
            assert cron.next(after) == next(tick for tick in [*whole, cron.next(end)] if tick > after)


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("*/90 * * * *", "minute"),
        ("*/90 * * * * *", "second"),
        ("0 0/90 * * * *", "minute"),
        ("0 */36 * * *", "hour"),
        ("0 0 */45 * *", "day"),
        ("0 0 1 */13 *", "month"),
        ("0 0 * * 1-5/8", "weekday"),
    ],
)
def test_a_step_that_never_takes_effect_is_refused(expression: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"larger than the {field} field"):
        Cron(expression)


@pytest.mark.parametrize("expression", ["*/60 * * * *", "0 */24 * * *", "0-30/15 * * * *"])
def test_a_step_as_wide_as_its_field_is_accepted(expression: str) -> None:
    assert Cron(expression).next(0) > 0
