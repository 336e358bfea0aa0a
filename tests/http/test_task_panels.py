"""An application's own panel beside the facts of a task, in the inbox and on the pages of links."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from tests.access.conftest import ADMIN, TOKEN, as_key
from tests.http.conftest import LOCAL

TEMPLATE = (
    """<h2>Photos</h2>{% for one in photos %}<p class="photo">{{ one }} of {{ task.title }}</p>{% endfor %}"""
)
HOSTILE = "<script>alert(1)</script>"


def app_with_panel(
    folder: Path, values: Callable[[Any], Any], template: str = TEMPLATE, **options: Any
) -> df.App:
    app = df.App("desk")
    (folder / "panel.html").write_text(template)

    @app.orchestrator
    async def review(context: df.OrchestrationContext) -> Any:
        return await context.human_task("Decide", bool, title="Pay claim 7?", facts={"amount": 3})

    @app.orchestrator
    async def other(context: df.OrchestrationContext) -> Any:
        return await context.human_task("Other", bool)

    app.task_panel("Decide", template=folder / "panel.html", **options)(values)
    return app


def shown(app: df.App, path: str, started: str = "review") -> str:
    with TestClient(app.asgi(store="memory:", token=TOKEN, admin_key=ADMIN), base_url=LOCAL) as http:
        http.post(f"{M}/orchestrators/{started}/r-1", headers=as_key(ADMIN))
        if path == "link":
            event = {"review": "Decide", "other": "Other"}[started]
            made = http.post(f"{M}/instances/r-1/links", json={"event": event}, headers=as_key(ADMIN))
            return http.get(made.json()["url"]).text
        return http.get(path, headers=as_key(ADMIN)).text


def photos(task: df.OpenTask) -> dict[str, Any]:
    return {"photos": [f"{task.facts['amount']} dents", HOSTILE]}


async def photos_async(task: df.OpenTask) -> dict[str, Any]:
    return photos(task)


@pytest.mark.parametrize("values", [photos, photos_async])
def test_a_panel_stands_beside_the_facts_and_is_escaped(tmp_path: Path, values: Callable[[Any], Any]) -> None:
    page = shown(app_with_panel(tmp_path, values), "/inbox/r-1:0")
    assert '<p class="photo">3 dents of Pay claim 7?</p>' in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page


def test_other_tasks_have_no_panel(tmp_path: Path) -> None:
    assert "photo" not in shown(app_with_panel(tmp_path, photos), "/inbox/r-1:0", "other")


@pytest.mark.parametrize("on_links", [True, False])
def test_links_show_it_only_if_the_application_says_so(tmp_path: Path, on_links: bool) -> None:
    page = shown(app_with_panel(tmp_path, photos, on_links=on_links), "link")
    assert ('<p class="photo">' in page) == on_links
    assert "Pay claim 7?" in page


def failing(task: df.OpenTask) -> dict[str, Any]:
    raise OSError("the photos are away")


@pytest.mark.parametrize(
    ("values", "template"),
    [(failing, TEMPLATE), (lambda task: {}, TEMPLATE), (lambda task: None, TEMPLATE), (photos, "{% broken")],
)
def test_a_panel_that_fails_is_a_line_and_the_task_can_be_answered(
    tmp_path: Path, values: Callable[[Any], Any], template: str, caplog: pytest.LogCaptureFixture
) -> None:
    page = shown(app_with_panel(tmp_path, values, template), "/inbox/r-1:0")
    assert "panel for this task failed" in page
    assert "Send the answer" in page
    assert "the panel" in caplog.text and "r-1:0" in caplog.text


def test_a_wrong_registration_is_refused(tmp_path: Path) -> None:
    app = app_with_panel(tmp_path, photos)
    with pytest.raises(df.RegistrationError, match="has no template"):
        app.task_panel("More", template=tmp_path / "absent.html")(photos)
    with pytest.raises(df.RegistrationError, match="have a panel already"):
        app.task_panel("Decide", template=tmp_path / "panel.html")(failing)


def test_a_blueprint_brings_its_panels(tmp_path: Path) -> None:
    parts = df.Blueprint()
    (tmp_path / "panel.html").write_text(TEMPLATE)
    parts.task_panel("Decide", template=tmp_path / "panel.html")(photos)
    app = df.App("whole")
    app.register_functions(parts)
    assert set(app.registry.panels) == {"Decide"}


def test_a_link_the_inbox_and_the_instance_say_the_same_and_lead_to_each_other(tmp_path: Path) -> None:
    app = df.App("desk")

    @app.orchestrator
    async def review(context: df.OrchestrationContext) -> Any:
        return await context.human_task(
            "Decide",
            bool,
            title="Pay claim 7?",
            facts={"amount_due": 3},
            timeout=7_200.0,
            then="it is denied",
        )

    with TestClient(app.asgi(store="memory:", token=TOKEN, admin_key=ADMIN), base_url=LOCAL) as http:
        http.post(f"{M}/orchestrators/review/r-1", headers=as_key(ADMIN))
        link = http.post(
            f"{M}/instances/r-1/links", json={"event": "Decide", "for": "ada"}, headers=as_key(ADMIN)
        ).json()["url"]
        pages = [http.get(path, headers=as_key(ADMIN)).text for path in ("/inbox/r-1:0", "/instances/r-1")]
        pages.append(http.get(link).text)
    for page in pages:
        assert "Pay claim 7?" in page
        assert "Then it is denied." in page
        assert "Due in 2 h" in page or "Due in 1 h 59 min" in page
    assert ["Amount due" in page for page in pages] == [True, False, True]
    assert 'href="/instances/r-1"' in pages[0]
    assert 'href="/inbox/r-1%3A0"' in pages[1] or 'href="/inbox/r-1:0"' in pages[1]
    assert 'href="/inbox"' in pages[2]
