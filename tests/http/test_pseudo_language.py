"""Every word that the pages for outsiders show comes from the catalogues, or is the application's own.

The pages are drawn in a pseudo language that wraps each text in marks. What is left outside the marks is data.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from html.parser import HTMLParser
from typing import Any

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http import languages
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, as_key
from tests.http.conftest import LOCAL

LEFT, RIGHT = "⟦", "⟧"
SHOWN = ("title", "placeholder", "aria-label", "alt")
PROSE = re.compile(r"[A-Za-z]{2,}")
NOT_TEXT = ("script", "style", "kbd", "svg", "code")
OWN = re.compile(
    r"\b(perdure|UTC|API|min|English|Deutsch|Keep|Drop|Zebra|zebras?|ask|ask-\d|pdr|PDR|admin|desk|Verdict)\b",
    re.I,
)
"""Names of the product, units and the application's own data."""


class Wrapped(dict[str, str]):
    """A catalogue with every text. What a text leaves to values stays outside the marks, so that values are read."""

    def get(self, text: str, default: Any = None) -> str:
        return "".join(
            part if part.startswith("%(") else f"{LEFT}{part}{RIGHT}"
            for part in re.split(r"(%\(\w+\)s)", text)
            if part
        )


class Words(HTMLParser):
    """Collects what a person can read or hear of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.inside: list[str] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found += [given[name] or "" for name in SHOWN if name in given]
        self.found += [
            given[name] or ""
            for name in ("data-live", "data-away", "data-no-store", "data-busy")
            if name in given
        ]
        if tag in NOT_TEXT or "lang" in given or "id" in (given.get("class") or "").split():
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not set(self.inside) - {"html"}:
            self.found.append(data)


def outside_marks(page: str) -> list[str]:
    """The words of a page that no catalogue can change."""
    words = Words()
    words.feed(page)
    left = []
    for text in words.found:
        while (without := re.sub(f"{LEFT}[^{LEFT}{RIGHT}]*{RIGHT}", "", text)) != text:
            text = without
        left += PROSE.findall(re.sub(r"\d{4}-\d\d-\d\d [\d:.]+", "", OWN.sub("", text)))
    return left


class Verdict(Enum):
    KEEP = "keep"
    DROP = "drop"


@pytest.fixture
def http(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    app = df.App("desk")

    @app.orchestrator
    async def ask(context: df.OrchestrationContext) -> Any:
        return await context.human_task(
            "Zebra", Verdict, title="Zebra", facts={"zebra": 1}, timeout=timedelta(hours=3)
        )

    @app.orchestrator
    async def zebras(context: df.OrchestrationContext) -> Any:
        return await context.wait_for_external_event("Zebra")

    wrapped = Wrapped()
    monkeypatch.setattr(languages, "_catalogue", lambda language: wrapped)
    monkeypatch.setattr(languages, "_plurals", lambda language: {})
    with TestClient(app.asgi(store="memory:", token=TOKEN, admin_key=ADMIN), base_url=LOCAL) as http:
        for name, number in (("ask", 1), ("zebras", 2)):
            http.post(f"{M}/orchestrators/{name}/ask-{number}", headers=as_key(ADMIN))
        http.headers["accept-language"] = "de"
        yield http


def link(http: TestClient, number: int) -> str:
    made = http.post(f"{M}/instances/ask-{number}/links", json={"event": "Zebra"}, headers=as_key(ADMIN))
    return str(made.json()["url"])


def test_the_inbox_has_no_word_of_its_own(http: TestClient) -> None:
    for path in (
        "/inbox",
        "/inbox?q=nothing",
        "/inbox?late=true",
        "/inbox/ask-1:0",
        "/inbox/ask-2:0",
        "/inbox/ask-9:0",
    ):
        page = http.get(path, headers=as_key(ADMIN)).text
        assert outside_marks(page) == [], path


def test_the_inbox_of_a_person_has_no_word_of_its_own(http: TestClient) -> None:
    keys = {}
    for name in ("zebra", "zebras"):
        wanted = {"name": name, "scopes": ["decide", "role:zebra"]}
        keys[name] = as_key(http.post(f"{M}/keys", json=wanted, headers=as_key(ADMIN)).json()["secret"])
    path = "/inbox/ask-1:0"
    assert outside_marks(http.get(path, headers=keys["zebra"]).text) == []
    claimed = http.post(f"{M}/tasks/ask-1:0/claim", json={}, headers=keys["zebra"])
    assert claimed.is_success, claimed.text
    for name in keys:
        page = http.get(path, headers=keys[name]).text
        assert ("held by" in page, outside_marks(page)) == (True, []), name


def test_the_pages_of_links_have_no_word_of_their_own(http: TestClient) -> None:
    browser = {"accept": "text/html"}
    for number, answer, wrong in ((1, '"keep"', '"lion"'), (2, "1", "{")):
        url = link(http, number)
        pages = {
            "form": http.get(url, headers=browser),
            "refused": http.post(url, data={"field.": wrong}, headers=browser),
            "cut": http.get(url[:-3], headers=browser),
            "changed": http.get(url.replace("Zebra", "Other"), headers=browser),
            "done": http.post(url, data={"field.": answer}, headers=browser),
            "used": http.get(url, headers=browser),
            "used again": http.post(url, data={"field.": answer}, headers=browser),
        }
        for name, page in pages.items():
            assert LEFT in page.text, name
            assert outside_marks(page.text) == [], name


def test_one_word_that_no_catalogue_knows_is_found() -> None:
    assert outside_marks(f"<p>{LEFT}Send{RIGHT} <b>now</b></p>") == ["now"]
    assert outside_marks(f'<p title="Later">{LEFT}{LEFT}Send{RIGHT} it{RIGHT}</p>') == ["Later"]
