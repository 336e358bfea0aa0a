"""Running activities, as the page, the HTTP API, the remote client and the terminal show them."""

import threading

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.cli.instances import _facts_of
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.api.status_json import status_from
from tests.http.conftest import LOCAL, start


@pytest.fixture
def scans():
    """An instance whose only activity has said how far it is, and waits."""
    said, may_end = threading.Event(), threading.Event()
    app = df.App("scans")

    @app.activity
    def scan(context: df.ActivityContext) -> str:
        context.heartbeat([620, 1000])
        said.set()
        may_end.wait(30)
        return "done"

    @app.orchestrator
    async def digitize(context: df.OrchestrationContext) -> str:
        return await context.call_activity(scan)

    with TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL, follow_redirects=False) as http:
        start(http, "digitize", "scan-1")
        assert said.wait(30)
        yield http
        may_end.set()


def test_the_page_tells_where_an_activity_runs_and_how_far_it_is(scans: TestClient) -> None:
    text = scans.get("/instances/scan-1").text

    assert "Waiting for the activity &#39;scan&#39; (620 of 1000, last heartbeat 0 s ago)." in text
    assert "<li><b>scan</b> attempt 1, on thread, since " in text
    assert "(620 of 1000, last heartbeat 0 s ago)" in scans.get("/instances").text


def test_the_api_and_the_terminal_tell_the_same(scans: TestClient) -> None:
    status = status_from(scans.get(f"{MANAGEMENT}/instances/scan-1").json())

    assert status.waiting_for == "waiting for the activity 'scan' (620 of 1000, last heartbeat 0 s ago)"
    assert status.waiting is not None
    (activity,) = status.waiting.activities
    assert (activity.where, activity.progress) == ("thread", [620, 1000])
    assert _facts_of(activity, status).startswith("attempt 1, on thread, since 2")
    assert _facts_of(activity, status).endswith(", 620 of 1000, last heartbeat 0 s ago")
