"""The number of replays over HTTP: in the status, in a list, for the remote client, on the page and in a terminal."""

import json
from pathlib import Path

from starlette.testclient import TestClient
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.http.api.status_json import status_from
from tests.http.conftest import LOCAL, M, finish


def app_of() -> df.App:
    app = df.App("claims")

    @app.orchestrator
    async def approval(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("Decision")

    return app


def served(store: Path) -> TestClient:
    return TestClient(app_of().asgi(store=str(store), access="open"), base_url=LOCAL, follow_redirects=False)


def printed(*arguments: str, store: Path) -> str:
    return CliRunner().invoke(root, [*arguments, "--store", str(store)]).stdout


def test_every_door_tells_how_often_an_instance_was_replayed(tmp_path: Path) -> None:
    store = tmp_path / "claims.db"
    with served(store) as http:
        http.post(f"{M}/orchestrators/approval/c1")
        before = http.get(f"{M}/instances/c1").json()
        page = http.get("/instances/c1").text
    with served(store) as http:
        http.post(f"{M}/instances/c1/raiseEvent/Decision", json=1)
        after = finish(http, "c1")
        (listed,) = http.get(f"{M}/instances").json()
        page_after = http.get("/instances/c1").text

    assert (before["replays"], before["replayReason"], status_from(before).replays) == (0, None, 0)
    assert "replayed" not in page
    assert (after["replays"], listed["replays"], status_from(after).replays) == (1, 1, 1)
    assert (after["replayReason"], status_from(after).replay_reason) == ("restart", "restart")
    assert "replayed once (restart)" in page_after
    assert json.loads(printed("status", "c1", "--json", store=store))["replays"] == 1
    assert "replays       1 (the last: restart)" in printed("status", "c1", store=store)


def test_a_server_of_an_earlier_version_tells_no_number() -> None:
    document = {
        "instanceId": "c1", "runtimeStatus": "Running",
        "createdTime": "2026-01-01T00:00:00Z", "lastUpdatedTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip

    assert (status_from(document).replays, status_from(document).replay_reason) == (0, "")
