"""The inbox in a browser: two people at once, and the keyboard."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page, expect

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN
from tests.access.test_tasks import ADA, BEN, desk_app
from tests.browser.conftest import Site


@pytest.fixture
def desk() -> Iterator[Site]:
    app = desk_app()

    @app.orchestrator
    async def passed_on(context: df.OrchestrationContext) -> bool:
        return await context.human_task(
            "Decide",
            bool,
            title="Pay at once?",
            roles=("adjuster",),
            timeout=timedelta(hours=1),
            escalate={timedelta(seconds=1): "supervisor"},
        )

    with Site(app, admin_key=ADMIN).served() as found:
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


def answer_late(page: Page, desk: Site, before: Callable[[], None]) -> None:
    """Open the task, let something happen to it, and send the answer."""
    page.goto(f"{desk.url}/inbox/r-1:0")
    page.get_by_label("yes").check()
    before()
    page.get_by_role("button", name="Send the answer").click()


def wait_for_end(page: Page, desk: Site) -> None:
    url = f"{desk.url}{M}/instances/r-1?wait=60"
    assert page.request.get(url, headers={"x-functions-key": ADMIN}, timeout=90_000).status == 200


def test_a_decision_after_a_termination_is_refused_with_words(browser: Browser, desk: Site) -> None:
    ada = person(browser, desk, ADA)
    start(ada, desk, "review", "r-1")

    def terminate() -> None:
        url = f"{desk.url}{M}/instances/r-1/terminate"
        assert ada.request.post(url, headers={"x-functions-key": ADMIN}).status == 202
        wait_for_end(ada, desk)

    answer_late(ada, desk, terminate)
    expect(ada.get_by_role("alert")).to_contain_text("Nothing was sent: this task is no longer open.")
    ada.context.close()


def test_an_escalated_task_is_gone_for_the_first_role(browser: Browser, desk: Site) -> None:
    ada = person(browser, desk, ADA)
    start(ada, desk, "passed_on", "r-1")

    url, headers = f"{desk.url}{M}/tasks?role=supervisor", {"x-functions-key": ADMIN}
    while not ada.request.get(url, headers=headers).json():
        ada.wait_for_timeout(50)
    ada.goto(f"{desk.url}/inbox/r-1:0")
    expect(ada.get_by_role("alert")).to_contain_text("There is no open task")
    ada.context.close()


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
