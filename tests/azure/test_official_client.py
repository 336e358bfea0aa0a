"""Every method of the official `DurableOrchestrationClient` 1.7 against a running server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import azure.functions as func
import pytest
import uvicorn
from azure.durable_functions import DurableOrchestrationClient, EntityId, OrchestrationRuntimeStatus
from azure.durable_functions.models.utils import http_utils

import perdure as df
from perdure.http.api import azure_client
from perdure.http.api.azure_client import binding

pytestmark = pytest.mark.timeout(60)
S = OrchestrationRuntimeStatus
KEY = "a-key-that-nobody-could-guess-0123456789"


def make_app() -> df.App:
    app = df.App("official")

    @app.activity
    def flaky(fails: bool) -> str:
        if fails and not repaired:
            raise ValueError("not yet")
        return "done"

    @app.orchestrator(version="1")
    def echo(context: df.DurableOrchestrationContext) -> Any:
        return {"input": context.get_input(), "version": context.version}

    @app.orchestrator
    def waiting(context: df.DurableOrchestrationContext):  # type: ignore[no-untyped-def]
        decision = yield context.wait_for_external_event("Decision")
        return decision

    @app.orchestrator
    def failing(context: df.DurableOrchestrationContext):  # type: ignore[no-untyped-def]
        return (yield context.call_activity(flaky, True))

    @app.entity
    def counter(context: df.DurableEntityContext) -> None:
        value = context.get_state(lambda: 0)
        context.set_state(value + context.get_input())

    return app


repaired: list[bool] = []


@pytest.fixture
async def client() -> AsyncIterator[DurableOrchestrationClient]:
    """The official client, handed what `perdure binding` prints, and nothing else."""
    repaired.clear()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        app = make_app()
        host = app.asgi(store="memory:", admin_key=KEY)
        server = uvicorn.Server(uvicorn.Config(host, lifespan="on", log_config=None, ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        yield DurableOrchestrationClient(json.dumps(binding(address, "official", KEY)))
        await http_utils._close_session()
        server.should_exit = True
        await serving


async def finished(client: DurableOrchestrationClient, instance_id: str) -> Any:
    async with asyncio.timeout(60):
        while True:
            status = await client.get_status(instance_id, show_input=True)
            if status.runtime_status in (S.Completed, S.Failed, S.Terminated):
                return status
            await asyncio.sleep(0.02)


async def test_start_and_status(client: DurableOrchestrationClient) -> None:
    instance_id = await client.start_new("echo", None, {"a": 1})
    status = await finished(client, instance_id)
    assert status.output == {"input": {"a": 1}, "version": "1"}
    assert status.input_ == {"a": 1} and status.name == "echo" and status.instance_id == instance_id
    assert await client.start_new("echo", "mine", [1, 2], version="1") == "mine"
    assert (await finished(client, "mine")).output == {"input": [1, 2], "version": "1"}
    history = await client.get_status("mine", show_history=True, show_history_output=True)
    assert [event["EventType"] for event in history.historyEvents][:1] == ["ExecutionStarted"]
    missing = await client.get_status("nobody")
    assert missing.runtime_status is None
    with pytest.raises(Exception, match="no_such"):
        await client.start_new("no_such")


async def test_events(client: DurableOrchestrationClient) -> None:
    instance_id = await client.start_new("waiting")
    await client.raise_event(instance_id, "Decision", {"approved": True})
    assert (await finished(client, instance_id)).output == {"approved": True}
    with pytest.raises(Exception, match="is gone"):
        await client.raise_event(instance_id, "Decision", 1)
    with pytest.raises(Exception, match="No instance"):
        await client.raise_event("nobody", "Decision", 1)


async def test_operators(client: DurableOrchestrationClient) -> None:
    instance_id = await client.start_new("waiting")
    await client.suspend(instance_id, "a pause")
    assert (await client.get_status(instance_id)).runtime_status is S.Suspended
    await client.resume(instance_id, "on with it")
    assert (await client.get_status(instance_id)).runtime_status is S.Running
    await client.terminate(instance_id, "no longer needed")
    status = await finished(client, instance_id)
    assert status.runtime_status is S.Terminated
    again = await client.restart(instance_id)
    assert again != instance_id
    assert (await client.get_status(again)).runtime_status is S.Running
    with pytest.raises(Exception, match="No instance"):
        await client.terminate("nobody", "x")


async def test_rewind(client: DurableOrchestrationClient) -> None:
    instance_id = await client.start_new("failing")
    assert (await finished(client, instance_id)).runtime_status is S.Failed
    repaired.append(True)
    await client.rewind(instance_id, "repaired")
    assert (await finished(client, instance_id)).output == "done"
    with pytest.raises(Exception, match="only supported on failed"):
        await client.rewind(instance_id, "again")


async def test_lists_and_purges(client: DurableOrchestrationClient) -> None:
    begin = datetime.now(UTC) - timedelta(minutes=1)
    for n in range(3):
        await client.start_new("echo", f"a-{n}", n)
        await finished(client, f"a-{n}")
    await client.start_new("waiting", "b-1")
    assert len(await client.get_status_all()) == 4
    found = await client.get_status_by(created_time_from=begin, runtime_status=[S.Completed])
    assert sorted(status.instance_id for status in found) == ["a-0", "a-1", "a-2"]
    found = await client.get_status_by(created_time_from=begin, instance_id_prefix="b-")
    assert [status.instance_id for status in found] == ["b-1"]
    assert (await client.purge_instance_history("a-0")).instances_deleted == 1
    assert (await client.purge_instance_history("a-0")).instances_deleted == 0
    purged = await client.purge_instance_history_by(begin, runtime_status=[S.Completed])
    assert purged.instances_deleted == 2


async def test_a_list_has_every_row_however_many_there_are(
    client: DurableOrchestrationClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_client, "PAGE", 2)
    for n in range(5):
        await client.start_new("waiting", f"w-{n}")
    assert sorted(one.instance_id for one in await client.get_status_all()) == [f"w-{n}" for n in range(5)]
    found = await client.get_status_by(runtime_status=[S.Running], instance_id_prefix="w-")
    assert len(found) == 5
    assert await client.get_status_by(instance_id_prefix="none-") == []


async def test_entities(client: DurableOrchestrationClient) -> None:
    entity = EntityId("counter", "k1")
    assert not (await client.read_entity_state(entity)).entity_exists
    for _ in range(3):
        await client.signal_entity(entity, "add", 5)
    async with asyncio.timeout(60):
        while (await client.read_entity_state(entity)).entity_state != 15:
            await asyncio.sleep(0.02)


async def test_responses_and_links(client: DurableOrchestrationClient) -> None:
    request = func.HttpRequest(method="POST", url="http://example.org/api/start", body=b"")
    instance_id = await client.start_new("waiting")
    response = client.create_check_status_response(request, instance_id)
    links = json.loads(response.get_body())
    assert response.status_code == 202 and links["id"] == instance_id
    assert links["statusQueryGetUri"].startswith("http://example.org/runtime/webhooks/durabletask/instances/")
    own = client.create_http_management_payload(instance_id)
    status, body = await http_utils.get_async_request(own["statusQueryGetUri"])
    assert (status, body["runtimeStatus"]) == (202, "Running")
    assert client.get_client_response_links(None, instance_id) == own
    waited = await client.wait_for_completion_or_create_check_status_response(request, instance_id, 100, 50)
    assert waited.status_code == 202
    await client.raise_event(instance_id, "Decision", "yes")
    waited = await client.wait_for_completion_or_create_check_status_response(
        request, instance_id, 10_000, 50
    )
    assert (waited.status_code, waited.get_body()) == (200, b"yes")


async def test_without_the_credential_nothing_opens(client: DurableOrchestrationClient) -> None:
    base = client._orchestration_bindings.rpc_base_url
    wrong = base[:-2] + ("x" if base[-2] != "x" else "y") + "/"
    status, problem = await http_utils.get_async_request(f"{wrong}instances/")
    assert status == 401 and "guess" not in json.dumps(problem)
    assert (await http_utils.get_async_request(f"{base}instances/?code=another"))[0] == 400


def test_every_public_method_has_been_driven() -> None:
    source = Path(__file__).read_text()
    public = [name for name in vars(DurableOrchestrationClient) if not name.startswith("_")]
    missing = [name for name in public if f"client.{name}(" not in source]
    assert not missing or missing == ["task_hub_name"]
