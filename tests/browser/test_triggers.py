"""Schedules and queues in a browser: looked at, ordered, on a desk and on a phone."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

import perdure as df
from tests.browser.conftest import Site
from tests.http.conftest import M


@dataclass
class Order:
    number: int
    item: str
    express: bool = False


def make_app() -> df.App:
    app = df.App("office")
    mended: list[str] = []

    @app.schedule("0 2 * * *", timezone="Europe/Berlin", name="nightly")
    async def nightly(client: df.Client) -> None: ...

    @app.schedule("*/15 * * * *", name="look-for-goods-that-have-come-back-from-customers")
    async def look(client: df.Client) -> None: ...

    @app.queue("claims", retry=df.RetryPolicy(first_interval=0.001, max_attempts=1))
    async def claims(message: dict[str, Any]) -> None:
        if message.get("mend"):
            mended.append("it")
        if message.get("broken") and not mended:
            raise ValueError("no customer " + "x" * 60)

    @app.queue("orders")
    async def orders(order: Order) -> None: ...

    return app


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(make_app()).served() as found:
        yield found


def send(site: Site, queue: str, message: str, body: object) -> None:
    """Send a message, and wait until it has been dealt with."""
    url = f"{site.url}{M}/queues/{queue}?messageId={message}"
    assert httpx2.post(url, json=body, trust_env=False, timeout=60).status_code == 202
    httpx2.get(f"{site.url}{M}/instances/queue:{queue}:{message}?wait=60", trust_env=False, timeout=60)


def card(page: Page, name: str) -> Locator:
    return page.locator("article", has=page.get_by_role("heading", name=name, exact=False))


def test_a_schedule_is_paused_and_resumed_with_two_clicks(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/triggers")
    nightly = card(page, "nightly")
    expect(nightly).to_contain_text("At 02:00 every day in Europe/Berlin")
    expect(nightly.locator("dd").first.locator("li")).to_have_count(3)
    expect(nightly.locator("time").first).to_have_text(re.compile(r"^\w{3} \d+ \w{3} \d{4}, 02:00$"))

    nightly.locator("summary", has_text="Pause").click()
    nightly.get_by_label("Reason").fill("holidays")
    nightly.get_by_role("button", name="Pause").click()
    expect(page.locator(".notice")).to_contain_text("The schedule is paused")
    expect(nightly.get_by_role("heading")).to_contain_text("paused: holidays")
    nightly.get_by_role("button", name="Resume").click()
    expect(page.locator(".notice")).to_contain_text("fires again")
    expect(nightly.get_by_role("heading")).to_have_text("nightly")


def test_run_now_fires_and_leads_to_the_firing(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/triggers")
    nightly = card(page, "nightly")
    expect(nightly).to_contain_text("not fired yet")

    nightly.get_by_role("button", name="Run now").click()
    fired = nightly.get_by_role("link", name="done")
    expect(fired).to_be_visible(timeout=30_000)  # the page follows, sooner or later
    fired.click()
    expect(page.locator("h1")).to_contain_text("schedule:nightly:")


def test_a_backfill_is_filled_in_and_refused_where_it_stands(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/triggers")
    nightly = card(page, "nightly")
    nightly.locator("summary", has_text="Backfill").click()
    nightly.get_by_label("Ticks after").fill("2999-01-01T00:00")
    nightly.get_by_label("up to").fill("2999-01-05T00:00")
    nightly.get_by_role("button", name="Backfill").click()

    expect(nightly.get_by_role("alert")).to_contain_text("nothing fires")
    expect(nightly.get_by_label("Ticks after")).to_have_value("2999-01-01T00:00")
    nightly.get_by_label("Ticks after").fill("2026-01-01T00:00")
    nightly.get_by_label("up to").fill("2026-01-03T00:00")
    nightly.get_by_role("button", name="Backfill").click()
    expect(page.locator(".notice")).to_contain_text("past ticks fire now")
    expect(nightly).to_contain_text("backfill")


def test_a_message_is_sent_by_the_form_of_its_type(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/triggers")
    orders = card(page, "orders")
    orders.locator("summary", has_text="Send a message").click()
    orders.get_by_label("number").fill("7")
    orders.get_by_label("item").fill("a keyboard")
    orders.get_by_label("express").check()
    orders.get_by_label("Message id").fill("o-7")
    orders.get_by_role("button", name="Send").click()

    expect(page.locator(".notice")).to_have_text("The message was accepted.")
    page.goto(f"{site.url}/instances/queue:orders:o-7")
    expect(page.locator(".values")).to_contain_text('"item": "a keyboard"')


def test_a_dead_letter_is_delivered_again(site: Site, page: Page) -> None:
    for number in range(3):
        send(site, "claims", f"m-{number}", {"broken": True})
    page.goto(f"{site.url}/triggers")
    letters = page.locator(".letters tbody tr")
    expect(letters).to_have_count(3)
    expect(letters.first).to_contain_text("ValueError: no customer")
    send(site, "claims", "mend", {"mend": True})

    page.locator("tr", has_text="m-1").get_by_role("button", name="Deliver again").click()
    expect(page.locator(".notice")).to_have_text("The message is redelivered.")
    expect(letters).to_have_count(2)
    claims = card(page, "claims")
    claims.locator("summary", has_text="Deliver all").click()
    claims.get_by_role("button", name="Deliver again").click()
    expect(page.locator(".letters")).to_have_count(0)


def test_the_page_follows_without_being_touched_and_waits_for_whoever_fills_in(
    site: Site, page: Page
) -> None:
    page.clock.install()
    page.goto(f"{site.url}/triggers")
    page.evaluate("window.same = true")
    httpx2.post(f"{site.url}{M}/schedules/nightly/pause?reason=inventory", trust_env=False, timeout=60)
    page.clock.run_for(6_000)
    expect(card(page, "nightly")).to_contain_text("paused: inventory")
    assert page.evaluate("window.same")

    orders = card(page, "orders")
    orders.locator("summary", has_text="Send a message").click()
    orders.get_by_label("item").fill("half a key")
    page.clock.run_for(60_000)
    expect(orders.get_by_label("item")).to_have_value("half a key")


def test_orders_need_no_script(browser: Browser, site: Site) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site.url}/triggers")
    card(page, "nightly").locator("summary", has_text="Pause").click()
    card(page, "nightly").get_by_role("button", name="Pause").click()
    expect(card(page, "nightly").get_by_role("heading")).to_contain_text("paused")
    context.close()


SCREENS = [(width, scheme) for width in (360, 390, 1200) for scheme in ("light", "dark")]
SHORT = [(360, "light"), (1200, "dark")]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(*screen, marks=[] if screen in SHORT else [pytest.mark.long]) for screen in SCREENS],
)
@pytest.mark.parametrize(
    "path", ["/triggers", "/docs", "/keys", "/audit", "/errors", "/errors/PDR-081", "/login"]
)
def test_every_page_fits_its_screen_with_everything_open(
    site: Site, page: Page, picture: Path, path: str, width: int, scheme: Any
) -> None:
    send(site, "claims", "a-message-whose-id-is-very-long-" * 4, {"broken": True})
    httpx2.post(f"{site.url}{M}/queues/nobodys-{'long' * 20}", json={}, trust_env=False, timeout=60)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(site.url + path)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true })")

    outside = """[...document.querySelectorAll('main *')].filter((each) =>
        each.getBoundingClientRect().right > innerWidth + 1).map((each) => each.outerHTML.slice(0, 120))"""
    assert page.evaluate(outside) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/", "Overview"),
        ("/instances", "Instances"),
        ("/triggers", "Schedules, queues"),
        ("/docs", "API"),
        ("/keys", "Keys"),
    ],
)
def test_the_navigation_says_where_one_is(site: Site, page: Page, path: str, word: str) -> None:
    page.goto(site.url + path)

    expect(page.locator(".tabs [aria-current]")).to_have_text(word)


def test_the_description_leads_from_an_answer_to_its_type(site: Site, page: Page) -> None:
    page.goto(f"{site.url}/docs")
    page.locator("main").get_by_role("link", name="Schedules", exact=True).click()
    assert page.url.endswith("#schedules")
    operation = page.locator("details", has_text="/schedules/{name}/backfill").first
    operation.locator("summary").click()
    operation.get_by_role("link", name="Problem").first.click()

    expect(page.locator("#type-Problem")).to_be_visible()  # it lay folded up
    expect(page.locator("#type-Problem")).to_contain_text("pointer")


def test_a_problem_leads_to_the_page_that_explains_it(site: Site, page: Page) -> None:
    problem = httpx2.get(f"{site.url}{M}/instances/nobody", trust_env=False, timeout=60).json()
    page.goto(site.url + problem["type"])

    expect(page.locator("h1")).to_have_text("PDR-020: InstanceNotFound")
    page.get_by_role("link", name="All errors").click()
    page.get_by_role("link", name="PDR-011").click()
    expect(page.locator("h1")).to_contain_text("EventRefused")
