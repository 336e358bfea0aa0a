"""The output of a failed instance of a hosted app: Azure's words, by each door."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from perdure.hosts.azure_functions import self_check
from perdure.hosts.azure_functions.application import load
from perdure.model.instances import RuntimeStatus
from perdure.testing import environment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
APP = """
import json
import azure.durable_functions as df
import azure.functions as func
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)

@app.activity_trigger(input_name="x")
def bad(x):
    raise ValueError("no such part")

@app.entity_trigger(context_name="context")
def counter(context):
    raise LookupError("no such operation")

@app.orchestration_trigger(context_name="context")
def raises(context):
    raise ValueError("the claim is void")
    yield

@app.orchestration_trigger(context_name="context")
def raises_nothing(context):
    raise KeyError
    yield

@app.orchestration_trigger(context_name="context")
def plain(context):
    raise RuntimeError("without a yield")

@app.orchestration_trigger(context_name="context")
def calls(context):
    yield context.call_activity("bad")

@app.orchestration_trigger(context_name="context")
def retries(context):
    yield context.call_activity_with_retry("bad", df.RetryOptions(1000, 2))

@app.orchestration_trigger(context_name="context")
def parent(context):
    yield context.call_sub_orchestrator(context.get_input())

@app.orchestration_trigger(context_name="context")
def operates(context):
    yield context.call_entity(df.EntityId("counter", "k"), "add")

@app.orchestration_trigger(context_name="context")
def tells(context):
    try:
        yield context.call_sub_orchestrator(context.get_input())
    except Exception as error:
        return str(error)

@app.route(route="run/{name}")
@app.durable_client_input(client_name="client")
async def run(req: func.HttpRequest, client):
    await client.start_new(req.route_params["name"], "one", req.params.get("input"))
    answer = await client.wait_for_completion_or_create_check_status_response(req, "one", 60_000, 10)
    status = await client.get_status("one")
    listed = [one.output for one in await client.get_status_all() if one.instance_id == "one"]
    return json.dumps([answer.status_code, json.loads(answer.get_body())["output"], status.output, *listed])
"""
FAILED = "Orchestrator function '{}' failed: {}"
BAD = "Activity function 'bad' failed: ValueError: no such part"
OUTPUTS = {
    ("raises", None): FAILED.format("raises", "the claim is void"),
    ("raises_nothing", None): FAILED.format("raises_nothing", "KeyError"),
    ("plain", None): FAILED.format("plain", "without a yield"),
    ("calls", None): FAILED.format("calls", BAD),
    ("retries", None): FAILED.format("retries", BAD),
    ("parent", "raises"): FAILED.format("parent", FAILED.format("raises", "the claim is void")),
    ("parent", "calls"): FAILED.format("parent", FAILED.format("calls", BAD)),
    ("operates", None): FAILED.format("operates", "no such operation"),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(APP)
    return tmp_path


@pytest.mark.parametrize("by", ["the SDK's tasks", "the protocol"])
async def test_the_output_of_each_failure(place: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "the protocol":
        monkeypatch.setattr(self_check, "finding", lambda: "it is from the future")
    async with environment(load(place).app) as env:
        for (name, given), output in OUTPUTS.items():
            status = await env.run(name, given)
            assert (status.runtime_status, status.output) == (RuntimeStatus.Failed, output)
            assert status.failure is not None and status.failure.stack
            again = await env.client.get_status(status.instance_id)
            assert again is not None and again.output == output
        listed = [one.output for one in (await env.client.query(status="Failed")).instances]
        assert set(OUTPUTS.values()) <= set(listed)


async def test_a_caught_failure_of_a_child_has_its_words_and_then_its_stack(place: Path) -> None:
    async with environment(load(place).app) as env:
        reason, stack = (await env.run("tells", "raises")).output.split(" \n ", 1)
    assert reason == OUTPUTS["raises", None]
    assert "in raises" in stack and "the claim is void" in stack


@pytest.mark.parametrize(("name", "given"), OUTPUTS)
async def test_the_sdks_client_and_the_management_api_tell_it(
    place: Path, name: str, given: str | None
) -> None:
    output = OUTPUTS[name, given]
    host = load(place).app.asgi(store="memory:", access="open")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
            told = await http.post(f"/api/run/{name}" + (f"?input={given}" if given else ""))
            document = (await http.get("/runtime/webhooks/durabletask/instances/one")).json()
    assert told.json() == [500, output, output, output]
    assert (document["runtimeStatus"], document["output"]) == ("Failed", output)


async def test_the_reason_of_a_terminated_instance_is_its_output(place: Path) -> None:
    async with environment(load(place).app) as env:
        instance_id = await env.client.start_new("calls", start_at=env.now.replace(year=env.now.year + 1))
        await env.client.terminate(instance_id, "not needed")
        assert (await env.client.wait_for_completion(instance_id)).output == "not needed"
