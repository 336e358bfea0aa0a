"""The page that a hub opens with: lines that need a hand, and charts; both without a scan."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx2
import pytest

import perdure as df
from perdure.http.host import application
from perdure.http.pages import charts
from perdure.http.pages.overview import COUNTS, DURATIONS
from perdure.testing import DurableEnvironment, environment


def office() -> df.App:
    app = df.App("office")

    @app.activity
    async def pay(amount: int) -> str:
        if amount > 100:
            raise ConnectionError("the bank refused the connection")
        return "paid"

    @app.orchestrator
    async def claim(context: df.OrchestrationContext, amount: int) -> str:
        return await context.call_activity(pay, amount)

    @app.orchestrator(events={"Decision": bool})
    async def review(context: df.OrchestrationContext) -> bool:
        task = context.human_task("Decision", bool, title="Approve it", timeout=timedelta(hours=1))
        return bool(await task)

    return app


@pytest.fixture
async def env() -> AsyncIterator[DurableEnvironment]:
    async with environment(office()) as env:
        yield env


async def shown(env: DurableEnvironment, path: str = "/") -> str:
    transport = httpx2.ASGITransport(application(env.client))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return answer.text


def lines(page: str) -> list[str]:
    """The lines that need a hand, as plain text."""
    found = re.search(r'<ul class="attend">(.*?)</ul>', page, re.S)
    items = re.findall(r"<li.*?</li>", found[1], re.S) if found else []
    return [" ".join(re.sub(r"<[^>]+>", " ", item).split()) for item in items]


async def test_a_quiet_hub_needs_no_hand(env: DurableEnvironment) -> None:
    await env.client.start_new("claim", "c-1", 10)
    await env.settled()

    page = await shown(env)

    assert lines(page) == []
    assert "Nothing does" in page


async def test_failures_above_the_usual_are_told_until_they_are_rewound(env: DurableEnvironment) -> None:
    for number in range(3):
        await env.client.start_new("claim", f"c-{number}", 1_000)
    await env.settled()

    [line] = lines(await shown(env))
    assert line.startswith("3 failed claim :") and "the bank refused the connection" in line
    assert line.endswith("Show the 3")

    for number in range(3):
        await env.client.rewind(f"c-{number}", "once more")
    await env.settled()
    await env.client.purge_instance_history_by(runtime_status=["Failed"])
    assert lines(await shown(env)) == []


async def test_as_many_failures_as_usual_need_no_hand(env: DurableEnvironment) -> None:
    for hour in range(3):
        for number in range(3):
            await env.client.start_new("claim", f"c-{hour}-{number}", 1_000)
        await env.advance(hours=1)
    await env.client.start_new("claim", "now", 1_000)
    await env.settled()

    assert lines(await shown(env)) == []

    for number in range(12):
        await env.client.start_new("claim", f"n-{number}", 1_000)
    await env.settled()
    [line] = lines(await shown(env))
    assert line.startswith("16 failed")


async def test_overdue_tasks_are_told_until_they_are_decided(env: DurableEnvironment) -> None:
    await env.client.start_new("review", "r-1")
    await env.settled()
    await env.client.suspend("r-1")  # else the deadline would end the wait
    await env.advance(minutes=59)
    assert lines(await shown(env)) == []

    await env.advance(minutes=11)
    [line] = lines(await shown(env))
    assert line == "1 overdue Approve it: the decision is 10 min late. Open the inbox"

    await env.client.resume("r-1")
    await env.settled()
    assert [one for one in lines(await shown(env)) if "overdue" in one] == []


async def test_a_filter_of_the_list_leads_to_the_list(env: DurableEnvironment) -> None:
    transport = httpx2.ASGITransport(application(env.client))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/?status=Failed&name=claim")

    assert answer.headers["location"] == "/instances?status=Failed&name=claim"


@pytest.mark.parametrize("last", ["hour", "day"])
async def test_charts_say_in_words_what_they_draw(env: DurableEnvironment, last: str) -> None:
    await env.client.start_new("claim", "good", 1)
    await env.client.start_new("claim", "bad", 1_000)
    await env.settled()

    page = await shown(env, f"/?last={last}")

    assert page.count('role="img"') == 6
    assert "completed 1 in the last interval, 1 at most; failed 1 in the last interval" in page
    assert 'class="f-red"' in page
    assert '<a href="/instances?name=claim">claim</a>' in page


def test_a_chart_has_round_values_and_its_bars_inside() -> None:
    drawn = charts.bars(
        "Ended",
        [charts.Series("good", "green", [0, 97, 3]), charts.Series("bad", "red", [0, 0, 1])],
        ["10:00", "11:00", "12:00"],
        COUNTS,
    )

    assert [label for _, label in drawn.grid] == ["0", "20", "40", "60", "80", "100"]
    assert len(drawn.bars) == 3
    assert all(charts.TOP <= bar.y <= bar.y + bar.height <= charts.BOTTOM + 0.1 for bar in drawn.bars)
    assert [text for _, _, text in drawn.hovers] == ["11:00: 97 good, 0 bad", "12:00: 3 good, 1 bad"]


@pytest.mark.parametrize(
    ("most", "kind", "labels"),
    [
        (0.0, COUNTS, ["0", "1"]),
        (3.0, COUNTS, ["0", "1", "2", "3"]),
        (7.0, COUNTS, ["0", "2", "4", "6", "8"]),
        (0.012, DURATIONS, ["0", "5 ms", "10 ms", "15 ms"]),
        (100.0, DURATIONS, ["0", "30 s", "1 min", "1 min 30 s", "2 min"]),
        (7_200.0, DURATIONS, ["0", "30 min", "1 h", "1 h 30 min", "2 h"]),
    ],
)
def test_the_grid_is_round_in_the_unit_of_its_values(
    most: float, kind: charts.Kind, labels: list[str]
) -> None:
    drawn = charts.lines("x", [charts.Series("x", "blue", [most])], ["now"], kind)
    assert [label for _, label in drawn.grid] == labels


def test_a_line_has_a_gap_where_there_is_no_value() -> None:
    series = charts.Series("p95", "amber", [1.0, 2.0, None, 3.0])
    drawn = charts.lines("Duration", [series], ["a", "b", "c", "d"], DURATIONS)

    assert len(drawn.paths) == 2
    assert charts.lines("Duration", [charts.Series("p95", "amber", [None])], ["a"], DURATIONS).paths == ()
