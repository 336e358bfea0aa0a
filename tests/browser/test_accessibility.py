"""Every page, in light on a desktop and in dark on a phone: axe-core finds nothing, and nothing scrolls sideways."""

from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.browser.conftest import Site
from tests.http.conftest import make_app

ADMIN, ADA = "the-administrators-own-long-key", "ada@example.org"
KEY = {"x-functions-key": ADMIN}
LONG = "a-very-long-word-that-no-line-has-room-for-" * 4


class Verdict(Enum):
    PAY = "pay"
    "The claim is paid at once."
    DENY = "deny"


def busy_app() -> df.App:
    app = make_app()

    @app.orchestrator
    async def desk(context: df.OrchestrationContext, number: int) -> Any:
        task = context.human_task(
            "Decide",
            Verdict,
            title=f"Pay claim {number}? {LONG}",
            facts={"amount_due": 51_200, LONG: LONG},
            roles=("adjuster",),
            timeout=timedelta(hours=number),
            escalate={timedelta(minutes=30): "supervisor"},
            then="it is denied",
            decisions=2,
        )
        return [one.value for one in await task]

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> None:
            self.value += amount

    @app.schedule("0 2 * * *", name="nightly")
    async def nightly(tick: df.Tick) -> None:
        pass

    return app


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(busy_app(), admin_key=ADMIN).served() as served:
        with httpx2.Client(base_url=served.url, headers=KEY, trust_env=False, timeout=60) as http:
            for number in (1, 50):
                assert http.post(f"{M}/orchestrators/desk/t-{number}", json=number).status_code == 202
            http.post(f"{M}/orchestrators/approval/a-1", json={"amount": 3, LONG: [LONG]})
            http.post(f"{M}/entities/counter/c-1?op=add", json=3)
            http.post(f"{M}/entities/counter/{LONG}?op=add", json=3)
            http.post(f"{M}/orchestrators/no_such/x")
            http.post(f"{M}/keys", json={"name": ADA, "scopes": ["decide", "role:adjuster"]})
            http.get(f"{M}/instances/t-1?wait=1")
        yield served


def link_of(site: Site, **wanted: Any) -> str:
    body = {"event": "Decide", **wanted}
    made = httpx2.post(f"{site.url}{M}/instances/t-1/links", json=body, headers=KEY, trust_env=False)
    url: str = made.json()["url"]
    return url


PAGES = {
    "overview": "/",
    "last day": "/?last=day",
    "instances": "/instances",
    "filtered instances": "/instances?name=approval&waiting_for=ApproverDecision&created_from=2020-01-01T00:00Z",
    "verb for many": "/bulk/suspend?name=approval",
    "start": "/start/approval?like=a-1",
    "instance": "/instances/a-1",
    "task's instance": "/instances/t-1",
    "unknown": "/instances/none",
    "inbox": "/inbox",
    "task": "/inbox/t-1:0",
    "closed task": "/inbox/t-9:0",
    "schedules": "/triggers",
    "entities": "/entities",
    "entity": "/entities/counter/c-1",
    "functions": "/functions",
    "workers": "/workers",
    "full history": "/instances/a-1?history=full&idle=show&from=0&to=1",
    "api": "/docs",
    "error": "/errors/PDR-096",
    "audit": "/audit",
    "keys": "/keys",
    "login": "/login",
}
LOOKS = [("light", 1440), ("dark", 390)]


@pytest.fixture(scope="module", params=LOOKS, ids=lambda look: f"{look[0]}-{look[1]}")
def page(browser: Browser, site: Site, request: Any) -> Iterator[Page]:
    scheme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{site.url}/login")
    page.fill("input[name=key]", ADMIN)
    page.press("input[name=key]", "Enter")
    page.wait_for_url(f"{site.url}/")
    yield page
    context.close()


def demand_accessible(page: Page) -> None:
    found = Axe().run(page)
    told = [
        f"{one['impact']} {one['id']}: {node['html'][:150]} {node.get('failureSummary', '')[:300]}"
        for one in found.response["violations"]
        for node in one["nodes"]
    ]
    assert told == []
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide == 0, f"the page scrolls {wide} px sideways"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible(site: Site, page: Page, name: str) -> None:
    page.goto(site.url + PAGES[name])
    demand_accessible(page)


def test_the_pages_of_links_are_accessible(site: Site, page: Page) -> None:
    page.goto(link_of(site))
    demand_accessible(page)
    page.goto(link_of(site, **{"for": ADA, "roles": ["adjuster"]}))
    demand_accessible(page)
    page.goto(link_of(site)[:-3])
    demand_accessible(page)


def test_the_pages_after_an_answer_are_accessible(site: Site, page: Page) -> None:
    number = page.viewport_size["width"] if page.viewport_size else 0
    with httpx2.Client(base_url=site.url, headers=KEY, trust_env=False, timeout=60) as http:
        http.post(f"{M}/orchestrators/open_door/door-{number}")
        http.get(f"{M}/instances/door-{number}?wait=1")
        wanted = {"event": "anything at all"}
        url = http.post(f"{M}/instances/door-{number}/links", json=wanted).json()["url"]
    page.goto(url)
    page.fill("textarea", "not JSON")
    page.get_by_role("button", name="Send the answer").click()
    assert page.get_by_role("alert").is_visible()
    demand_accessible(page)
    page.fill("textarea", "1")
    page.get_by_role("button", name="Send the answer").click()
    page.get_by_role("heading", name="Thank you").wait_for()
    demand_accessible(page)
    page.goto(url)
    demand_accessible(page)


def test_the_list_of_shortcuts_is_accessible(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/inbox")
    page.keyboard.press("?")
    demand_accessible(page)
    assert page.get_by_role("dialog").is_visible()
