"""Links that functions make before an instance starts, and where no request is: in timers, queues and activities."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from perdure.hosts.azure_functions.application import load
from perdure.testing import environment
from perdure.triggers import Queues

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
APP = """
import asyncio, json
import azure.durable_functions as df
import azure.functions as func
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
made = {}
fired = asyncio.Event()
@app.route(route="begin/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def begin(req: func.HttpRequest, client):
    links = client.create_http_management_payload(req.route_params["id"])
    if "started" in req.params:
        await client.start_new("waits", req.route_params["id"], links["id"])
    return json.dumps(links)
@app.timer_trigger(schedule="0 0 1 1 1 *", arg_name="timer", run_on_startup=True)
@app.durable_client_input(client_name="client")
async def at_start(timer: func.TimerRequest, client):
    made["timer"] = client.create_http_management_payload(await client.start_new("waits", "by-timer"))
    fired.set()
@app.queue_trigger(arg_name="msg", queue_name="asked", connection="")
@app.durable_client_input(client_name="client")
async def on_message(msg: str, client):
    made["queue"] = client.create_http_management_payload(await client.start_new("waits", msg))
@app.route(route="stop", methods=["POST"])
@app.durable_client_input(client_name="client")
async def stop(req: func.HttpRequest, client):
    running = await client.get_status_by(runtime_status=[df.OrchestrationRuntimeStatus.Running])
    for one in running:
        await client.terminate(one.instance_id, "all")
    return json.dumps(sorted(one.instance_id for one in running))
@app.orchestration_trigger(context_name="context")
def waits(context):
    return (yield context.wait_for_external_event("Go"))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(APP)
    return tmp_path


@pytest.fixture
async def http(place: Path) -> AsyncIterator[httpx2.AsyncClient]:
    host = load(place, serve=True).app.asgi(store="memory:", public_url="http://localhost")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def test_links_that_are_made_before_the_start_open_the_instance(http: httpx2.AsyncClient) -> None:
    links = (await http.post("/api/begin/one?started")).json()
    assert (await http.get(links["statusQueryGetUri"])).status_code == 202
    raised = await http.post(links["sendEventPostUri"].replace("{eventName}", "Go"), json=5)
    assert raised.status_code == 202
    done = await http.get(links["statusQueryGetUri"] + "&wait=30")
    assert done.json()["output"] == 5

    assert (await http.get(links["statusQueryGetUri"].replace("/one?", "/two?"))).status_code == 403
    never = (await http.post("/api/begin/never")).json()
    assert (await http.get(never["statusQueryGetUri"])).status_code == 404


async def test_functions_of_timers_and_queues_make_links_from_the_servers_address(
    http: httpx2.AsyncClient,
) -> None:
    await _timer_has_fired()
    links = sys.modules["function_app"].made["timer"]
    assert links["statusQueryGetUri"].startswith(
        "http://localhost/runtime/webhooks/durabletask/instances/by-timer"
    )
    assert (await http.get(links["statusQueryGetUri"])).status_code == 202


async def _timer_has_fired() -> None:
    await asyncio.wait_for(sys.modules["function_app"].fired.wait(), 60)


async def test_a_program_that_ends_all_instances_leaves_schedules_alone(http: httpx2.AsyncClient) -> None:
    await _timer_has_fired()
    await http.post("/api/begin/one?started")
    assert json.loads((await http.post("/api/stop")).text) == ["by-timer", "one"]


async def test_without_a_server_a_link_has_no_address(place: Path) -> None:
    async with environment(load(place).app) as env:
        await Queues(env.client).send("asked", "by-queue")
        await env.settled()
        assert sys.modules["function_app"].made == {}
