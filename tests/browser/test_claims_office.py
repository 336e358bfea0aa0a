"""The claims office in browsers: a claimant, two adjusters and a manager at once, from the filing to the payment."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

import perdure as df
from examples.claims import app, connections
from examples.claims.demo.report import audit, book_in
from examples.claims.demo.stage import Stage
from examples.claims.screens.office import office
from examples.claims.screens.room import Room
from examples.claims.services.photos.store import PhotoStore
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN
from tests.browser.conftest import Site

STAFF = "the-key-of-the-staff"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


class OfficeSite(Site):
    """The office on a thread of its own, as a client of the server."""

    def __init__(self, server: Site, home: Path) -> None:
        super().__init__(app)
        photos = PhotoStore(home / "photos")
        room = Room(None, connections.people(), connections.links(), photos, STAFF)  # type: ignore[arg-type]
        site = office(room)

        @asynccontextmanager
        async def connected(_: Any) -> AsyncIterator[None]:
            async with df.connect(server.url, key=ADMIN) as room.client:
                book = book_in(home / "claims-bank.db")
                room.stage = Stage(_World(room.client), lambda: audit(room.client, (), book))
                yield
            room.people.close()

        site.router.lifespan_context = connected
        self.config = uvicorn.Config(
            site, port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        self.server = uvicorn.Server(self.config)


class _World:
    """A world in which no story is played."""

    def __init__(self, client: df.Client) -> None:
        self.client = client
        self.urls: dict[str, str] = {}
        self.server = type("NoServer", (), {"pid": 0, "store": "none"})


@pytest.fixture
def offices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Site, Site]]:
    monkeypatch.setenv("CLAIMS_HOME", str(tmp_path))
    with Site(app, admin_key=ADMIN).served() as server, OfficeSite(server, tmp_path).served() as opened:
        yield server, opened


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    Image.effect_noise((640, 480), 80).convert("RGB").save(path)
    return path


def a_page(browser: Browser, size: dict[str, int], **context: Any) -> Page:
    return browser.new_context(viewport=size, **context).new_page()  # type: ignore[arg-type]


def adjuster(browser: Browser, server: Site, name: str) -> Page:
    page = a_page(browser, DESK)
    body = {"name": name, "scopes": ["decide", "role:adjuster"]}
    made = page.request.post(f"{server.url}{M}/keys", data=body, headers={"x-functions-key": ADMIN})
    page.goto(f"{server.url}/inbox?token={made.json()['secret']}")
    return page


def tell(page: Page, repair: str) -> None:
    """Fill in the first step."""
    page.get_by_label("Policy number").fill("V-318-2046")
    page.get_by_label("A crash with another car").check()
    for label, value in (("Day", "26"), ("Month", "11"), ("Year", "2026")):
        page.get_by_label(label, exact=True).fill(value)
    page.get_by_label("Front left").check()
    page.get_by_label("What will the repair cost?").fill(repair)
    page.get_by_label("No", exact=True).check()
    page.get_by_label("There is none").check()
    page.get_by_role("button", name="Next: photos").click()


def file_claim(page: Page, opened: Site, photo: Path, repair: str) -> str:
    page.goto(f"{opened.url}/file")
    tell(page, repair)
    page.set_input_files("input[multiple]", photo)
    expect(page.get_by_text("1 sent")).to_be_visible()
    page.get_by_role("button", name="Next: check").click()
    page.get_by_label("Mobile number").fill("+1 202 555 0117")
    page.get_by_label("Account that we pay to").fill("DE00 4417")
    page.get_by_role("button", name="Send my claim").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("An adjuster has until")
    found = re.search(r"/claim/(VI-\d+)/", page.url)
    assert found is not None
    return found[1]


def test_a_photo_that_is_chosen_before_the_script_has_come_is_sent(
    browser: Browser, offices: tuple[Site, Site], photo: Path
) -> None:
    _, opened = offices
    page = a_page(browser, PHONE)
    held: list[Route] = []
    page.route("**/claimant.js*", lambda route: held.append(route))
    page.goto(f"{opened.url}/file", wait_until="commit")
    tell(page, "5,000")
    page.set_input_files("input[multiple]", photo)
    expect(page.get_by_text("0 sent")).to_be_visible()
    held[-1].continue_()
    expect(page.get_by_text("1 sent")).to_be_visible()
    page.context.close()


def decide(page: Page, server: Site, claim_id: str, verdict: str, reason: str) -> None:
    tasks = page.request.get(f"{server.url}{M}/tasks", headers={"x-functions-key": ADMIN}).json()
    [task] = [task["id"] for task in tasks if task["instanceId"] == f"{claim_id}.review"]
    page.goto(f"{server.url}/inbox/{task}")
    page.get_by_label(verdict, exact=False).first.check()
    page.get_by_label("Reason").fill(reason)
    page.locator("form button.primary", has_text=re.compile(verdict + "|Send", re.IGNORECASE)).click()
    expect(page.get_by_role("status").filter(has_text="recorded")).to_be_visible()


def test_a_claim_from_the_phone_to_the_money_in_four_browsers(
    browser: Browser, offices: tuple[Site, Site], photo: Path
) -> None:
    server, opened = offices
    customer, manager = a_page(browser, PHONE), a_page(browser, DESK)
    ada, ben = (
        adjuster(browser, server, "ada@insurer.example"),
        adjuster(browser, server, "ben@insurer.example"),
    )
    manager.goto(f"{opened.url}/board?key={STAFF}")
    claim_id = file_claim(customer, opened, photo, "60,000")
    expect(customer.get_by_text("read by two people")).to_be_visible()

    # Two people decide; the first of them can ask at once.
    decide(ada, server, claim_id, "ask for more", "a photo of the left door")
    expect(customer.get_by_role("heading", level=1)).to_have_text(re.compile("We need .* from you"))
    expect(customer.get_by_text("A photo of the left door.")).to_be_visible()
    customer.set_input_files("input[type=file]", photo)
    customer.get_by_role("button", name="Send").click()
    expect(customer.get_by_role("heading", level=1)).to_contain_text("An adjuster has until")

    for page in (ada, ben):
        decide(page, server, claim_id, "Approve", "The damage fits.")
    expect(customer.get_by_role("heading", level=1)).to_have_text("We have paid")
    expect(customer.get_by_text("$59,000")).to_be_visible()
    expect(manager.locator(".tile", has_text="Paid out")).to_contain_text("$59,000")
    for page in (customer, manager, ada, ben):
        page.context.close()


@pytest.mark.parametrize(("size", "scheme"), [(PHONE, "dark"), (DESK, "light")])
def test_every_page_of_the_office_is_accessible_and_scrolls_in_one_direction(
    browser: Browser, offices: tuple[Site, Site], photo: Path, size: dict[str, int], scheme: str
) -> None:
    _, opened = offices
    page = a_page(browser, size, color_scheme=scheme)
    problems: list[str] = []

    def check(name: str) -> None:
        found = Axe().run(page).response["violations"]
        problems.extend(f"{name}: {one['id']} {one['nodes'][0]['html'][:120]}" for one in found)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            problems.append(f"{name} scrolls sideways")

    page.goto(f"{opened.url}/file")
    page.get_by_role("button", name="Next: photos").click()
    check("the first step with faults")
    claim_id = file_claim(page, opened, photo, "20000")
    check("the page of a claim")
    for path in ("/stage", "/board", f"/dossier/{claim_id}", "/nowhere"):
        page.goto(f"{opened.url}{path}?key={STAFF}")
        check(path)
    page.context.close()
    assert problems == []


def test_the_pages_need_no_script(browser: Browser, offices: tuple[Site, Site], photo: Path) -> None:
    _, opened = offices
    with httpx2.Client(base_url=opened.url, trust_env=False) as http:
        assert "Next: photos" in http.get("/file").text
    page = a_page(browser, PHONE, java_script_enabled=False)
    page.goto(f"{opened.url}/board?key={STAFF}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Today: nothing lost")
    page.context.close()
