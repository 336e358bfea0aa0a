"""The list of instances: filters and views, one line for each, verbs for many, and the form that starts one."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.formatting import without_module
from perdure.http.pages.instance_list import line_of
from tests.http.conftest import LOCAL, M


@dataclass
class Claim:
    """A claim of a customer."""

    policy: str
    amount: int = 10
    kind: Literal["car", "home"] = "car"
    urgent: bool = False
    notes: list[str] | None = None


def office() -> df.App:
    app = df.App("office")

    @app.activity
    async def pay(amount: int) -> str:
        if amount > 100:
            raise ConnectionError("the bank refused it")
        return "paid"

    @app.orchestrator
    async def claim(context: df.OrchestrationContext, claim: Claim) -> str:
        await context.call_activity(pay, claim.amount)
        context.set_custom_status("paid")
        return claim.policy

    @app.orchestrator(summary=lambda output: output["verdict"])
    async def judged(context: df.OrchestrationContext, verdict: str) -> dict[str, str]:
        return {"verdict": verdict} if verdict else {"other": "no verdict"}

    @app.orchestrator(events={"Go": bool})
    async def waits(context: df.OrchestrationContext) -> bool:
        return bool(await context.wait_for_external_event("Go", bool))

    @app.schedule("0 0 1 1 *")
    async def yearly(tick: df.Tick) -> None:
        pass

    return app


@pytest.fixture
def http() -> Any:
    with TestClient(
        office().asgi(store="memory:", access="open"), base_url=LOCAL, follow_redirects=False
    ) as http:
        for number, amount in enumerate((10, 1_000, 20)):
            body = {"policy": f"P-{number}", "amount": amount}
            tags = {"tag": f"region={'north' if number else 'south'}"}
            assert http.post(f"{M}/orchestrators/claim/c-{number}", json=body, params=tags).status_code == 202
            http.get(f"{M}/instances/c-{number}?wait=60")
        http.post(f"{M}/orchestrators/waits/w-1")
        yield http


def listed(http: TestClient, query: str = "") -> list[str]:
    answer = http.get(f"/instances{query}", headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return re.findall(r'<tr data-id="([^"]*)"', answer.text)


def sent(http: TestClient, path: str, page: str, **fields: str) -> Any:
    token = re.search(r'name="csrf" value="([^"]*)"', http.get(page, headers={"Accept": "text/html"}).text)
    assert token is not None
    return http.post(path, data={"csrf": token[1], **fields}, headers={"Origin": LOCAL})


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["w-1", "c-2", "c-1", "c-0"]),
        ("?status=Failed", ["c-1"]),
        ("?name=claim&tag=region%3Dnorth", ["c-2", "c-1"]),
        ("?failure=REFUSED", ["c-1"]),
        ("?waiting_for=Go", ["w-1"]),
        ("?parent=none", []),
        ("?ended_from=2000-01-01T00:00&prefix=c", ["c-2", "c-1", "c-0"]),
        ("?ended_to=2000-01-01", []),
        ("?created_from=2000-01-01T00:00Z&order=oldest", ["c-0", "c-1", "c-2", "w-1"]),
        ("?order=ended", ["c-2", "c-1", "c-0"]),
    ],
)
def test_every_filter_and_order_is_in_the_address(http: TestClient, query: str, found: list[str]) -> None:
    assert listed(http, query) == found


def test_perdures_own_orchestrations_are_shown_if_asked_for(http: TestClient) -> None:
    assert len(listed(http, "?built_in=true")) == 5
    assert listed(http, "?name=BuiltIn::Schedule") != []


@pytest.mark.parametrize("query", ["tag=north", "ended_from=soon", "order=name", "status=Sleeping"])
def test_a_filter_that_makes_no_sense_is_told(http: TestClient, query: str) -> None:
    answer = http.get(f"/instances?{query}")
    assert answer.status_code == 400 and 'role="alert"' in answer.text


def test_a_line_has_the_outcome_and_the_error(http: TestClient) -> None:
    page = http.get("/instances").text
    assert page.count('<span class="hide">Completed: </span>paid</span>') == 2
    assert "ConnectionError: the bank refused it" in page
    assert '<span class="status waiting" title="runtimeStatus: Running">Waiting</span>' in page


def test_an_orchestrator_sums_up_its_output(http: TestClient) -> None:
    for name, verdict in (("j-1", "denied"), ("j-2", "")):
        http.post(f"{M}/orchestrators/judged/{name}", json=verdict)
        http.get(f"{M}/instances/{name}?wait=60")
    page = http.get("/instances?name=judged").text
    assert '<span class="hide">Completed: </span>denied</span>' in page
    assert '<td class="cut">verdict denied</td>' in page and '<td class="cut">other no verdict</td>' in page


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("bank.errors.Away: at 10: no", "Away: at 10: no"),
        ("ValueError: no", "ValueError: no"),
        ("it failed: no", "it failed: no"),
        ("Gone", "Gone"),
    ],
)
def test_an_error_is_told_without_its_module(error: str, shown: str) -> None:
    assert without_module(error) == shown


def test_a_filter_is_taken_off_or_saved_as_a_view(http: TestClient) -> None:
    here = "/instances?name=claim&failure=refused"
    page = http.get(here).text
    assert 'href="/instances?failure=refused" aria-label="Remove the filter orchestrator"' in page

    assert sent(http, here, here, name="bank  trouble").headers["location"] == here
    page = html.unescape(http.get("/instances").text)
    assert f'<a href="{here}">bank trouble</a>' in page
    assert "perdure_views" not in http.cookies  # those of the inbox

    sent(http, here, here, forget="bank trouble")
    assert "bank trouble" not in http.get("/instances").text


def test_a_verb_for_many_is_shown_before_it_is_done(http: TestClient) -> None:
    shown = http.get("/bulk/terminate?name=waits").text
    assert "<b>1</b> instance would be terminated." in shown and ">w-1</a>" in shown
    assert http.get(f"{M}/instances/w-1").json()["runtimeStatus"] == "Running"

    done = sent(http, "/bulk/terminate", "/bulk/terminate?name=waits", filter="?name=waits", reason="enough")
    assert "<b>1</b> instance was terminated." in done.text
    found = http.get(f"{M}/instances/w-1").json()
    assert (found["runtimeStatus"], found["output"]) == ("Terminated", "enough")


def test_a_verb_for_the_selected_tells_each_refusal(http: TestClient) -> None:
    ids = json.dumps(["c-0", "w-1", "none"])
    assert "<b>3</b> instances would be suspended" in http.get("/bulk/suspend?id=c-0&id=w-1&id=none").text

    done = sent(http, "/bulk/suspend", "/instances", ids=ids, filter="").text
    assert "<b>1</b> instance was suspended." in done and "2 failed." in done
    assert http.get(f"{M}/instances/w-1").json()["runtimeStatus"] == "Suspended"


def test_every_instance_is_meant_only_if_it_is_said(http: TestClient) -> None:
    refused = sent(http, "/bulk/purge", "/bulk/purge", filter="")
    assert refused.status_code == 400 and "purge every instance" in refused.text
    assert len(listed(http)) == 4

    done = sent(http, "/bulk/purge", "/bulk/purge", filter="", everything="true")
    assert "<b>3</b> instances were purged." in done.text
    assert listed(http) == ["w-1"]


@pytest.mark.parametrize("ids", ["[", "[1]", '{"a": 1}'])
def test_ids_that_the_form_did_not_send_change_nothing(http: TestClient, ids: str) -> None:
    assert sent(http, "/bulk/terminate", "/instances", ids=ids, filter="?name=waits").status_code == 400
    assert http.get(f"{M}/instances/w-1").json()["runtimeStatus"] == "Running"


def test_an_orchestration_is_started_by_a_form_of_its_input(http: TestClient) -> None:
    page = http.get("/start/claim").text
    assert "A claim of a customer." in page and 'name="field.amount" type="number"' in page
    fields = {"field.policy": "P-9", "field.amount": "7", "field.kind": '"home"', "field.urgent": "true"}

    started = sent(http, "/start/claim", "/start/claim", **fields, id="mine", tags="region=west")

    assert started.headers.get("location") == "/instances/mine", started.text
    found = http.get(f"{M}/instances/mine?wait=60&showInput=true").json()
    expected = {"policy": "P-9", "amount": 7, "kind": "home", "urgent": True}
    assert found["input"] == expected and found["tags"] == {"region": "west"}


def test_a_refused_start_keeps_what_was_typed(http: TestClient) -> None:
    fields = {"field.policy": "P-9", "field.amount": "many", "id": "mine"}
    refused = sent(http, "/start/claim", "/start/claim", **fields)
    assert refused.status_code == 400
    assert 'value="P-9"' in refused.text and 'value="mine"' in refused.text
    taken = sent(
        http, "/start/claim", "/start/claim", **{"field.policy": "P-9", "id": "c-1", "operation": "x"}
    )
    assert taken.status_code in (303, 409)


def test_start_like_this_one_has_its_input_and_tags(http: TestClient) -> None:
    page = http.get("/start/claim?like=c-1").text
    assert 'value="P-1"' in page and 'value="1000"' in page and 'value="region=north"' in page
    assert http.get("/start/claim?like=none").status_code == 200


@pytest.mark.parametrize("name", ["nobody", "BuiltIn::Schedule"])
def test_what_cannot_be_started_has_no_form(http: TestClient, name: str) -> None:
    assert http.get(f"/start/{name}", headers={"Accept": "text/html"}).status_code == 404


async def test_a_retry_says_which_attempt_and_why() -> None:
    from perdure.testing import environment

    app = df.App("retries")

    @app.activity(retry=df.RetryPolicy(first_interval=600, max_attempts=3))
    async def pay() -> None:
        raise ConnectionError("refused")

    @app.orchestrator
    async def claim(context: df.OrchestrationContext) -> None:
        await context.call_activity(pay)

    async with environment(app) as env:
        await env.client.start_new("claim", "c-1")
        await env.settled()
        [one] = (await env.client.query()).instances
        line = line_of(one, env.now + timedelta(minutes=1))
    assert (line.mark, line.status, line.outcome) == ("retrying", "Retrying", "")
    assert (line.strong, line.sentence) == ("Attempt 2 of pay in 9 min", "ConnectionError: refused")
