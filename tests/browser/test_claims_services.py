"""The pages of the bank and the post: accessible, no wider than a phone, and up to date by themselves."""

import threading
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect
from starlette.applications import Starlette

from examples.claims.services.bank.service import make as make_bank
from examples.claims.services.post.service import make as make_post
from tests.browser.conftest import Site

LONG = "a-very-long-word-that-no-line-has-room-for-" * 3
LOOKS = ({"width": 1280, "height": 900}, "light"), ({"width": 390, "height": 844}, "dark")


class ServiceSite(Site):
    """A service on a thread of its own."""

    def __init__(self, service: Starlette) -> None:
        self.config = uvicorn.Config(service, port=0, log_config=None, access_log=False)
        self.server = uvicorn.Server(self.config)
        self.ready = threading.Event()


def pay(http: httpx2.Client, number: int, word: str = "") -> None:
    body = {
        "claim_id": f"VI-{number}{word}",
        "amount": 1_000 + number,
        "account": "closed" if number == 3 else "DE",
    }
    assert (
        http.post("/payments", json=body, headers={"Idempotency-Key": f"key-{number}{word}"}).is_success
        or number == 3
    )


def send(http: httpx2.Client, number: int, word: str = "") -> None:
    link = {
        "label": f"Your claim {word}",
        "url": f"https://insurer.example/claim/{number}/{word}",
        "about": "one use",
    }
    body = {
        "key": f"key-{number}{word}", "kind": "text" if number % 2 else "mail", "to": f"Customer {number} {word}",
        "address": "a", "claim_id": "VI-1", "subject": f"Message {number} {word}", "text": f"- {word}\n\n{word}",
        "links": [link],
    }  # fmt: skip
    assert http.post("/messages", json=body).is_success


CASES = [
    pytest.param(make_bank, pay, "VI-9", id="bank"),
    pytest.param(make_post, send, "Message 9", id="post"),
]


@pytest.mark.parametrize(("make", "fill", "newest"), CASES)
def test_a_page_is_accessible_fits_a_phone_and_keeps_itself_up_to_date(
    browser: Browser,
    tmp_path: Path,
    make: Callable[[Path], Starlette],
    fill: Callable[..., None],
    newest: str,
) -> None:
    with (
        ServiceSite(make(tmp_path)).served() as site,
        httpx2.Client(base_url=site.url, trust_env=False, timeout=60) as http,
    ):
        for number in range(1, 6):
            fill(http, number)
        fill(http, 6, LONG)
        for size, scheme in LOOKS:
            page = browser.new_page(viewport=size, color_scheme=scheme)
            said: list[str] = []
            page.on("console", lambda message, said=said: said.append(message.text))
            page.goto(site.url)
            found = Axe().run(page).response["violations"]
            assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
            page.close()
            assert said == []  # the strict policy forbids nothing that the page has

        page = browser.new_page()
        page.goto(site.url)
        fill(http, 9)
        expect(page.get_by_text(newest).first).to_be_visible()
        page.close()
