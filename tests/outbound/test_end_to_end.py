"""call_http over a real server, through a real engine and a file: the response arrives, the secret nowhere."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import httpx2
import pytest

import perdure as df
from perdure.http.host import application
from tests.outbound.conftest import Server, answer

CANARY = "canary-4f9e2c71d0"


def make_app(server: Server, *, broken: bool = False) -> df.App:
    app = df.App("whole", http=df.HttpPolicy(allow=[f"127.0.0.1:{server.port}"], timeout=30))
    secret = df.Secret("PERDURE_TEST_TOKEN", form="Bearer {}")

    @app.orchestrator
    async def awaiting(context: df.OrchestrationContext) -> object:
        response = await context.call_http(
            "POST",
            f"{server.url}/start",
            {"token": df.Secret("PERDURE_TEST_TOKEN")},
            {"Authorization": secret},
            poll_interval=0.01,
        )
        return response.json()

    @app.orchestrator
    def yielding(context: df.OrchestrationContext):
        response = yield context.call_http(
            "POST",
            f"{server.url}/start",
            {"token": df.Secret("PERDURE_TEST_TOKEN")},
            {"Authorization": secret},
            poll_interval=0.01,
        )
        return response.json()

    @app.orchestrator
    async def cut_off(context: df.OrchestrationContext) -> int:
        call = context.call_http("POST", f"{server.url}/cut", headers={"X-T": secret})
        return (await call).status_code

    return app


def everything_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("style", ["awaiting", "yielding"])
async def test_a_polled_call_survives_a_restart_and_its_secret_is_nowhere(
    style, server: Server, tmp_path, monkeypatch, caplog, capsys
):
    monkeypatch.setenv("PERDURE_TEST_TOKEN", CANARY)
    caplog.set_level(logging.DEBUG)
    store = f"sqlite:///{tmp_path}/whole.db"
    echo = f'{{"you sent": "{CANARY}"}}'.encode()
    server.answers["/start"] = lambda asked: answer(202, asked.body, Location="/status", Retry_After="0")
    server.answers["/status"] = answer(202, Location="/status", Retry_After="0")
    app = make_app(server)
    async with app.running(store=store) as client:
        started = await client.start_new(style)
        while len(server.asked) < 3:  # the request itself and two questions: a real clock, a few milliseconds
            await asyncio.sleep(0.01)
    server.answers["/status"] = answer(200, echo, Content_Type="application/json")
    async with app.running(store=store) as client:
        status = await client.wait_for_completion(started, timeout=60)
        assert status.output == {"you sent": "[secret]"}
        ids = [found.instance_id for found in (await client.query()).instances]
        shown = [str(await client.get_status(instance_id, True, True, True)) for instance_id in ids]
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {CANARY}"}
    assert server.asked[0].body == f'{{"token":"{CANARY}"}}'.encode()
    assert CANARY not in "".join(shown)
    assert CANARY not in caplog.text
    assert CANARY not in "".join(capsys.readouterr())
    assert CANARY.encode() not in everything_below(tmp_path)


async def test_a_failure_tells_no_secret(server: Server, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv(
        "PERDURE_TEST_TOKEN", f"{CANARY}\u00e9"
    )  # no header can hold it: errors like to quote it
    caplog.set_level(logging.DEBUG)
    server.answers["/cut"] = b""
    app = make_app(server)
    async with app.running(store=f"sqlite:///{tmp_path}/whole.db") as client:
        first = await client.start_new("cut_off")
        status = await client.wait_for_completion(first, timeout=60)
        monkeypatch.setenv("PERDURE_TEST_TOKEN", CANARY)
        second = await client.start_new("cut_off")
        other = await client.wait_for_completion(second, timeout=60)
    assert "HttpCallError" in str(other.failure)
    assert status.runtime_status == other.runtime_status == df.RuntimeStatus.Failed
    assert CANARY not in str(status.failure) + str(other.failure) + caplog.text
    assert CANARY.encode() not in everything_below(tmp_path)


async def test_pages_and_status_show_a_call_decently(server: Server, monkeypatch):
    monkeypatch.setenv("PERDURE_TEST_TOKEN", CANARY)
    server.answers["/start"] = answer(202, b"", Location="/status", Retry_After="3600")
    app = make_app(server)
    async with app.running(store="memory:") as client:
        client_app = application(client)
        started = await client.start_new("awaiting")
        while not (status := await client.get_status(started)).waiting_for.count("HttpPolling"):
            await asyncio.sleep(0.01)
        transport = httpx2.ASGITransport(app=client_app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:7071") as http:
            page = (await http.get(f"/instances/{started}")).text
    assert "BuiltIn::HttpActivity" in page
    assert "BuiltIn::HttpPolling" in page
    assert "PERDURE_TEST_TOKEN" not in status.waiting_for


async def test_without_httpx2_the_error_says_what_to_install(server: Server, monkeypatch):
    monkeypatch.setenv("PERDURE_TEST_TOKEN", CANARY)
    monkeypatch.setitem(sys.modules, "httpx2", None)
    async with make_app(server).running(store="memory:") as client:
        started = await client.start_new("cut_off")
        status = await client.wait_for_completion(started, timeout=60)
    assert "pip install 'perdure[server]'" in str(status.failure)
