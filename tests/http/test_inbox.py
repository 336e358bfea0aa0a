"""The inbox: what a person sees, how they answer, and what they are told when another was faster."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient

from perdure.engine.client.tasks import OpenTask
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.host import Host
from perdure.http.task_sentences import deadline_sentence, due_in_short
from tests.access.conftest import ADMIN, TOKEN, Door, as_key
from tests.access.test_tasks import ADA, BEN, SAM, desk_app
from tests.http.conftest import LOCAL

NOW = datetime(2026, 12, 1, 17, 50, tzinfo=UTC)


@pytest.fixture
def door() -> Iterator[Door]:
    host: Host = desk_app().asgi(store="memory:", token=TOKEN, admin_key=ADMIN)
    with TestClient(host, base_url=LOCAL, follow_redirects=True) as http:
        yield Door(http, host)


class Person:
    """A person's browser."""

    def __init__(self, door: Door, name: str, *roles: str) -> None:
        self.http = TestClient(door.host, base_url=LOCAL, follow_redirects=True)
        key = door.key("decide", *(f"role:{role}" for role in roles), name=name)
        self.http.get("/login")
        landed = self.http.post("/login", data={"key": key, "csrf": self.csrf, "next": "/"})
        assert landed.url.path == "/inbox", landed.url

    @property
    def csrf(self) -> str:
        return str(self.http.cookies["perdure_csrf"])

    def look(self, path: str = "/inbox") -> str:
        return unescape(self.http.get(path).text)

    def press(self, task: str, verb: str, **fields: str) -> Any:
        data = {"csrf": self.csrf, "operation": f"{task}{verb}{sorted(fields.items())}", **fields}
        return self.http.post(f"/inbox/{task}/{verb}", data=data)


def test_a_person_answers_and_goes_on_with_the_next(door: Door) -> None:
    door.start("review", "r-1")
    door.start("photo", "p-1")
    ada, ben = Person(door, ADA, "adjuster"), Person(door, BEN, "adjuster")
    shown = ada.look("/inbox/r-1:0")
    for expected in ("Pay claim 7?", "51200", "Due in 3 days", "Pay the claim, or deny it.", "1 of 2"):
        assert expected in shown
    assert "checked" not in shown, "nothing is preselected"

    answered = ada.press("r-1:0", "complete", **{"field.approve": "true"})
    assert answered.url.path == "/inbox/r-1:0", (
        "the second decision of this task is the next task of the list"
    )
    again = ada.press("r-1:0", "complete", **{"field.approve": "false"})
    assert (again.status_code, "another person must give the next" in again.text) == (403, True)
    answered = ben.press("r-1:0", "complete", **{"field.approve": "true"})
    assert (answered.url.path, "Your answer was recorded." in answered.text) == ("/inbox/p-1:0", True)
    late = ada.press("r-1:0", "complete", **{"field.approve": "true"})
    assert (late.status_code, "Nothing was sent: this task is no longer open" in late.text) == (409, True)
    status = door.http.get(f"{M}/instances/r-1", headers=as_key(ADMIN)).json()
    assert status["output"] == [[True, True], [ADA, BEN]]


def test_a_claimed_task_is_its_holders(door: Door) -> None:
    door.start("review", "r-1")
    ada, ben = Person(door, ADA, "adjuster"), Person(door, BEN, "adjuster")
    assert "The task is yours." in ada.press("r-1:0", "claim").text
    assert "held by you" in ada.look("/inbox/r-1:0")
    assert f"{ADA} has claimed this task" in ben.look("/inbox/r-1:0")
    held = ben.press("r-1:0", "claim")
    assert (held.status_code, f"{ADA} claimed this task at" in unescape(held.text)) == (409, True)
    refused = ben.press("r-1:0", "complete", **{"field.approve": "true"})
    assert refused.status_code == 409
    assert "Pay claim 7?" not in ben.look("/inbox?mine=true")
    assert "Pay claim 7?" in ada.look("/inbox?mine=true")

    assert "The task was passed on." in ada.press("r-1:0", "assign", to=BEN).text
    assert "for you" in ben.look("/inbox?mine=true")


def test_what_was_typed_is_kept_when_it_does_not_fit(door: Door) -> None:
    door.start("review", "r-1")
    ada = Person(door, ADA, "adjuster")
    refused = ada.press("r-1:0", "complete")
    assert (refused.status_code, "Approve is required" in refused.text) == (400, True)


def test_another_role_sees_nothing_of_it(door: Door) -> None:
    door.start("review", "r-1")
    sam = Person(door, SAM, "supervisor")
    assert "Pay claim 7?" not in sam.look()
    hidden = sam.http.get("/inbox/r-1:0")
    assert (hidden.status_code, "Pay claim 7?" in hidden.text) == (404, False)
    assert sam.press("r-1:0", "complete", **{"field.approve": "true"}).status_code == 409
    assert sam.http.get("/").status_code == 403


