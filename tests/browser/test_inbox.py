"""The inbox in a browser: two people at once, and the keyboard."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN
from tests.access.test_tasks import ADA, BEN, desk_app
from tests.browser.conftest import Site


@pytest.fixture
def desk() -> Iterator[Site]:
    with Site(desk_app(), admin_key=ADMIN).served() as found:
        yield found


def person(browser: Browser, desk: Site, name: str, *, width: int = 1280) -> Page:
    """A signed-in person, in a browser of their own."""
    page = browser.new_context(viewport={"width": width, "height": 844}).new_page()
    headers = {"x-functions-key": ADMIN}
    made = page.request.post(
        f"{desk.url}{M}/keys",
        data={"name": name, "scopes": ["decide", "role:adjuster"]},
        headers=headers,
    )
    page.goto(f"{desk.url}/login")
    page.fill("input[name=key]", made.json()["secret"])
    page.click("button.primary")
    expect(page.get_by_role("heading", name="Inbox")).to_be_visible()
    return page


def start(page: Page, desk: Site, name: str, instance_id: str) -> None:
    url = f"{desk.url}{M}/orchestrators/{name}/{instance_id}"
    assert page.request.post(url, headers={"x-functions-key": ADMIN}).status == 202


def test_two_people_at_one_task(browser: Browser, desk: Site) -> None:
    ada, ben = person(browser, desk, ADA), person(browser, desk, BEN)
    start(ada, desk, "review", "r-1")
    for page in (ada, ben):
        page.goto(f"{desk.url}/inbox/r-1:0")
        page.get_by_label("yes").check()
    ada.keyboard.press("c")
    expect(ada.get_by_text("held by you")).to_be_visible()
    ben.get_by_role("button", name="Send the answer").click()
    expect(ben.get_by_role("alert")).to_contain_text(f"{ADA} claimed this task")
    ada.get_by_label("yes").check()
    ada.get_by_role("button", name="Send the answer").click()
    expect(ada.get_by_role("status")).to_contain_text("Your answer was recorded.")
    ben.goto(f"{desk.url}/inbox/r-1:0")
    expect(ben.get_by_text(f"So far: {ADA}")).to_be_visible()
    for page in (ada, ben):
        page.context.close()


def test_the_keyboard_is_enough(browser: Browser, desk: Site) -> None:
    ada = person(browser, desk, ADA)
    for number in (1, 2):
        start(ada, desk, "review", f"r-{number}")
    ada.goto(f"{desk.url}/inbox")
    ada.keyboard.press("j")
    ada.keyboard.press("j")
    ada.keyboard.press("k")
    ada.keyboard.press("Enter")
    expect(ada.get_by_role("heading", name="Pay claim 7?")).to_be_visible()
    expect(ada.get_by_label("yes")).not_to_be_checked()
    ada.keyboard.press("y")
    expect(ada.get_by_label("yes")).to_be_checked()
    ada.context.close()


def test_a_phone_is_enough(browser: Browser, desk: Site) -> None:
    ada = person(browser, desk, ADA, width=390)
    start(ada, desk, "review", "r-1")
    ada.goto(f"{desk.url}/inbox")
    ada.get_by_text("Pay claim 7?").click()
    expect(ada.get_by_role("button", name="Send the answer")).to_be_visible()
    assert ada.evaluate("document.documentElement.scrollWidth") == 390
    ada.get_by_role("link", name="All tasks").click()
    expect(ada.get_by_role("heading", name="Inbox")).to_be_visible()
    ada.context.close()
