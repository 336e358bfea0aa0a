"""A decision by link on a phone, and signing in, in a real browser."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Browser

from perdure.http.links import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, guarded_app
from tests.browser.conftest import Site

KEY = {"x-functions-key": ADMIN}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(guarded_app(), token=TOKEN, admin_key=ADMIN).served() as site:
        yield site


def test_an_approver_decides_on_a_phone_without_scripts(browser: Browser, site: Site) -> None:
    with httpx2.Client(base_url=site.url, headers=KEY, trust_env=False) as http:
        http.post(f"{M}/orchestrators/approval/expense-2041")
        url = http.post(f"{M}/instances/expense-2041/links", json={"event": "ApproverDecision"}).json()["url"]
        phone = browser.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=False)
        page = phone.new_page()
        told: list[str] = []
        page.on("request", lambda request: told.append(request.headers.get("referer", "")))

        page.goto(url)
        page.get_by_label("yes").check()
        page.get_by_role("button", name="Send the answer").click()
        assert "Thank you" in page.locator("main").inner_text()
        page.goto(url)
        assert "used before" in page.locator("main").inner_text()
        phone.close()
        done = http.get(f"{M}/instances/expense-2041?wait=5").json()

    assert not [referer for referer in told if "sig=" in referer]
    assert done["output"] == "APPROVED"


def test_the_question_fits_a_phone(browser: Browser, site: Site) -> None:
    with httpx2.Client(base_url=site.url, headers=KEY, trust_env=False) as http:
        name = "an-instance-whose-id-is-very-long-" * 4
        http.post(f"{M}/orchestrators/approval/{name}")
        url = http.post(f"{M}/instances/{name}/links", json={"event": "ApproverDecision"}).json()["url"]
    phone = browser.new_context(viewport={"width": 360, "height": 740})
    page = phone.new_page()
    page.goto(url)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.get_by_role("button").bounding_box()["height"] >= 44  # type: ignore[index]
    phone.close()


def test_the_token_signs_in_keys_are_made_and_the_log_tells(browser: Browser, site: Site) -> None:
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
    page.goto(f"{site.url}/?token={TOKEN}")
    assert page.url == f"{site.url}/"

    page.get_by_role("link", name="Keys").click()
    page.get_by_label("Held by").fill("Ada")
    page.get_by_label("read look at").check()
    page.get_by_role("button", name="Make the key").click()
    secret = page.locator("#secret").inner_text().strip()
    page.get_by_role("link", name="Audit log").click()
    assert re.search(r"create_key", page.locator("table").inner_text())
    page.get_by_role("button", name="Sign out").click()

    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_role("link", name="Keys").count() == 0
    assert not problems
    context.close()
