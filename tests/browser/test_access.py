"""A decision by link on a phone, and signing in, in a real browser."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Browser

from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, guarded_app
from tests.browser.conftest import Site

KEY = {"x-functions-key": ADMIN}


@pytest.fixture
def site() -> Iterator[Site]:
    with Site(guarded_app(), token=TOKEN, admin_key=ADMIN).served() as site:
        yield site


def test_an_approver_decides_on_a_phone_without_scripts(browser: Browser, site: Site) -> None:
    with httpx2.Client(base_url=site.url, headers=KEY, trust_env=False, timeout=60) as http:
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
        assert "has been used" in page.locator("main").inner_text()
        assert page.get_by_role("navigation").get_by_role("link").count() == 0  # nothing else is theirs
        phone.close()
        done = http.get(f"{M}/instances/expense-2041?wait=60").json()

    assert not [referer for referer in told if "sig=" in referer]
    assert done["output"] == "APPROVED"


def test_the_question_fits_a_phone(browser: Browser, site: Site) -> None:
    with httpx2.Client(base_url=site.url, headers=KEY, trust_env=False, timeout=60) as http:
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
    page.get_by_label("Name", exact=True).fill("Ada")
    page.get_by_label("read view").check()
    page.get_by_role("button", name="Create the key").click()
    secret = page.locator("#secret").inner_text().strip()
    page.get_by_role("link", name="Audit log").click()
    assert re.search(r"create_key", page.locator("table").inner_text())
    page.get_by_role("button", name="Sign out").click()

    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_role("link", name="Keys").count() == 0
    assert not problems
    context.close()


def test_a_key_is_shown_once_and_revoked_with_two_clicks(browser: Browser, site: Site) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/?token={TOKEN}")
    page.goto(f"{site.url}/keys")
    page.get_by_label("Name", exact=True).fill("Grace")
    page.get_by_label("operate start").check()
    page.get_by_label("Expires").select_option("in 30 days")
    page.get_by_role("button", name="Create the key").click()
    secret = page.locator("#secret").inner_text().strip()
    page.goto(f"{site.url}/keys")
    assert secret not in page.content()
    row = page.locator("tr", has_text="Grace")
    assert "expires in 30 days" in row.inner_text()

    with httpx2.Client(
        base_url=site.url, headers={"x-functions-key": secret}, trust_env=False, timeout=60
    ) as http:
        assert http.get(f"{M}/instances").status_code == 200
        row.locator("summary").click()
        row.get_by_role("button", name="Revoke").click()
        assert "The key is revoked" in page.locator(".notice").inner_text()
        assert "revoked" in page.locator("tr", has_text="Grace").inner_text()
        assert http.get(f"{M}/instances").status_code == 401
    context.close()


def test_a_key_that_opens_nothing_is_refused_with_what_was_typed_in_view(
    browser: Browser, site: Site
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/?token={TOKEN}")
    page.goto(f"{site.url}/keys")
    page.get_by_label("Name", exact=True).fill("nobody")
    page.get_by_role("button", name="Create the key").click()

    assert page.get_by_role("alert").is_visible()
    assert page.locator("#secret").count() == 0
    context.close()


def test_the_audit_log_is_filtered_and_names_who_was_turned_away(browser: Browser, site: Site) -> None:
    with httpx2.Client(base_url=site.url, headers=KEY, trust_env=False, timeout=60) as http:
        made = http.post(f"{M}/keys", json={"name": "reader", "scopes": ["read"]}).json()
        http.post(f"{M}/orchestrators/approval/expense-1")
        http.post(f"{M}/orchestrators/approval/expense-2")
        too_small = {"x-functions-key": made["secret"]}
        assert http.post(f"{M}/orchestrators/approval/expense-3", headers=too_small).status_code == 403
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{site.url}/?token={TOKEN}")
    page.goto(f"{site.url}/audit")
    page.get_by_label("Operation").fill("start")
    page.get_by_role("button", name="Filter").click()

    rows = [" ".join(text.split()) for text in page.locator("tbody tr").all_inner_texts()]
    assert len([row for row in rows if "PERDURE-ADMIN-KEY" in row]) == 2
    assert [row for row in rows if "reader (key" in row and "forbidden" in row]
    page.get_by_label("Instance").fill("expense-2")
    page.get_by_role("button", name="Filter").click()
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name="Clear").click()
    assert page.locator("tbody tr").count() > 3
    context.close()
