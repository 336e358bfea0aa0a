"""The pages in a browser: seen, filled in and clicked."""

import re
from itertools import pairwise
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.conftest import Site
from tests.http.conftest import M


def start(site: Site, name: str, instance_id: str, body: object = None) -> None:
    answer = httpx2.post(
        f"{site.url}{M}/orchestrators/{name}/{instance_id}", json=body, trust_env=False, timeout=60
    )
    assert answer.status_code == 202


def test_the_hub_lists_and_leads_to_the_instance(site: Site, page: Page, picture: Path) -> None:
    start(site, "echo", "done-1", 1)
    start(site, "approval", "asking-1")

    page.goto(site.url)
    page.get_by_role("link", name="Instances").click()
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody tr").first).to_contain_text("waiting for the event 'ApproverDecision'")
    page.screenshot(path=picture, full_page=True)
    page.get_by_role("link", name="asking-1").click()

    expect(page.locator("h1")).to_have_text("asking-1")
    expect(page.locator("#waiting")).to_contain_text("Waiting for the event 'ApproverDecision' since")
    assert picture.stat().st_size > 10_000


def test_approving_through_the_form_completes_the_instance(site: Site, page: Page) -> None:
    start(site, "approval", "a-1", {"amount": 12})

    page.goto(f"{site.url}/instances/a-1")
    page.get_by_role("radio", name="yes").check()
    page.get_by_label("comment").fill("fine by me")
    page.get_by_role("button", name="Send ApproverDecision").click()

    expect(page.locator(".notice")).to_have_text("The event was accepted.")
    expect(page.locator(".head .status")).to_have_text("Completed")
    expect(page.locator(".values")).to_contain_text('"APPROVED"')
    expect(page.locator(".timeline .bar")).to_have_count(2)


def test_nothing_is_decided_by_leaving_the_choice_open(site: Site, page: Page) -> None:
    start(site, "approval", "a-1")

    page.goto(f"{site.url}/instances/a-1")
    page.get_by_role("button", name="Send ApproverDecision").click()

    expect(page.locator(".head .status")).to_have_text("Running")
    assert page.url.endswith("/instances/a-1")


def test_the_page_follows_the_instance_without_being_touched(site: Site, page: Page) -> None:
    start(site, "approval", "a-1")
    page.clock.install()
    page.goto(f"{site.url}/instances/a-1")
    httpx2.post(
        f"{site.url}{M}/instances/a-1/raiseEvent/ApproverDecision", json={"approved": True}, timeout=60
    )
    httpx2.get(f"{site.url}{M}/instances/a-1?wait=60", timeout=60)

    page.clock.run_for(2_500)

    expect(page.locator(".head .status")).to_have_text("Completed")
    expect(page.locator(".live")).to_be_empty()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/instances", "database away, trying again"),
        ("/instances/a-1", "database away, trying again"),
        ("/instances", "server away"),
    ],
)
def test_an_open_page_outlasts_a_database_that_is_away(
    site: Site, browser: Browser, path: str, words: str
) -> None:
    start(site, "approval", "a-1")
    page = browser.new_page()  # whose console may complain
    page.clock.install()
    page.goto(site.url + path)
    expect(page.locator(".live")).to_have_text("live")

    def fail(route: Route) -> None:
        if words.startswith("server"):
            route.abort("connectionrefused")
        else:
            route.fulfill(status=503, content_type="text/html", body="<main>nothing to see</main>")

    page.route(site.url + path, fail)
    answered = httpx2.post(
        f"{site.url}{M}/instances/a-1/raiseEvent/ApproverDecision",
        json={"approved": True},
        trust_env=False,
        timeout=60,
    )
    assert answered.status_code == 202
    for _ in range(3):
        page.clock.run_for(2_500)
        expect(page.locator(".live")).to_contain_text(words)
        expect(page.locator("main")).to_contain_text("a-1" if path == "/instances" else "ApproverDecision")

    page.unroute(site.url + path)
    httpx2.get(f"{site.url}{M}/instances/a-1?wait=60", trust_env=False, timeout=60)
    page.clock.run_for(2_500)
    expect(page.locator("main .status", has_text="Completed")).to_have_count(1)
    expect(page.locator(".live")).to_have_text("live" if path == "/instances" else "")
    page.context.close()


