"""Intervals as schedules: where the ticks are, and what is no interval."""

import pytest

import perdure as df
from perdure.testing import environment
from perdure.triggers import Schedules
from perdure.triggers.interval import Interval

SECOND = 1_000_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:05:00", 300),
        ("0:0:1", 1),
        ("23:59:59", 86_399),
        ("1.02:03:04", 93_784),
        ("25:00:00", 25 * 86_400),  # as in .NET: dd:hh:mm
        ("24:01:30", 24 * 86_400 + 5_400),
    ],
)
def test_an_interval_fires_at_its_multiples(text, seconds):
    interval = Interval(text)
    assert interval.length == seconds * SECOND
    assert interval.next(0) == seconds * SECOND
    assert interval.next(seconds * SECOND - 1) == seconds * SECOND
    assert interval.next(seconds * SECOND) == 2 * seconds * SECOND
    assert interval.between(0, 10 * seconds * SECOND, 3) == [n * seconds * SECOND for n in (1, 2, 3)]
    assert interval.explain().startswith("Every ")


@pytest.mark.parametrize(
    "text", ["", "00:00:00", "5:00", "00:60:00", "00:00:61", "x:y:z", "-00:05:00", "1.24:00:00", "00:00:00.5"]
)
def test_what_is_no_interval_is_refused(text):
    with pytest.raises(ValueError, match="interval"):
        Interval(text)


async def test_a_schedule_with_an_interval_fires_and_is_listed():
    app, fired = df.App("every"), []

    @app.schedule("00:05:00")
    def often() -> None:
        fired.append(1)

    async with environment(app) as env:
        await env.advance(minutes=21)
        listed = await Schedules(env.client).list()
    assert len(fired) in (4, 5)  # of the full five minutes within any 21
    assert [(one.cron, one.words) for one in listed] == [("00:05:00", "Every 0:05:00")]
