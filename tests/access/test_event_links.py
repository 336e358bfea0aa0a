"""Approvals by link: looking decides nothing, one press decides, the second is refused and written down."""

from concurrent.futures import ThreadPoolExecutor
from html import unescape

import pytest

from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, Door, as_key

YES = {"field.approved": "true", "field.comment": "fine"}


def finished(door: Door, instance_id: str = "a-1") -> object:
    return door.http.get(f"{M}/instances/{instance_id}?wait=60", headers=as_key(ADMIN)).json()["output"]


def test_the_page_asks_and_shows_nothing_else_of_the_instance(door: Door) -> None:
    door.http.post(f"{M}/orchestrators/approval/a-1", json="the secret input", headers=as_key(ADMIN))

    page = door.http.get(door.link())

    assert page.status_code == 200
    assert "Approver decision" in page.text
    assert 'name="field.approved"' in page.text
    assert "secret input" not in page.text
    assert f'href="{M}' not in page.text
    assert page.headers["cache-control"] == "no-store"


def test_looking_decides_nothing_however_often(door: Door) -> None:
    url = door.link(door.start()["id"])

    for _ in range(3):
        assert door.http.get(url).status_code == 200
        assert door.http.head(url).status_code == 200

    assert door.http.get(f"{M}/instances/a-1", headers=as_key(ADMIN)).json()["runtimeStatus"] == "Running"


def test_a_press_decides_without_cookies(door: Door) -> None:
    url = door.link(door.start()["id"])
    door.http.cookies.clear()

    thanks = door.http.post(url, data=YES)

    assert thanks.status_code == 200
    assert "Thank you" in thanks.text
    assert finished(door) == "APPROVED"


def test_the_form_leads_back_to_the_link_itself(door: Door) -> None:
    url = door.link(door.start()["id"])
    page = door.http.get(url)
    text = unescape(page.text)

    assert f'action="?{url.partition("?")[2]}"' in text
    assert page.headers["referrer-policy"] == "strict-origin"
    assert door.http.post(url, data=YES).headers["referrer-policy"] == "strict-origin"
    assert door.http.get(url).headers["referrer-policy"] == "strict-origin"


def test_a_second_use_is_refused_and_written_down(door: Door) -> None:
    url = door.link(door.start()["id"])
    assert door.http.post(url, data=YES).status_code == 200

    second = door.http.post(url, data={"field.approved": "false"})
    looked = door.http.get(url)

    assert (second.status_code, looked.status_code) == (410, 410)
    assert "works only once and has been used" in second.text
    assert finished(door) == "APPROVED"
    decisions = [(row["outcome"], row["who"].split()[0]) for row in door.audit(operation="decide")]
    assert decisions == [("link-spent", "link"), ("ok", "link")]


def test_many_presses_at_the_same_moment_are_one_decision(door: Door) -> None:
    door.start("open_door")
    url = door.link(event="anything at all")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: door.http.post(url, json={"n": n}).status_code, range(16)))

    assert sorted(answers) == [202] + [410] * 15
    assert [row["times"] for row in door.audit(operation="decide") if row["outcome"] == "ok"] == [1]


def test_a_link_for_many_uses_goes_on(door: Door) -> None:
    door.start("sleeper")
    url = door.link(event="ping", once=False)

    assert [door.http.post(url, json=n).status_code for n in range(3)] == [202, 202, 202]


def test_a_spent_link_stays_spent_when_other_answers_are_forgotten(door: Door) -> None:
    """Operation ids are remembered for a day; that of a link for as long as the link lives."""
    door.start("sleeper")
    url = door.link(event="ping", expires_in=30 * 24 * 3_600)
    assert door.http.post(url, json=1).status_code == 202
    store = door.gate.signer.client.gateway.store
    row = max(store._tables.seen.values(), key=lambda row: row.expires_at)

    assert row.expires_at - door.gate.keys.now() > 30 * 24 * 3_600 * 1_000_000


@pytest.mark.parametrize("body", [{"field.approved": ""}, {}, {"field.approved": "maybe"}])
def test_an_answer_that_does_not_fit_spends_nothing(door: Door, body: dict[str, str]) -> None:
    url = door.link(door.start()["id"])

    refused = door.http.post(url, data=body)

    assert refused.status_code == 400
    assert "Approver decision" in refused.text
    assert door.http.post(url, data=YES).status_code == 200


def test_json_is_taken_and_the_door_judges_it(door: Door) -> None:
    url = door.link(door.start()["id"])

    assert door.http.post(url, json={"approved": 7}).status_code == 400
    assert door.http.post(url, json={"approved": False}).status_code == 202
    assert finished(door) == "DENIED"


def test_what_is_over_is_said_to_be(door: Door) -> None:
    url = door.link(door.start()["id"])
    other = door.link()
    door.http.post(url, data=YES)
    finished(door)

    late = door.http.post(other, data=YES)

    assert late.status_code == 410
    assert "there is nothing left to decide" in late.text


def test_an_event_link_opens_that_event_only(door: Door) -> None:
    url = door.link(door.start("open_door")["id"], event="anything at all")

    for changed in (url.replace("anything", "something"), url.replace("/decide/a-1", "/decide/a-2")):
        assert door.http.post(changed, json=1).status_code == 403
    assert (
        door.http.get(url.replace("/decide/a-1/anything%20at%20all", f"{M}/instances/a-1")).status_code == 403
    )


def test_without_a_link_it_takes_a_key_or_a_session_with_its_token(door: Door) -> None:
    door.start()
    path = "/decide/a-1/ApproverDecision"

    assert door.http.post(path, json={"approved": True}).status_code == 401
    assert door.http.post(path, data=YES, headers=as_key(door.key("operate"))).status_code == 403
    read = as_key(door.key("read"))
    assert door.http.post(path, json={"approved": True}, headers=read).status_code == 403
    operate = as_key(door.key("operate"))
    assert door.http.post(path, json={"approved": True}, headers=operate).status_code == 202


def test_a_link_for_nobody_is_not_made(door: Door) -> None:
    asked = {"event": "ApproverDecision"}

    assert door.http.post(f"{M}/instances/none/links", json=asked, headers=as_key(ADMIN)).status_code == 404


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "{{ 7*7 }}", 'a"onload=x', "ä ü/ß"])
def test_names_are_shown_as_they_are(door: Door, name: str) -> None:
    door.start("open_door")
    page = door.http.get(door.link(event=name))

    assert page.status_code == 200
    assert name in unescape(page.text)
    assert "<script>alert" not in page.text
