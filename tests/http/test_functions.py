"""Client functions behind HTTP: how their parameters are filled and their results answered."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.testclient import TestClient

import perdure as df
from tests.http.conftest import LOCAL, Ledger, make_app

JSON = {"Content-Type": "application/json"}


@dataclass
class Order:
    number: int
    note: str = ""


def served(app: df.App) -> TestClient:
    return TestClient(app.asgi(store="memory:", access="open"), base_url=LOCAL)


def test_an_async_function_starts_an_orchestration_and_answers_202() -> None:
    app = make_app()

    @app.route("/orders/{name}", methods=["POST"])
    async def submit(request: Request, client: df.Client) -> Response:
        name = request.path_params["name"]
        instance_id = await client.start_new("echo", f"order-{name}", await request.json())
        answer: Response = client.create_check_status_response(request, instance_id)
        return answer

    with served(app) as http:
        answer = http.post("/api/orders/7", json={"n": 7})

        assert answer.status_code == 202
        assert answer.headers["location"].endswith("/instances/order-7")
        assert http.get(answer.headers["location"] + "?wait=60").json()["output"] == {"n": 7}


def test_a_plain_function_runs_in_a_thread_with_the_blocking_client() -> None:
    app = make_app()
    threads = []

    @app.route("/orders", methods=["POST"])
    def submit(request: Request, client: df.SyncClient) -> object:
        threads.append(threading.current_thread())
        instance_id = client.start_new("echo", None, "blocking")
        status = client.wait_for_completion(instance_id, 10)
        return {"output": status.output}

    with served(app) as http:
        assert http.post("/api/orders").json() == {"output": "blocking"}
    assert threads[0] is not threading.main_thread()


def test_a_typed_parameter_takes_the_body() -> None:
    app = make_app()

    @app.route("/orders", methods=["POST"])
    async def submit(order: Order) -> Order:
        return Order(order.number + 1, type(order).__name__)

    with served(app) as http:
        assert http.post("/api/orders", json={"number": 1}).json() == {"number": 2, "note": "Order"}
        misfit = http.post("/api/orders", json={"number": "one"})
        assert (misfit.status_code, misfit.json()["pointer"]) == (400, "/number")
        assert http.post("/api/orders").status_code == 400


def test_an_untyped_parameter_takes_the_request_as_azures_does() -> None:
    app = make_app()

    @app.route("/who")
    async def who(req) -> Any:  # type: ignore[no-untyped-def]
        return req.query_params["name"]

    with served(app) as http:
        assert http.get("/api/who?name=ada").text == "ada"


def test_a_lifespan_resource_is_given_by_its_type() -> None:
    app = make_app()

    @app.lifespan
    async def ledger() -> AsyncIterator[Ledger]:
        yield Ledger(["opened"])

    @app.route("/entries")
    async def entries(ledger: Ledger) -> list[str]:
        return ledger.entries

    with served(app) as http:
        assert http.get("/api/entries").json() == ["opened"]


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        ("text <b>", 200, "text/plain; charset=utf-8", b"text <b>"),
        ({"a": 1}, 200, "application/json", b'{"a":1}'),
        ([1, 2], 200, "application/json", b"[1,2]"),
        (None, 204, None, b""),
        (Order(1), 200, "application/json", b'{"number":1,"note":""}'),
        (False, 200, "application/json", b"false"),
        (Response("x", 418), 418, None, b"x"),
    ],
)
def test_a_result_becomes_a_response(result: object, status: int, kind: str | None, body: bytes) -> None:
    app = make_app()

    @app.route("/result")
    async def answer() -> object:
        return result

    with served(app) as http:
        found = http.get("/api/result")

    assert (found.status_code, found.headers.get("content-type"), found.content) == (status, kind, body)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (df.InstanceNotFound("gone"), 404, "instance-not-found"),
        (df.Overloaded("busy"), 429, "overloaded"),
        (df.StoreFull("full"), 507, "store-full"),
        (df.OutcomeUnknown("who knows"), 503, "outcome-unknown"),
        (TimeoutError("slow"), 408, "timeout"),
        (HTTPException(402, "pay first"), 402, "payment-required"),
        (KeyError("secret"), 500, "internal-server-error"),
        (SystemExit("secret"), 500, "internal-server-error"),
    ],
)
def test_an_error_becomes_a_problem(error: BaseException, status: int, code: str) -> None:
    app = make_app()

    @app.route("/fail")
    async def fail() -> None:
        raise error

    with served(app) as http:
        answer = http.get("/api/fail")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "secret" not in answer.text
    if status in (429, 503, 507):
        assert int(answer.headers["retry-after"]) > 0


def test_a_result_that_json_cannot_carry_is_the_servers_fault() -> None:
    app = make_app()

    @app.route("/odd")
    async def odd() -> object:
        return {"thread": threading.Lock()}

    with served(app) as http:
        assert http.get("/api/odd").status_code == 500


def test_the_json_of_a_request_is_strict() -> None:
    app = make_app()

    @app.route("/strict", methods=["POST"])
    async def strict(request: Request) -> object:
        return await request.json()

    with served(app) as http:
        answer = http.post("/api/strict", content=b'{"a": 1, "a": 2}', headers=JSON)

    assert (answer.status_code, answer.json()["code"]) == (400, "payload")


def test_a_function_may_answer_html_under_a_policy_of_its_own() -> None:
    app = make_app()

    @app.route("/page", auth="anonymous")
    async def page() -> Response:
        return HTMLResponse("<style>b{}</style>", headers={"Content-Security-Policy": "default-src 'self'"})

    with served(app) as http:
        assert http.get("/api/page").headers["content-security-policy"] == "default-src 'self'"


def test_a_parameter_that_nothing_fills_fails_when_the_server_starts() -> None:
    app = make_app()

    @app.route("/two", methods=["POST"])
    async def two(one: Order, other: Order) -> None:
        pass

    with pytest.raises(df.RegistrationError, match="two"), served(app):
        pass


async def test_mounted_without_a_lifespan_it_starts_with_the_first_request_and_stops_with_the_loop() -> None:
    import httpx2
    from starlette.applications import Starlette
    from starlette.routing import Mount

    host = make_app().asgi(store="memory:", access="open")
    transport = httpx2.ASGITransport(app=Starlette(routes=[Mount("/durable", host)]))
    async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as http:
        answer = await http.post("/durable/runtime/webhooks/durabletask/orchestrators/echo/e-1", json=1)
        page = await http.get("/durable/instances")
        status = await http.get(answer.headers["location"] + "?wait=60")

    assert answer.headers["location"] == f"{LOCAL}/durable/runtime/webhooks/durabletask/instances/e-1"
    assert 'href="/durable/instances/e-1"' in page.text
    assert 'href="/durable/static/perdure.' in page.text
    assert status.json()["output"] == 1
    keeper = host._keeper
    keeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeper
    assert host._serving is None