def test_the_navigation_fits_on_a_phone(site: Site, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(site.url)

    expect(page.locator(".tabs").get_by_role("link", name="Instances")).to_be_visible()
    tops = page.locator(".tabs > a").evaluate_all(
        "each => each.map((one) => one.getBoundingClientRect().top)"
    )
    assert len(tops) >= 4 and len(set(tops)) == 1


def test_the_labels_of_the_timeline_do_not_overlap_on_a_phone(site: Site, page: Page) -> None:
    start(site, "family", "f-1")
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{site.url}/instances/f-1")
    expect(page.locator(".axis text").first).to_be_visible()

    boxes = page.locator(".axis text").evaluate_all(
        """each => each.map((one) => one.getBoundingClientRect()).filter((box) => box.width)
           .map((box) => [box.left, box.right])"""
    )
    assert boxes
    assert all(before[1] < after[0] for before, after in pairwise(boxes))


def test_a_form_that_is_being_filled_in_is_not_taken_away(site: Site, page: Page) -> None:
    start(site, "approval", "a-1")
    page.clock.install()
    page.goto(f"{site.url}/instances/a-1")
    page.get_by_label("comment").fill("half a sen")

    page.clock.run_for(60_000)

    expect(page.get_by_label("comment")).to_have_value("half a sen")
    expect(page.locator(".live")).to_be_empty()


def test_terminating_takes_two_clicks_and_tells_the_reason(site: Site, page: Page) -> None:
    start(site, "sleeper", "s-1")

    page.goto(f"{site.url}/instances/s-1")
    page.locator("summary", has_text="Terminate").click()
    page.get_by_label("Reason").locator("visible=true").fill("not needed")
    page.get_by_role("button", name="Terminate").click()

    expect(page.locator(".head .status")).to_have_text("Terminated")
    expect(page.locator(".reason")).to_have_text("Terminated: not needed")


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(251, 251, 249)"), ("dark", "rgb(20, 23, 26)")])
def test_the_sheet_is_applied_in_both_schemes(site: Site, page: Page, scheme: str, paper: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]

    page.goto(site.url)

    expect(page.locator("body")).to_have_css("background-color", paper)


@pytest.mark.parametrize("path", ["/instances", "/instances/f-1"])
def test_nothing_sticks_out_on_a_narrow_screen(site: Site, page: Page, path: str) -> None:
    start(site, "family", "f-1", {"a": "long" * 200})
    start(site, "broken", "b" * 200)
    page.set_viewport_size({"width": 360, "height": 800})

    page.goto(site.url + path)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_markup_in_data_is_text(site: Site, page: Page) -> None:
    nasty = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    start(site, "echo", "x-1", nasty)
    httpx2.get(f"{site.url}{M}/instances/x-1?wait=60", timeout=60)

    page.goto(f"{site.url}/instances/x-1")

    expect(page).to_have_title(re.compile("x-1"))
    expect(page.locator(".values pre").first).to_have_text(f'"{nasty}"')
    expect(page.locator("img")).to_have_count(0)


def test_a_foreign_page_cannot_send_our_forms(site: Site, page: Page) -> None:
    start(site, "sleeper", "s-1")
    target = f"{site.url}/instances/s-1/terminate"
    form = f"<form method=post action='{target}'><input name=csrf value=x><button>Win</button></form>"
    page.route("http://evil.example/", lambda route: route.fulfill(body=form, content_type="text/html"))

    page.goto("http://evil.example/")
    page.get_by_role("button").click()

    expect(page.locator("body")).to_contain_text("foreign-origin")
    status = httpx2.get(f"{site.url}{M}/instances/s-1", timeout=60).json()["runtimeStatus"]
    assert status == "Running"


@pytest.fixture
def unpolled(page: Page) -> Page:
    """A page that does not poll, so only the stream can bring it up to date."""
    page.add_init_script("window.setInterval = () => 0")
    return page


def decide(site: Site, instance_id: str) -> None:
    answer = httpx2.post(
        f"{site.url}{M}/instances/{instance_id}/raiseEvent/ApproverDecision",
        json={"approved": True, "comment": "fine"},
        trust_env=False,
        timeout=60,
    )
    assert answer.status_code == 202


def test_pages_follow_what_happens_without_being_loaded_again(site: Site, unpolled: Page) -> None:
    unpolled.goto(f"{site.url}/instances")
    start(site, "approval", "live-1")
    expect(unpolled.get_by_role("link", name="live-1")).to_be_visible()

    unpolled.goto(f"{site.url}/instances/live-1")
    unpolled.evaluate("window.same = true")
    expect(unpolled.locator("main")).to_contain_text("Running")
    decide(site, "live-1")
    expect(unpolled.locator("main")).to_contain_text("APPROVED")
    assert unpolled.evaluate("window.same")


def test_new_instances_wait_behind_a_button_while_the_list_is_pointed_at(site: Site, unpolled: Page) -> None:
    start(site, "approval", "first-1")
    unpolled.goto(f"{site.url}/instances")
    row = unpolled.locator("tr[data-id=first-1]")
    row.hover()
    place = row.bounding_box()

    start(site, "approval", "second-1")
    expect(unpolled.get_by_role("button", name="1 new")).to_be_visible()
    decide(site, "first-1")
    expect(row).to_contain_text("Completed")
    assert unpolled.locator("tr[data-id]").count() == 1 and place is not None
    assert unpolled.locator("tr[data-id]").evaluate_all("rows => rows.map((row) => row.dataset.id)") == [
        "first-1"
    ]

    unpolled.get_by_role("button", name="1 new").click()
    expect(unpolled.locator("tr[data-id]")).to_have_count(2)


def test_the_list_has_keys(site: Site, page: Page) -> None:
    start(site, "echo", "one", 1)
    start(site, "echo", "two", 1)
    page.goto(f"{site.url}/instances")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("one")


@pytest.mark.parametrize("path", ["/instances", "/instances/live-1"])
def test_a_change_before_the_first_frame_of_the_stream_is_shown(
    site: Site, unpolled: Page, path: str
) -> None:
    start(site, "approval", "live-1")

    def change_first(route: Route) -> None:
        decide(site, "live-1")
        httpx2.get(f"{site.url}{M}/instances/live-1?wait=60", trust_env=False, timeout=90)
        route.continue_()

    unpolled.route(re.compile("/events"), change_first, times=1)
    unpolled.goto(site.url + path)

    expect(unpolled.locator("main .status", has_text="Completed").first).to_be_visible()


@pytest.mark.parametrize("path", ["/instances", "/instances/live-1"])
def test_a_page_that_shows_the_current_state_is_not_fetched_again(site: Site, page: Page, path: str) -> None:
    start(site, "approval", "live-1")
    page.goto(f"{site.url}/instances/live-1")
    expect(page.locator("#waiting")).to_contain_text("ApproverDecision")
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    page.clock.install()
    with page.expect_response(re.compile("/events")):
        page.goto(site.url + path)
    page.evaluate(  # a second stream of the same data has its first frame later than the page's own
        """(url) => new Promise((done) => {
             const source = new EventSource(url);
             for (const name of ["status", "instance"]) source.addEventListener(name, done);
           })""",
        page.locator("body").get_attribute("data-events"),
    )
    page.clock.run_for(1_000)

    assert fetched.count(site.url + path) == 1
