"""What operators order from the page of schedules and queues."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest

import perdure as df
from perdure.http.access.gate import Access
from perdure.http.host import application
from perdure.triggers import Queues, Schedules
from perdure.triggers.brokers import RabbitMQ
from perdure.triggers.definitions import Queue
from tests.http.conftest import LOCAL, M

ADMIN = "the-administrators-own-long-key"


@dataclass
class Order:
    number: int
    express: bool = False


seen: list[Any] = []


def make_app() -> df.App:
    app = df.App("orders")
    seen.clear()

    @app.schedule("0 2 * * *", timezone="Europe/Berlin", name="nightly")
    async def nightly(tick: df.Tick) -> None: ...

    @app.queue("claims", retry=df.RetryPolicy(first_interval=0.001, max_attempts=1))
    async def claims(message: dict[str, Any]) -> None:
        if message.get("broken") and not seen:
            raise ValueError("no customer")
        seen.append(message)

    @app.queue("typed")
    async def typed(order: Order, client: df.Client) -> None:
        seen.append(order)

    return app


@pytest.fixture
async def local() -> AsyncIterator[df.Client]:
    async with make_app().running(store="memory:") as client:
        yield client


@pytest.fixture
async def http(local: df.Client) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=application(local))
    async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as client:
        yield client


async def hidden(http: httpx2.AsyncClient) -> dict[str, str]:
    """The hidden fields of the page's forms."""
    page = (await http.get("/triggers")).text
    return {name: re.findall(rf'name="{name}" value="([^"]+)"', page)[-1] for name in ("csrf", "operation")}


async def order(http: httpx2.AsyncClient, path: str, **fields: str) -> httpx2.Response:
    return await http.post(f"/triggers/{path}", data={**await hidden(http), **fields})


async def nightly(client: df.Client) -> Any:
    found = await Schedules(client).get("nightly")
    assert found is not None
    return found


