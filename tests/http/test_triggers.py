"""Schedules and queues over HTTP and in the remote client: the same orders, through every door."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

import perdure as df
from perdure.http.host import application
from perdure.http.remote.client import RemoteClient
from perdure.triggers import Queues, Schedules
from tests.http.conftest import LOCAL, M


@pytest.fixture
async def local() -> AsyncIterator[df.Client]:
    app = df.App("hosts")

    @app.schedule("0 2 * * *", timezone="Europe/Berlin", name="nightly")
    async def nightly(client: df.Client) -> None: ...

    @app.queue("claims", retry=df.RetryPolicy(first_interval=0.001, max_attempts=1))
    async def claims(message: dict[str, Any]) -> None:
        if message.get("broken"):
            raise ValueError("broken")

    async with app.running(store="memory:") as client:
        yield client


@pytest.fixture
async def http(local: df.Client) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=application(local))
    async with httpx2.AsyncClient(transport=transport, base_url=LOCAL + M) as client:
        yield client


async def test_a_schedule_is_listed_paused_resumed_and_run(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    [one] = (await http.get("/schedules")).json()
    assert (one["name"], one["cron"], one["timezone"], len(one["next"])) == (
        "nightly",
        "0 2 * * *",
        "Europe/Berlin",
        3,
    )
    assert (await http.post("/schedules/nightly/pause?reason=holidays")).status_code == 202
    [paused] = (await http.get("/schedules")).json()
    assert (paused["paused"], paused["next"]) == ("holidays", [])
    assert (await http.post("/schedules/nightly/resume")).status_code == 202
    assert (await http.post("/schedules/nightly/run")).status_code == 202
    async for status in local.watch(one["instanceId"]):
        recent = (status.custom_status or {}).get("recent", [])
        if recent and recent[-1].get("outcome") == "done":
            break
    [ran] = (await http.get("/schedules")).json()
    assert [fired["cause"] for fired in ran["recent"]] == ["manual"]


async def test_a_backfill_tells_how_many_ticks(http: httpx2.AsyncClient) -> None:
    until = datetime.now(UTC)
    query = {"after": (until - timedelta(days=3)).isoformat(), "until": until.isoformat()}

    answer = await http.post("/schedules/nightly/backfill", params=query)
    assert (answer.status_code, answer.json()) == (202, {"ticks": 3})
    assert (await http.post("/schedules/nightly/backfill")).status_code == 400
    assert (await http.post("/schedules/nobody/run")).status_code == 404


async def test_a_message_is_sent_once_dies_and_is_delivered_again(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    sent = await http.post("/queues/claims?messageId=m-1", json={"broken": True})
    again = await http.post("/queues/claims?messageId=m-1", json={"broken": True})
    assert sent.status_code == again.status_code == 202
    assert sent.json() == again.json() == {"id": "queue:claims:m-1"}
    await local.wait_for_completion("queue:claims:m-1", 10)

    counted = {"name": "claims", "open": 0, "handled": 0, "dead": 1, "served": True}
    assert (await http.get("/queues")).json() == [counted]
    [letter] = (await http.get("/queues/claims/dead")).json()
    assert letter["instanceId"] == "queue:claims:m-1"
    assert "broken" in letter["reason"]
    assert (await http.post(f"/queues/claims/dead/{letter['instanceId']}/redeliver")).status_code == 202
    assert (await http.post("/queues/claims/dead/queue:claims:none/redeliver")).status_code == 404


async def test_the_remote_client_orders_the_same(local: df.Client) -> None:
    async with RemoteClient(LOCAL, transport=httpx2.ASGITransport(app=application(local))) as remote:
        instance_id = await Queues(remote).send("claims", {"n": 1}, message_id="m-2")
        await remote.wait_for_completion(instance_id, 10)
        assert (await Queues(remote).status("claims")).handled == 1
        await Schedules(remote).pause("nightly", "later")
        assert [one.paused for one in await Schedules(remote).list()] == ["later"]


async def test_the_page_shows_schedules_queues_and_dead_letters(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    await Queues(local).send("claims", {"broken": True}, message_id="m-3")
    await local.wait_for_completion("queue:claims:m-3", 10)

    page = (await http.get(f"{LOCAL}/triggers")).text
    assert "Europe/Berlin" in page and "schedule:nightly" in page
    assert "queue:claims:m-3" in page and "broken" in page