def test_a_form_of_another_site_answers_nothing(door: Door) -> None:
    door.start("review", "r-1")
    ada = Person(door, ADA, "adjuster")
    sent = ada.http.post("/inbox/r-1:0/complete", data={"field.approve": "true", "csrf": "x" * 32})
    assert sent.status_code == 403
    assert door.http.get(f"{M}/tasks", headers=as_key(ADMIN)).json()[0]["givenBy"] == []


def test_markup_in_titles_and_facts_is_text(door: Door) -> None:
    door.http.post(f"{M}/orchestrators/hostile/h-1", json="<script>alert(1)</script>", headers=as_key(ADMIN))
    ada = Person(door, ADA, "adjuster")
    for path in ("/inbox", "/inbox/h-1:0", "/inbox?q=<script>", "/inbox?role=<script>"):
        assert "<script>alert" not in ada.http.get(path).text


def task(**changes: Any) -> OpenTask:
    known: dict[str, Any] = {"id": "a:0", "instance_id": "a", "orchestrator": "o", "event": "E", "title": "T"}
    return OpenTask(**{**known, "since": NOW, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence", "short"),
    [
        ({}, "No deadline.", "no deadline"),
        (
            {"due": NOW + timedelta(hours=2, minutes=10), "then": "it goes to the supervisor"},
            "Due in 2 h 10 min, today at 20:00 UTC. Then it goes to the supervisor.",
            "2 h 10 min",
        ),
        (
            {"due": NOW - timedelta(minutes=12)},
            "12 min late: it was due today at 17:38 UTC.",
            "12 min late",
        ),
        (
            {"due": NOW + timedelta(days=3), "escalation": (NOW + timedelta(hours=24), "supervisor")},
            "Due in 1 day, tomorrow at 17:50 UTC. Then it goes to the role supervisor. "
            "Its deadline is on Fri 4 Dec at 17:50 UTC.",
            "Wed 2 Dec, 17:50",
        ),
        (
            {"escalation": (NOW + timedelta(hours=3), "supervisor")},
            "Due in 3 h, today at 20:50 UTC. Then it goes to the role supervisor.",
            "3 h",
        ),
        (
            {"due": NOW + timedelta(seconds=20)},
            "Due in less than a minute, today at 17:50 UTC.",
            "< 1 min",
        ),
    ],
)
def test_the_sentence_of_a_deadline(changes: dict[str, Any], sentence: str, short: str) -> None:
    assert deadline_sentence(task(**changes), NOW) == sentence
    assert due_in_short(task(**changes), NOW) == short


def test_a_filter_can_be_saved_as_a_view_and_forgotten(door: Door) -> None:
    door.start("review", "r-1")
    ada = Person(door, ADA, "adjuster")
    page = ada.look("/inbox?q=claim")
    assert "Save this view as" in page
    form = {"csrf": ada.csrf, "name": " my  claims "}
    kept = ada.http.post("/inbox?q=claim", data=form, follow_redirects=False)
    assert (kept.status_code, kept.headers["location"]) == (303, "/inbox?q=claim")
    page = ada.look("/inbox?q=claim")
    assert '<a href="/inbox?q=claim" aria-current="page">my claims</a>' in page
    ada.http.post("/inbox?q=claim", data={"csrf": ada.csrf, "forget": "my claims"})
    assert "my claims" not in ada.look("/inbox")


def test_the_overdue_are_a_view(door: Door) -> None:
    door.start("review", "r-1")
    ada = Person(door, ADA, "adjuster")
    assert "Pay claim 7?" in ada.look("/inbox")
    assert "Pay claim 7?" not in ada.look("/inbox?late=true")


def test_opening_an_earlier_decision_is_put_on_record(door: Door) -> None:
    door.start("review", "r-1")
    ada, ben = Person(door, ADA, "adjuster"), Person(door, BEN, "adjuster")
    ada.press("r-1:0", "complete", **{"field.approve": "true"})
    before = ben.look("/inbox/r-1:0")
    assert ADA in before and '"approve"' not in before, "who has decided is shown, and not what"
    assert door.audit(operation="open_decisions") == []

    opened = unescape(ben.press("r-1:0", "decisions").text)
    assert '{"approve":true}' in opened.replace(" ", "").replace("\n", "")
    [row] = door.audit(operation="open_decisions")
    assert (row["who"].split(" (")[0], row["detail"], row["outcome"]) == (BEN, "r-1:0", "ok")

    sam = Person(door, "sam@example.org", "supervisor")
    assert sam.press("r-1:0", "decisions").status_code == 409, "who may not decide may not look"
