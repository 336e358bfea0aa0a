"""What strangers write and others look at: payloads of every kind, on every page that a browser can open.

The pages come from the router. Each is read as a browser reads it; what it consists of has to be ours.
"""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, LOCAL, Door, as_key
from tests.http.test_pages import OURS

MARKS = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert&#40;1)</script>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" autofocus onfocus=alert(1) x="',
    "' onmouseover='alert(1)",
    "` onerror=alert(1) `",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre></code><iframe src=javascript:alert(1)>",
    "</script><script>alert(1)</script>",
    "--><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "javascript:alert(1)",
    "jAvAsCrIpT&colon;alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<a href=javascript:alert(1)>x</a>",
    "<form action=//evil.example><input name=csrf>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content=0;url=//evil.example>",
    "<link rel=stylesheet href=//evil.example>",
    "<style>*{display:none}</style>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<object data=//evil.example>",
    "<input type=hidden name=csrf value=x>",
    "{{7*7}}{% include 'keys.html' %}${7*7}#{7*7}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u2028\u202e<b>evil</b>",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
)
# What else pages are made of that are not about one instance.
PROSE = frozenset({"dl", "dt", "dd", "article", "br", "strong", "em", "i", "ol", "h3", "h4", "hr", "kbd"})
SOURCES = ("src", "href", "action", "formaction", "data", "srcset", "poster", "background", "cite")


class Seen(HTMLParser):
    """The elements and attributes that a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def app_of_strangers() -> df.App:
    app = df.App("strangers")

    @app.orchestrator
    async def asking(context: df.OrchestrationContext) -> object:
        context.set_custom_status({"status": context.get_input()})
        return await context.wait_for_external_event("go")

    @app.orchestrator
    async def failing(context: df.OrchestrationContext) -> object:
        raise ValueError(context.get_input())

    @app.orchestrator
    async def waiting(context: df.OrchestrationContext, event: str) -> object:
        return await context.wait_for_external_event(event)

    @app.queue("letters", retry=df.RetryPolicy(first_interval=0.001, max_attempts=1))
    async def letters(message: Any) -> None:
        raise ValueError(str(message))

    @app.schedule("0 0 1 1 *", name="yearly")
    async def yearly(client: df.Client) -> None: ...

    return app


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    host = app_of_strangers().asgi(store="memory:", admin_key=ADMIN, rate_limit=1_000_000)
    with TestClient(host, base_url=LOCAL) as http:
        yield Door(http, host)


def write_everywhere(door: Door, mark: str) -> list[str]:
    """Put the payload where text can be put; returns the ids of instances that bear it."""
    send = as_key(ADMIN)
    shown = mark if mark.isprintable() else re.sub(r"[^ -~]", "", mark)
    body = mark.replace("\x00", "")
    id_ = f"{MARKS.index(mark)}{re.sub(r'[/#?]', '', shown)}".replace("\\", "").replace("::", ":")

    def post(path: str, **more: Any) -> Any:
        answer = door.http.post(M + path, headers=send, **more)
        assert answer.status_code < 300, (path, answer.text)
        return answer.json() if answer.content else None

    ids = [
        post(f"/orchestrators/asking/{quote(id_)}", json=body, params={"tag": f"{shown}={shown}"})["id"],
        post("/orchestrators/failing", json={body: body})["id"],
        post("/orchestrators/waiting", json=shown[:190])["id"],
    ]
    post(f"/instances/{quote(id_)}/suspend", params={"reason": shown})
    post("/queues/letters", json=body)
    post("/schedules/yearly/pause", params={"reason": shown})
    post("/keys", json={"name": shown[:100], "scopes": ["read"]})
    door.http.post(f"{M}/orchestrators/asking/{quote(id_)}", headers={"x-functions-key": "wrong"})
    door.http.get(f"{M}/instances/{ids[1]}?wait=60", headers=send)
    return ids


@pytest.mark.parametrize("mark", MARKS)
def test_what_strangers_write_is_text_on_every_page(door: Door, mark: str) -> None:
    ids = write_everywhere(door, mark)
    query = dict.fromkeys(("name", "prefix", "who", "operation", "instance", "next", "done", "q"), mark)
    opened = 0
    for row in door.rows():
        if not row.is_page or "GET" not in row.methods:
            continue
        for id_ in ids if "{id}" in row.path else [""]:
            path = row.path.replace("{id}", quote(id_)).replace("{event:path}", quote(mark[:50]))
            path = (
                path.replace("{number}", "PDR-001").replace("{name}", "yearly").replace("{queue}", "letters")
            )
            answer = door.http.get(path, params={} if id_ else query, headers=as_key(ADMIN))
            assert answer.status_code < 500, (path, answer.text)
            assert_ours(answer.text, path)
            opened += 1
    assert opened > 11


def assert_ours(text: str, path: str) -> None:
    seen = Seen(text)
    assert seen.names <= OURS | PROSE, (path, seen.names - OURS)
    for name, value in seen.attributes:
        assert not name.startswith("on") and name != "style", (path, name)
        if name in SOURCES and value:
            assert value.startswith(("/", "?", "#", "data:image/svg+xml")), (path, value)
            assert not value.startswith("//"), (path, value)


def test_what_is_sent_back_as_json_is_no_page(door: Door) -> None:
    for mark in MARKS[:4]:
        for path in (
            f"/instances/{quote(mark, safe='')}",
            f"/orchestrators/{quote(mark, safe='')}",
            "/instances",
        ):
            answer = door.http.get(M + path, params={"runtimeStatus": mark}, headers=as_key(ADMIN))
            assert "html" not in answer.headers["content-type"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            json.loads(answer.text)