async def test_the_page_lists_the_next_instants_where_the_schedule_lives(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    page = (await http.get("/triggers")).text

    for at in (await nightly(local)).next:
        there = at.astimezone(ZoneInfo("Europe/Berlin"))
        assert f"{there:%a} {there.day} {there:%b %Y, 02:00}" in page
    assert "At 02:00 every day" in page


async def test_a_schedule_is_paused_with_its_reason_resumed_and_run(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    paused = await order(http, "schedules/nightly/pause", reason="holidays")
    assert (paused.status_code, paused.headers["location"]) == (303, "/triggers?done=pause")
    page = (await http.get(paused.headers["location"])).text
    assert "paused: holidays" in page and "The schedule is paused until it is resumed" in page
    assert "/schedules/nightly/pause" not in page and "/schedules/nightly/resume" in page

    assert (await order(http, "schedules/nightly/resume")).status_code == 303
    assert (await nightly(local)).paused == ""
    assert (await order(http, "schedules/nightly/run")).status_code == 303
    assert [fired.cause for fired in (await nightly(local)).recent] == ["manual"]
    assert "manual run" in (await http.get("/triggers")).text


async def test_the_same_form_sent_twice_is_one_order(http: httpx2.AsyncClient, local: df.Client) -> None:
    form = await hidden(http)
    for _ in range(2):
        assert (await http.post("/triggers/schedules/nightly/run", data=form)).status_code == 303
        sent = await http.post("/triggers/queues/claims/send", data={**form, "field.": '{"n": 1}'})
        assert sent.status_code == 303

    assert (await nightly(local)).fired == 1
    assert len((await local.query(prefix="queue:claims:")).instances) == 1
    changed = await http.post("/triggers/queues/claims/send", data={**form, "field.": '{"n": 2}'})
    assert changed.status_code == 303  # a form that was changed after going back is another message
    assert len((await local.query(prefix="queue:claims:")).instances) == 2
    again = await hidden(http)
    assert (await http.post("/triggers/schedules/nightly/run", data=again)).status_code == 303
    assert (await nightly(local)).fired + (await nightly(local)).waiting == 2


async def test_a_backfill_is_asked_for_in_the_schedules_own_time(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    today = datetime.now(ZoneInfo("Europe/Berlin")).date()
    begin, end = today - timedelta(days=3), today - timedelta(days=1)

    answer = await order(http, "schedules/nightly/backfill", after=f"{begin}T02:00", until=f"{end}T02:00")
    assert answer.headers["location"] == "/triggers?done=backfill"
    found = await nightly(local)
    assert found.fired + found.waiting == 2  # later than the first, up to the last


@pytest.mark.parametrize(
    ("after", "until", "said"),
    [
        ("", "2026-01-01T00:00", "after must be a date and a time"),
        ("2026-01-01T00:00", "soon", "until must be a date and a time"),
        ("2999-01-01T00:00", "2999-02-01T00:00", "so nothing fires"),
        ("2026-01-02T00:00", "2026-01-01T00:00", "so nothing fires"),
    ],
)
async def test_a_backfill_that_means_nothing_is_refused_where_it_was_asked_for(
    http: httpx2.AsyncClient, local: df.Client, after: str, until: str, said: str
) -> None:
    answer = await order(http, "schedules/nightly/backfill", after=after, until=until)

    assert answer.status_code == 400
    assert said in answer.text and f'value="{until}"' in answer.text
    assert "data-refresh" not in answer.text  # what was filled in stays
    assert (await nightly(local)).fired == 0


async def test_a_message_is_filled_in_by_its_type(http: httpx2.AsyncClient, local: df.Client) -> None:
    assert 'name="field.number"' in (await http.get("/triggers")).text

    sent = await order(
        http,
        "queues/typed/send",
        **{"field.number": "7", "field.express": "true", "message_id": "m-7"},
    )
    assert sent.status_code == 303
    await local.wait_for_completion("queue:typed:m-7", 10)
    assert seen == [Order(7, True)]
    refused = await order(http, "queues/typed/send", **{"field.number": "seven", "message_id": "m-8"})
    assert refused.status_code == 400
    assert "Number must be a whole number" in refused.text and 'value="m-8"' in refused.text
    assert await local.get_status("queue:typed:m-8") is None


async def test_dead_letters_are_delivered_again_one_or_all(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    for number in range(3):
        await Queues(local).send("claims", {"broken": number + 1}, message_id=f"m-{number}")
        await local.wait_for_completion(f"queue:claims:m-{number}", 10)
    page = (await http.get("/triggers")).text
    assert page.count("ValueError: no customer") == 3 and "<b>3</b> dead" in page

    seen.append("mended")
    assert (await order(http, "dead/queue:claims:m-0/redeliver")).status_code == 303
    await local.wait_for_completion("queue:claims:m-0", 10)
    assert (await Queues(local).status("claims")).dead == 2
    assert (await order(http, "queues/claims/redeliver")).status_code == 303
    for number in (1, 2):
        await local.wait_for_completion(f"queue:claims:m-{number}", 10)
    assert (await Queues(local).status("claims")).dead == 0
    assert "Dead letters" not in (await http.get("/triggers")).text


async def test_what_is_not_there_is_said_to_be_missing(http: httpx2.AsyncClient) -> None:
    for path in ("schedules/nobody/run", "schedules/nobody/backfill", "dead/queue:claims:none/redeliver"):
        answer = await order(http, path, after="2026-01-01", until="2026-01-02")
        assert answer.status_code == 404, path
        assert 'role="alert"' in answer.text, path


async def test_a_queue_of_a_broker_is_said_to_be_one() -> None:
    app = df.App("brokers")

    @app.queue(RabbitMQ("amqp://guest:secret@127.0.0.1:1/", "payments"), name="payments")
    async def pay(message: dict[str, Any]) -> None: ...

    async with app.running(store="memory:") as client:
        assert [type(one) for one in app.registry.triggers] == [Queue]
        transport = httpx2.ASGITransport(app=application(client))
        async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as http:
            page = (await http.get("/triggers")).text
    assert "RabbitMQ" in page and "secret" not in page


async def test_only_who_may_operate_sees_the_forms_and_sends_them(local: df.Client) -> None:
    access = Access(local, admin_key=ADMIN)
    transport = httpx2.ASGITransport(app=application(local, access=access))
    async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as http:
        keys = {}
        for scope in ("read", "operate"):
            made = await http.post(
                f"{M}/keys", json={"name": scope, "scopes": [scope]}, headers={"x-functions-key": ADMIN}
            )
            keys[scope] = {"x-functions-key": made.json()["secret"]}
        looked = await http.get("/triggers", headers=keys["read"])
        managed = await http.get("/triggers", headers=keys["operate"])
        found = re.search(r'name="csrf" value="([^"]+)"', managed.text)
        assert found
        form = {"csrf": found[1], "operation": "op-1"}

        main = looked.text.partition("<main")[2].partition("</main>")[0]
        assert "nightly" in main and "<form" not in main
        for path in ("pause", "resume", "run", "backfill"):
            answer = await http.post(f"/triggers/schedules/nightly/{path}", data=form, headers=keys["read"])
            assert answer.status_code == 403, path
        run = await http.post("/triggers/schedules/nightly/run", data=form, headers=keys["operate"])
        assert run.status_code == 303
        forged = await http.post(
            "/triggers/schedules/nightly/pause", data={**form, "csrf": "x" * 32}, headers=keys["operate"]
        )
        assert forged.status_code == 403
        foreign = await http.post(
            "/triggers/schedules/nightly/pause",
            data=form,
            headers={**keys["operate"], "origin": "https://evil.example"},
        )
        assert foreign.status_code == 403
        rows = (
            await http.get(f"{M}/audit?operation=run_schedule", headers={"x-functions-key": ADMIN})
        ).json()
    assert (await nightly(local)).paused == ""
    told = {(row["who"].split(" ")[0], row["instance_id"], row["outcome"]) for row in rows["records"]}
    assert told == {("operate", "schedule:nightly", "ok"), ("read", "", "forbidden")}


async def test_the_page_of_a_schedules_instance_leads_here_and_has_no_raw_form(
    http: httpx2.AsyncClient,
) -> None:
    page = (await http.get("/instances/schedule:nightly")).text

    assert 'href="/triggers#schedule-nightly"' in page
    assert "/answer" not in page


async def test_an_order_over_the_api_is_obeyed_once_under_one_key(
    http: httpx2.AsyncClient, local: df.Client
) -> None:
    for _ in range(2):
        answer = await http.post(f"{M}/schedules/nightly/run", headers={"Idempotency-Key": "k-1"})
        assert answer.status_code == 202

    assert (await nightly(local)).fired == 1


async def test_a_backfill_counts_no_ticks_that_are_still_to_come(local: df.Client) -> None:
    now = datetime.now(UTC)

    assert await Schedules(local).backfill("nightly", now, now + timedelta(days=3)) == 0
    assert (await nightly(local)).fired == (await nightly(local)).waiting == 0
