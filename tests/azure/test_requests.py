"""Requests and responses of azure-functions: handed to client functions, taken from them, answered in kind."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import azure.functions as func
import httpx2
import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

import perdure as df
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.remote.client import RemoteClient
from perdure.testing import environment
from tests.azure import official

LOCAL = "http://localhost:7071"


def make_app() -> df.App:
    app = df.App("requests")

    @app.orchestration_trigger(context_name="context")
    def echo(context: df.DurableOrchestrationContext) -> Any:
        return context.get_input()

    @app.orchestration_trigger(context_name="context")
    def failing(context: df.DurableOrchestrationContext) -> Any:
        raise ValueError("no")

    @app.orchestration_trigger(context_name="context")
    def waiting(context: df.DurableOrchestrationContext) -> Any:
        return (yield context.wait_for_external_event("Go"))

    @app.route("/start/{name}", methods=["POST"], auth="anonymous")
    @app.durable_client_input(client_name="client")
    async def start(req: func.HttpRequest, client) -> func.HttpResponse:
        instance_id = await client.start_new(req.route_params["name"], None, req.get_json())
        response = client.create_check_status_response(req, instance_id)
        assert isinstance(response, func.HttpResponse)
        assert json.loads(response.get_body()) == client.create_http_management_payload(instance_id, req)
        assert json.loads(response.get_body()) == client.get_client_response_links(req, instance_id)
        return response

    @app.route("/wait/{name}", methods=["POST"], auth="anonymous")
    @app.durable_client_input(client_name="client")
    def wait(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
        instance_id = client.start_new(req.route_params["name"], None, req.get_json())
        milliseconds = int(req.params.get("milliseconds", 10_000))
        return client.wait_for_completion_or_create_check_status_response(req, instance_id, milliseconds)

    @app.route("/look", methods=["PUT"], auth="anonymous")
    async def look(req: func.HttpRequest) -> func.HttpResponse:
        told = {
            "method": req.method,
            "url": req.url,
            "header": req.headers["X-Own"],
            "params": dict(req.params),
            "form": dict(req.form),
            "size": len(req.get_body()),
        }
        headers = {"X-Answer": "yes"}
        return func.HttpResponse(
            json.dumps(told), status_code=201, headers=headers, mimetype="application/json"
        )

    @app.route("/text", auth="anonymous")
    def text(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse("grüß dich")

    @app.route("/both", auth="anonymous")
    async def both(req: func.HttpRequest, request: Request) -> str:
        return f"{type(req).__module__} {type(request).__name__}"

    return app


def served(**settings: Any) -> TestClient:
    return TestClient(make_app().asgi(store="memory:", **settings), base_url=LOCAL)


def test_a_client_function_of_azure_starts_and_answers_202_with_links_that_open() -> None:
    with served() as http:
        answer = http.post("/api/start/echo", json={"n": 1})

        assert answer.status_code == 202
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["retry-after"] == "10"
        assert answer.headers["location"] == answer.json()["statusQueryGetUri"]
        assert http.get(f"{answer.headers['location']}&wait=60").json()["output"] == {"n": 1}


def test_below_a_prefix_links_of_azures_requests_have_it_too() -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    host = make_app().asgi(store="memory:")
    site = Starlette(routes=[Mount("/durable", host)], lifespan=host.lifespan)
    with TestClient(site, base_url=LOCAL) as http:
        location = http.post("/durable/api/start/echo", json=1).headers["location"]

        assert location.startswith(f"{LOCAL}/durable{M}/instances/")
        assert http.get(location).status_code in (200, 202)


def test_the_request_has_what_azures_has_and_the_response_arrives_as_it_was_made() -> None:
    with served() as http:
        answer = http.put("/api/look?a=1", headers={"X-Own": "mine"}, data={"field": "x y"})

    assert answer.status_code == 201
    assert (answer.headers["x-answer"], answer.headers["content-type"]) == ("yes", "application/json")
    assert answer.json() == {
        "method": "PUT",
        "url": f"{LOCAL}/api/look?a=1",
        "header": "mine",
        "params": {"a": "1"},
        "form": {"field": "x y"},
        "size": len("field=x+y"),
    }


def test_text_is_text_in_its_charset() -> None:
    with served() as http:
        answer = http.get("/api/text")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.text == "grüß dich"


def test_a_function_may_have_both_requests() -> None:
    with served() as http:
        assert http.get("/api/both").text == "azure.functions._http LimitedRequest"


def test_a_body_above_the_limit_is_refused_before_the_function_sees_it() -> None:
    with served() as http:
        assert http.post("/api/start/echo", content=b"[" + b" " * 2_000_000 + b"]").status_code == 413


@pytest.mark.parametrize("name", ["echo", "failing"])
@pytest.mark.parametrize("sent", ["text", {"n": [1]}, None, 3])
def test_waiting_answers_as_azures_package_does(name: str, sent: Any) -> None:
    with served() as http:
        ours = http.post(f"/api/wait/{name}", content=json.dumps(sent))

    expected_status, expected = asyncio.run(by_the_package(name, sent))
    assert ours.status_code == expected_status
    assert ours.headers["content-type"] == "application/json"
    if name == "echo":
        assert ours.content == expected if isinstance(sent, str) else ours.json() == json.loads(expected)
    else:
        assert ours.json()["runtimeStatus"] == json.loads(expected)["runtimeStatus"] == "Failed"


async def by_the_package(name: str, sent: Any) -> tuple[int, bytes]:
    """What the official client answers to the status of the same instance."""
    async with environment(make_app()) as env:
        status = await env.run(name, sent)
    found = {
        "name": name,
        "instanceId": "x",
        "createdTime": "2026-01-01T00:00:00Z",
        "lastUpdatedTime": "2026-01-01T00:00:00Z",
        "output": status.output,
        "runtimeStatus": status.runtime_status.value,
    }

    status_kind = official.module("models.DurableOrchestrationStatus").DurableOrchestrationStatus

    class Official(official.package().DurableOrchestrationClient):  # type: ignore[misc]
        def __init__(self) -> None: ...

        async def get_status(self, *_: Any, **__: Any) -> Any:
            return status_kind.from_json(found)

    request = func.HttpRequest(method="POST", url=LOCAL, body=b"")
    answer = await Official().wait_for_completion_or_create_check_status_response(request, "x", 1_000, 100)
    return answer.status_code, answer.get_body()


def test_whoever_is_not_done_in_time_gets_links() -> None:
    with served(access="open") as http:
        answer = http.post("/api/wait/waiting?milliseconds=1", content="null")

    assert answer.status_code == 202
    assert set(answer.json()) >= {"id", "statusQueryGetUri", "sendEventPostUri", "rewindPostUri"}


async def test_outside_of_a_route_the_url_of_the_request_says_where_the_server_is() -> None:
    app = make_app()
    host = app.asgi(store="memory:", access="open")
    async with host.lifespan():
        request = func.HttpRequest(method="POST", url="https://example.org/api/start?x=1", body=b"")
        response = host.client.create_check_status_response(request, "some-1")

    assert isinstance(response, func.HttpResponse)
    assert response.headers["Location"] == f"https://example.org{M}/instances/some-1"
    assert (response.status_code, response.mimetype) == (202, "application/json")


async def test_a_client_of_a_server_elsewhere_links_to_that_server() -> None:
    host = make_app().asgi(store="memory:", admin_key="an-administrators-long-key")
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with RemoteClient(LOCAL, key="an-administrators-long-key", transport=transport) as client:
            request = func.HttpRequest(method="POST", url="https://functions.example/api/start", body=b"")
            instance_id = await client.start_new("echo", None, "text")
            accepted = client.create_check_status_response(request, instance_id)
            done = await client.wait_for_completion_or_create_check_status_response(request, instance_id)
            links = client.create_http_management_payload(instance_id)

    assert isinstance(accepted, func.HttpResponse)
    assert json.loads(accepted.get_body()) == links
    assert links["statusQueryGetUri"] == f"{LOCAL}{M}/instances/{instance_id}"
    assert (done.status_code, done.get_body()) == (200, b"text")


def test_the_server_does_not_import_the_package() -> None:
    code = (
        "import sys, perdure, perdure.http.host, perdure.http.api.azure_requests as ours\n"
        "assert ours.request_types() == ours.response_types() == ()\n"
        "assert not ours.is_request(object())\n"
        "print([name for name in sys.modules if name.startswith('azure.functions')])"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
