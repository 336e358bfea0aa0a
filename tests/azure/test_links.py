"""URLs to an instance, and the parameter that takes the client, in Azure's spellings."""

from typing import Any

import pytest
from starlette.testclient import TestClient

import perdure as df
from perdure.testing import environment

LOCAL = "http://localhost:7071"


def make_app() -> df.App:
    app = df.App("links")

    @app.orchestration_trigger(context_name="context")
    def hello(context: df.DurableOrchestrationContext) -> str:
        return f"hello {context.get_input()}"

    @app.route("/start", methods=["POST"], auth="anonymous")
    @app.durable_client_input(client_name="client")
    async def start(req, client) -> Any:
        instance_id = await client.start_new("hello", client_input="you")
        links = client.get_client_response_links(req, instance_id)
        assert links == client.create_http_management_payload(instance_id)
        assert links == client.create_http_management_payload(instance_id, str(req.url))
        return links

    @app.route("/waiting", methods=["POST"], auth="anonymous")
    @app.durable_client_input(client_name="starter")
    def wait(req, starter: df.DurableOrchestrationClient) -> Any:
        instance_id = starter.start_new("hello", None, "there")
        assert starter.create_http_management_payload(instance_id)["id"] == instance_id
        return starter.wait_for_completion_or_create_check_status_response(req, instance_id, 5000, 100)

    return app


def test_links_lead_to_the_instance():
    with TestClient(make_app().asgi(store="memory:", access="open"), base_url=LOCAL) as http:
        links = http.post("/api/start").json()
        status = http.get(links["statusQueryGetUri"].removeprefix(LOCAL)).json()

    assert status["instanceId"] == links["id"]


def test_a_plain_function_gets_the_blocking_client():
    with TestClient(make_app().asgi(store="memory:"), base_url=LOCAL) as http:
        assert http.post("/api/waiting").json() == "hello there"


async def test_outside_a_request_links_need_an_address():
    async with environment(make_app()) as env:
        with pytest.raises(RuntimeError, match="no HTTP host"):
            env.client.create_http_management_payload("x")
