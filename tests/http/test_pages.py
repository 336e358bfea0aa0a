"""The pages as they are sent: what they show, what they escape, which forms they accept."""

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http import formatting
from tests.http.conftest import LOCAL, M, finish, start

NASTY = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'`{{7*7}}"


# fmt: off
OURS = {
    "html", "head", "meta", "title", "link", "script", "noscript", "body", "header", "nav", "a", "svg",
    "path", "span", "main", "section", "form", "label", "input", "datalist", "option", "button",
    "table", "thead", "tbody", "tr", "th", "td", "time", "p", "h1", "h2", "h3", "b", "q", "code", "pre",
    "div", "details", "summary", "fieldset", "legend", "line", "rect", "text", "ul", "li", "textarea",
    "select", "dialog", "footer", "dl", "dt", "dd", "kbd", "figure", "small",
}
# fmt: on


class Tags(HTMLParser):
    """The tags and attributes that a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))


@dataclass
class Page:
    """A page with its hidden form fields."""

    text: str

    def hidden(self, name: str) -> str:
        found = re.search(rf'name="{name}" value="([^"]*)"', self.text)
        assert found, name
        return found[1]


def open_page(http: TestClient, path: str) -> Page:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


def post(http: TestClient, page: Page, path: str, **fields: str) -> Any:
    hidden = {"csrf": page.hidden("csrf"), "operation": page.hidden("operation")}
    return http.post(path, data={**hidden, **fields}, headers={"Origin": LOCAL})


def test_the_hub_page_lists_newest_first_with_status_and_sentence(http: TestClient) -> None:
    start(http, "sleeper", "older")
    start(http, "approval", "newer")

    text = http.get("/instances").text

    assert text.index(">newer</a>") < text.index(">older</a>")
    assert "waiting for the event &#39;ApproverDecision&#39;" in text
    assert 'class="status running"' in text
    assert "<b>2</b> Running" in text


def test_the_hub_page_filters_and_pages(http: TestClient) -> None:
    for number in range(60):
        start(http, "sleeper", f"s-{number:02}")
    start(http, "approval", "a-1")

    first = http.get("/instances?name=sleeper").text
    older = re.search(r'<a href="(/instances\?[^"]*)">Older</a>', first)
    assert older is not None
    second = http.get(older[1].replace("&amp;", "&")).text

    assert ">s-59</a>" in first
    assert ">s-00</a>" not in first
    assert ">a-1</a>" not in first
    assert ">s-00</a>" in second
    assert ">a-1</a>" in http.get("/instances?waiting_for=ApproverDecision").text
    assert "No instance matches" in http.get("/instances?status=Failed").text


@pytest.mark.parametrize("query", ["status=Sleeping", "continuation=x"])
def test_a_filter_that_makes_no_sense_is_said_to_make_none(http: TestClient, query: str) -> None:
    answer = http.get(f"/instances?{query}")

    assert answer.status_code == 400
    assert 'role="alert"' in answer.text


def test_an_empty_hub_says_how_to_begin(http: TestClient) -> None:
    assert "No instance has been started yet" in http.get("/instances").text


def test_an_instance_nobody_knows_is_a_page_too(http: TestClient) -> None:
    answer = http.get("/instances/nobody")

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "no instance &#39;nobody&#39;" in answer.text


def test_the_instance_page_shows_the_sentence_the_form_and_the_history(http: TestClient) -> None:
    start(http, "approval", "a-1", {"amount": 12})

    text = http.get("/instances/a-1").text

    assert "Waiting for the event &#39;ApproverDecision&#39; since" in text
    assert 'name="field.approved" value="true"' in text
    assert 'name="field.comment"' in text
    assert "event awaited" in text
    assert "&#34;amount&#34;: 12" in text
    assert 'data-refresh="2"' in text


def test_a_finished_page_does_not_reload(http: TestClient) -> None:
    start(http, "echo", "e-1")
    finish(http, "e-1")

    text = http.get("/instances/e-1").text

    assert "data-refresh" not in text
    assert 'http-equiv="refresh"' not in text


def test_parent_and_child_are_linked(http: TestClient) -> None:
    start(http, "family", "f-1")
    finish(http, "f-1")

    child = re.search(r'href="/instances/(f-1::[^"]+)"', http.get("/instances/f-1").text)

    assert child is not None
    assert 'href="/instances/f-1"' in http.get(f"/instances/{child[1]}").text


def test_the_form_completes_the_instance(http: TestClient) -> None:
    start(http, "approval", "a-1")
    page = open_page(http, "/instances/a-1")

    answer = post(
        http,
        page,
        "/instances/a-1/answer",
        **{"event": "ApproverDecision", "field.approved": "true", "field.comment": "fine\r\nby me"},
    )

    assert answer.status_code == 303
    assert answer.headers["location"] == "/instances/a-1?done=event"
    assert finish(http, "a-1")["output"] == "APPROVED"
    assert "The event was accepted." in http.get(answer.headers["location"]).text
    assert "fine\\\\nby me" in http.get("/instances/a-1").text.replace("&#34;", '"').replace("\\n", "\\\\n")


def test_of_two_who_decide_the_second_is_told_so(http: TestClient) -> None:
    start(http, "approval", "a-1")
    one, other = open_page(http, "/instances/a-1"), open_page(http, "/instances/a-1")
    asked = "/instances/a-1/answer"

    first = post(http, one, asked, **{"event": "ApproverDecision", "field.approved": "true"})
    second = post(http, other, asked, **{"event": "ApproverDecision", "field.approved": "false"})

    assert first.status_code == 303
    assert second.status_code == 409
    assert "no longer waits" in second.text
    assert finish(http, "a-1")["output"] == "APPROVED"


def test_a_form_that_was_refused_comes_back_as_it_was_filled_in(http: TestClient) -> None:
    start(http, "approval", "a-1")
    page = open_page(http, "/instances/a-1")

    answer = post(
        http, page, "/instances/a-1/answer", **{"event": "ApproverDecision", "field.comment": "no choice"}
    )

    assert answer.status_code == 400
    assert "Approved is required" in answer.text
    assert 'value="no choice"' in answer.text
    assert http.get(f"{M}/instances/a-1").status_code == 202


def test_any_other_event_can_be_raised(http: TestClient) -> None:
    start(http, "open_door", "o-1")
    page = open_page(http, "/instances/o-1")
    path = "/instances/o-1/event"

    bad = post(http, page, path, event="anything at all", **{"field.": "{"})
    good = post(http, page, path, event="anything at all", **{"field.": '{"a": [1]}'})

    assert (bad.status_code, good.status_code) == (400, 303)
    assert finish(http, "o-1")["output"] == {"a": [1]}


def test_only_a_failed_instance_can_be_rewound_by_button(http: TestClient) -> None:
    start(http, "broken", "b-1")
    finish(http, "b-1")
    start(http, "echo", "e-1", {"a": 1})
    finish(http, "e-1")

    page = open_page(http, "/instances/b-1")
    answer = post(http, page, "/instances/b-1/rewind", reason="mended")
    finish(http, "b-1")

    assert answer.headers["location"] == "/instances/b-1?done=rewind"
    assert "ExecutionRewound" in open_page(http, "/instances/b-1").text
    assert "/instances/e-1/rewind" not in open_page(http, "/instances/e-1").text


def test_the_buttons_do_what_they_say(http: TestClient) -> None:
    start(http, "sleeper", "s-1")
    here = "/instances/s-1"

    page = open_page(http, here)
    assert post(http, page, f"{here}/suspend", reason="audit").headers["location"] == f"{here}?done=suspend"
    page = open_page(http, here)
    assert "Suspended by an operator" in page.text
    assert post(http, page, f"{here}/resume").status_code == 303
    page = open_page(http, here)
    assert post(http, page, f"{here}/terminate", reason="enough").status_code == 303
    page = open_page(http, here)
    assert "Terminated: enough" in page.text
    restarted = post(http, page, f"{here}/restart").headers["location"]
    assert restarted.startswith("/instances/")
    assert not restarted.startswith(here)
    page = open_page(http, here)
    assert post(http, page, f"{here}/purge").headers["location"] == "/?done=purge"
    assert http.get(here).status_code == 404


def test_a_button_out_of_season_is_refused_on_the_page(http: TestClient) -> None:
    start(http, "echo", "e-1")
    finish(http, "e-1")
    page = open_page(http, "/instances/e-1")

    answer = post(http, page, "/instances/e-1/terminate")

    assert answer.status_code == 410
    assert 'role="alert"' in answer.text
    assert post(http, page, "/instances/nobody/terminate").status_code == 404
    assert post(http, page, "/instances/nobody/purge").status_code == 404
    assert post(http, page, "/instances/e-1/explode").status_code == 404


def test_the_cookie_of_the_forms_is_out_of_reach(http: TestClient) -> None:
    start(http, "sleeper", "s-1")

    cookie = http.get("/instances/s-1").headers["set-cookie"].lower()

    assert "samesite=strict" in cookie
    assert "httponly" in cookie


@pytest.mark.parametrize("forged", ["", "x", "y" * 32])
def test_a_form_without_the_token_is_refused(http: TestClient, forged: str) -> None:
    start(http, "sleeper", "s-1")
    page = open_page(http, "/instances/s-1")

    answer = http.post(
        "/instances/s-1/terminate", data={"csrf": forged, "operation": page.hidden("operation")}
    )
    http.cookies.clear()
    bare = http.post("/instances/s-1/terminate", data={"csrf": page.hidden("csrf")})

    assert (answer.status_code, bare.status_code) == (403, 403)
    assert http.get(f"{M}/instances/s-1").json()["runtimeStatus"] == "Running"


def test_a_posted_body_that_is_no_form_is_refused(http: TestClient) -> None:
    open_page(http, "/")

    assert http.post("/instances/x/terminate", content=b"\xff=%zz").status_code == 400


def test_everything_that_comes_from_outside_is_escaped() -> None:
    app = df.App("nasty")

    @app.orchestrator(name="<b>nasty")
    async def nasty(context: df.OrchestrationContext) -> object:
        context.set_custom_status({NASTY: NASTY})
        await context.wait_for_external_event("<i>'\"go")
        raise ValueError(NASTY)

    with TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL) as http:
        instance_id = "<u>'\"id"
        here = http.post(
            f"{M}/orchestrators/<b>nasty/{instance_id}", json={NASTY: NASTY}, params={"tag": f"<a>={NASTY}"}
        ).json()["statusQueryGetUri"]
        pages = [
            http.get("/"),
            http.get(f"/instances/{instance_id}"),
            http.get(f"/instances?prefix={NASTY}&name={NASTY}"),
        ]
        http.post(here + "/raiseEvent/<i>'\"go", json=NASTY)
        http.get(here + "?wait=60")
        pages += [
            http.get("/"),
            http.get(f"/instances/{instance_id}"),
            http.get("/instances/" + quote(NASTY.replace("/", ""))),
        ]

    for page in pages:
        tags = Tags(page.text)
        assert tags.names <= OURS
        assert not [name for name in tags.attributes if name.startswith("on") or name == "style"]
        assert [re.sub(r"\.[0-9a-f]{12}", "", script) for script in tags.scripts] == ["/static/perdure.js"]
        assert "{{" not in page.text.replace("{{7*7}}", "")


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [([], ""), ([7], "7"), (range(32), "0-31"), ([9, 1, 0, 3, 8], "0-1, 3, 8-9")],
)
def test_partitions_that_follow_each_other_are_drawn_together(numbers: list[int], shown: str) -> None:
    assert formatting.ranges(numbers) == shown


def test_a_failure_s_page_tells_the_members_of_a_group_and_what_was_being_handled() -> None:
    app = df.App("groups")

    @app.orchestrator
    def pay(context: df.OrchestrationContext) -> None:
        try:
            raise KeyError("ledger")
        except KeyError:
            raise ExceptionGroup("both went wrong", [ValueError("<4711>"), OSError("disk")])  # noqa: B904

    with TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL) as http:
        start(http, "pay", "g1")
        finish(http, "g1")
        text = http.get("/instances/g1").text
        shown = http.get(f"{M}/instances/g1").json()

    assert '<span class="soft">one of them</span> <b>ValueError</b>: &lt;4711&gt;' in text
    assert '<span class="soft">one of them</span> <b>OSError</b>: disk' in text
    assert '<span class="soft">raised while handling</span> <b>KeyError</b>' in text
    assert "<4711>" in shown["output"]
    assert [member["type"] for member in shown["failure"]["members"]] == ["ValueError", "OSError"]


def test_the_page_of_an_instance_can_be_zoomed_ordered_and_unfolded_by_links(http: TestClient) -> None:
    start(http, "family", "f-1")

    for query in ("from=0&to=0.001&idle=hide", "order=start&idle=show", "group=x&kind=y&skip=5", "from=nan"):
        answer = http.get(f"/instances/f-1?{query}")
        assert answer.status_code == 200
        assert 'id="timeline"' in answer.text
