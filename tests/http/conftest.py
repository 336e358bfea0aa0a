"""An application to serve, and ways to reach it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.host import application
from perdure.http.remote.client import RemoteClient

LOCAL = "http://localhost:7071"
M = MANAGEMENT


@dataclass
class Decision:
    approved: bool
    comment: str = ""


@dataclass
class Ledger:
    """A lifespan resource."""

    entries: list[str]


def make_app() -> df.App:
    app = df.App("hosts")

    @app.activity
    def shout(text: str) -> str:
        return text.upper()

    @app.orchestrator
    async def echo(context: df.OrchestrationContext) -> object:
        return context.get_input()

    @app.orchestrator(events={"ApproverDecision": Decision})
    async def approval(context: df.OrchestrationContext) -> str:
        context.set_custom_status("asking")
        decision = await context.wait_for_external_event("ApproverDecision", Decision)
        return await context.call_activity(shout, "approved" if decision.approved else "denied")

    @app.activity(retry=df.RetryPolicy(first_interval=3_600, max_attempts=3))
    def flaky() -> None:
        raise ConnectionError("not now")

    @app.orchestrator
    async def parent(context: df.OrchestrationContext) -> object:
        return await context.call_sub_orchestrator(echo, 1)

    @app.orchestrator
    async def waiting_parent(context: df.OrchestrationContext) -> object:
        return await context.call_sub_orchestrator(approval)

    @app.orchestrator
    async def retrying(context: df.OrchestrationContext) -> object:
        return await context.call_activity(flaky)

    @app.orchestrator
    async def lost(context: df.OrchestrationContext) -> object:
        return await context.call_activity("nowhere")

    @app.orchestrator
    async def open_door(context: df.OrchestrationContext) -> object:
        return await context.wait_for_external_event("anything at all")

    @app.orchestrator
    async def broken(context: df.OrchestrationContext) -> None:
        raise ValueError("<script>alert('broken')</script>")

    @app.orchestrator
    async def sleeper(context: df.OrchestrationContext) -> None:
        await context.create_timer(timedelta(days=30))

    @app.orchestrator
    async def family(context: df.OrchestrationContext) -> object:
        return await context.call_sub_orchestrator(echo, "child")

    return app


@pytest.fixture
def app() -> df.App:
    return make_app()


@pytest.fixture
def http(app: df.App) -> Iterator[TestClient]:
    """The application over HTTP, on a memory store."""
    with TestClient(
        app.asgi(store="memory:", access="open"), base_url=LOCAL, follow_redirects=False
    ) as client:
        yield client


@pytest.fixture
async def local(app: df.App) -> AsyncIterator[df.Client]:
    """The in-process client of a running application."""
    async with app.running(store="memory:") as client:
        yield client


@pytest.fixture
async def remote(local: df.Client) -> AsyncIterator[RemoteClient]:
    """The remote client of the same application."""
    transport = httpx2.ASGITransport(app=application(local))
    async with RemoteClient(LOCAL, transport=transport) as client:
        yield client


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a database may be made."""
    return tmp_path / "perdure.db"


def start(http: TestClient, name: str, instance_id: str, body: object = None, **query: str) -> None:
    """Start an instance over the management API."""
    answer = http.post(f"{M}/orchestrators/{name}/{instance_id}", json=body, params=query)
    assert answer.status_code == 202, answer.text


def finish(http: TestClient, instance_id: str) -> dict[str, object]:
    """The status of an instance once it has finished."""
    answer = http.get(f"{M}/instances/{instance_id}", params={"wait": "10"})
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found
