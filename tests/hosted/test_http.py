"""HTTP triggers and the SDK's own client inside them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure.hosts.azure_functions.application import load
from perdure.hosts.azure_functions.http_routes import Template, template_of
from perdure.http.host import application
from perdure.server.child import Tether
from tests.hosted.programs import APPS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
KEY = "a-key-that-opens-everything-0123456789"


@pytest.fixture
async def http(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[httpx2.AsyncClient]:
    monkeypatch.delenv("GREETING", raising=False)
    app = load(APPS / "shapes", **getattr(request, "param", {})).app
    monkeypatch.setenv("GREETING", "Good day")
    host = app.asgi(store="memory:", admin_key=KEY)
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


async def test_a_function_starts_an_orchestration_and_hands_out_links_that_are_signed_for_one_operation(
    http: httpx2.AsyncClient,
) -> None:
    started = await http.post("/v1/start/echo/one", json={"a": 1})
    links = started.json()

    assert started.status_code == 202 and started.headers["Location"] == links["statusQueryGetUri"]
    assert {"terminatePostUri", "purgeHistoryDeleteUri", "sendEventPostUri"} <= links.keys()
    assert KEY not in started.text and "in-process" not in started.text
    signatures = {name: link.partition("sig=")[2] for name, link in links.items() if name != "id"}
    assert len(set(signatures.values())) == len(signatures)
    assert (await http.get(links["statusQueryGetUri"])).status_code in (200, 202)
    crossed = links["statusQueryGetUri"].replace(
        signatures["statusQueryGetUri"], signatures["terminatePostUri"]
    )
    assert (await http.get(crossed)).status_code == 403


@pytest.mark.parametrize("http", [{"links": "status"}], indirect=True)
async def test_a_caller_gets_the_status_alone_where_the_links_are_said_to_be(
    http: httpx2.AsyncClient,
) -> None:
    links = (await http.post("/v1/start/echo/one")).json()
    assert set(links) == {"id", "statusQueryGetUri"}


@pytest.mark.parametrize(
    ("http", "event"), [({}, '{"a": [1, "x"]}'), ({"events": "data"}, {"a": [1, "x"]})], indirect=["http"]
)
async def test_every_verb_of_the_sdks_client_works_in_process(http: httpx2.AsyncClient, event: Any) -> None:
    await http.post("/v1/start/ask/the-id", json=["in"])
    told = (await http.get("/v1/client/the-id")).json()

    output, status, *rest = told
    assert output == {"a": [1, "x"]} and status == event  # the SDK sends a text output as the body itself
    assert rest == ["Completed", ["in"], False, None, True, 1, 1]


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/numbers/7", 200, "7 GET numbers Good day"),
        ("/v1/numbers/10", 404, None),
        ("/v1/numbers/x", 404, None),
        ("/v1/files/a/b.txt", 200, "a/b.txt"),
        ("/v1/files", 200, "none"),
        ("/v1/nameless", 418, "\x00\x01"),
        ("/v1/nothing", 204, ""),
        ("/v1/sync", 401, None),
        ("/v1/sync?code=" + KEY, 200, "DurableOrchestrationClient"),
        ("/api/nothing", 404, None),
    ],
)
async def test_routes_are_azures(http: httpx2.AsyncClient, path: str, status: int, text: str | None) -> None:
    answer = await http.get(path)
    assert answer.status_code == status
    assert text is None or answer.text == text


async def test_a_function_that_raises_answers_500_without_its_message(http: httpx2.AsyncClient) -> None:
    answer = await http.get("/v1/broken")
    assert answer.status_code == 500 and "secret" not in answer.text


@pytest.mark.parametrize(
    ("route", "paths", "fits", "fits_not"),
    [
        ("a/{x}", ["/a/{x}"], {"x": "1"}, None),
        ("a/{x:int}", ["/a/{x}"], {"x": "-5"}, {"x": "5.0"}),
        ("a/{x:guid?}", ["/a", "/a/{x}"], {}, {"x": "no"}),
        ("{*all}", ["/", "/{all:path}"], {"all": "x/y"}, None),
        ("a/{x:length(2,3)}", ["/a/{x}"], {"x": "ab"}, {"x": "abcd"}),
        ("a/{x:regex(^[a-c]{2}$)}", ["/a/{x}"], {"x": "ab"}, {"x": "ax"}),
        ("a/{x:min(3)}/b", ["/a/{x}/b"], {"x": "3"}, {"x": "2"}),
        ("a/{x:bool}.{y:alpha}", ["/a/{x}.{y}"], {"x": "True", "y": "ab"}, {"x": "true", "y": "a1"}),
        ("a/{x:datetime}", ["/a/{x}"], {"x": "2026-11-30"}, {"x": "yesterday"}),
    ],
)
def test_route_templates(
    route: str, paths: list[str], fits: dict[str, str], fits_not: dict[str, str] | None
) -> None:
    template: Template = template_of(route)
    assert list(template.paths) == paths
    assert template.fits(fits)
    assert fits_not is None or not template.fits(fits_not)


@pytest.mark.parametrize("route", ["a/{x", "{x?}/b"])
def test_a_route_that_cannot_be_read_is_refused(route: str) -> None:
    with pytest.raises(ValueError, match="the route"):
        template_of(route)


OPEN_ROUTES = """
import azure.durable_functions as df
import azure.functions as func
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
@app.route(route="alive", methods=["GET"])
def alive(req: func.HttpRequest): return "yes"
@app.route(route="begin", methods=["POST"])
@app.durable_client_input(client_name="client")
async def begin(req: func.HttpRequest, client): return "no"
@app.route(route="closed", methods=["POST"], auth_level=func.AuthLevel.FUNCTION)
def closed(req: func.HttpRequest): return "no"
"""


async def test_the_start_warns_of_each_open_route_and_of_links_where_it_has_a_client(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(OPEN_ROUTES)
    host = load(tmp_path).app.asgi(store="memory:", admin_key=KEY)
    async with host.lifespan():
        pass
    warned = [one for one in caplog.messages if "is open to everyone" in one]
    assert len(warned) == 2
    assert warned[0] == "the route GET /api/alive is open to everyone"
    assert "POST /api/begin" in warned[1] and "--azure-links status" in warned[1]


async def test_only_the_first_of_several_workers_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "host.json").write_text("{}")
    (tmp_path / "function_app.py").write_text(OPEN_ROUTES)
    with socket.socket() as line:
        async with load(tmp_path).app.running(store="memory:") as client:
            application(client, warns=Tether(2, None, line).is_first)
            assert not caplog.messages
            application(client, warns=Tether(1, None, line).is_first)
            assert len(caplog.messages) == 2


MANY_ROUTES = """
import azure.durable_functions as df
import azure.functions as func
app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
def told(name, req): return f"{name} {dict(req.route_params)}"
@app.route(route="{*rest}", methods=["GET"])
def rest(req: func.HttpRequest): return told("rest", req)
@app.route(route="")
def root(req: func.HttpRequest): return told("root", req)
@app.route(route="items/{name}", methods=["GET"])
def by_name(req: func.HttpRequest): return told("name", req)
@app.route(route="items/{number:int}", methods=["GET"])
def by_number(req: func.HttpRequest): return told("number", req)
@app.route(route="items/{id:guid}", methods=["GET"])
def by_id(req: func.HttpRequest): return told("id", req)
@app.route(route="items/new", methods=["GET"])
def new(req: func.HttpRequest): return told("new", req)
@app.route(route="items", methods=["POST"])
def add(req: func.HttpRequest): return told("add", req)
@app.route(route="items/{page?}", methods=["POST", "PUT"])
def paged(req: func.HttpRequest): return told("paged", req)
@app.route(route="closed/{n:int}", methods=["GET"])
def closed(req: func.HttpRequest): return told("closed", req)
@app.route(route="begin/{o}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def begin(req: func.HttpRequest, client):
    return client.create_check_status_response(req, await client.start_new("o"))
@app.orchestration_trigger(context_name="context")
def o(context): return 1
"""
GUID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"


@pytest.mark.parametrize("prefix", ["api", ""])
async def test_the_most_specific_route_gets_a_request(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "host.json").write_text(f'{{"extensions": {{"http": {{"routePrefix": "{prefix}"}}}}}}')
    (tmp_path / "function_app.py").write_text(MANY_ROUTES)
    host = load(tmp_path).app.asgi(store="memory:", admin_key=KEY)
    expected = {
        ("GET", ""): "root {}",
        ("PUT", ""): "root {}",
        ("GET", "items/new"): "new {}",
        ("GET", "ITEMS/New/"): "new {}",
        ("GET", "items/5"): "number {'number': '5'}",
        ("GET", f"items/{GUID}"): f"id {{'id': '{GUID}'}}",
        ("GET", "items/pen"): "name {'name': 'pen'}",
        ("POST", "items"): "add {}",
        ("PUT", "items"): "paged {}",
        ("POST", "items/2"): "paged {'page': '2'}",
        ("GET", "closed/5"): "closed {'n': '5'}",
        ("GET", "closed/five"): "rest {'rest': 'closed/five'}",
        ("GET", "a/b/c"): "rest {'rest': 'a/b/c'}",
    }
    async with host.lifespan():
        transport = httpx2.ASGITransport(app=host)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            base = f"/{prefix}" if prefix else ""
            got = {key: (await client.request(key[0], f"{base}/{key[1]}")).text for key in expected}
            links = (await client.post(f"{base}/begin/o")).json()
            done = await client.get(links["statusQueryGetUri"] + "&wait=30")
            alive = await client.get("/healthz")
    assert got == expected
    assert done.json()["output"] == 1 and "rest" not in alive.text
