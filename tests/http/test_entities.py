"""Entities from outside: over HTTP, through the remote client, on the command line, and on the pages."""

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.errors import FunctionNotFound
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.host import application
from perdure.http.remote.client import RemoteClient

LOCAL = "http://localhost:7071"
E = f"{MANAGEMENT}/entities"


def make_app() -> df.App:
    app = df.App("hosts")

    @app.entity
    class Counter:
        value: int = 0

        def add(self, amount: int) -> None:
            self.value += amount

    @app.orchestrator
    async def holds(context: df.OrchestrationContext) -> None:
        async with context.lock(df.EntityId("counter", "a")):
            await context.wait_for_external_event("Go")

    return app


@pytest.fixture
async def transport() -> AsyncIterator[httpx2.ASGITransport]:
    app = make_app()
    async with app.running(store="memory:") as client:
        yield httpx2.ASGITransport(app=application(client))


@pytest.fixture
async def http(transport: httpx2.ASGITransport) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(transport=transport, base_url=LOCAL) as client:
        yield client


@pytest.fixture
async def remote(transport: httpx2.ASGITransport) -> AsyncIterator[RemoteClient]:
    async with RemoteClient(LOCAL, transport=transport) as client:
        yield client


async def test_azures_routes(http: httpx2.AsyncClient) -> None:
    missing = await http.get(f"{E}/Counter/a")
    added = await http.post(f"{E}/Counter/a?op=add", json=5)
    again = await http.post(f"{E}/counter/a?op=add", json=2, headers={"Idempotency-Key": "k"})
    repeated = await http.post(f"{E}/counter/a?op=add", json=2, headers={"Idempotency-Key": "k"})
    state = await http.get(f"{E}/Counter/a")
    await http.post(f"{E}/Counter/$?op=add", json=1)
    listed = await http.get(f"{E}?fetchState=true")
    named = await http.get(f"{E}/Counter?keyPrefix=a&top=1")
    deleted = await http.delete(f"{E}/Counter/a")
    gone = await http.get(f"{E}/Counter/a")

    assert missing.status_code == gone.status_code == 404
    assert {r.status_code for r in (added, again, repeated, deleted)} == {202}
    assert (state.status_code, state.json()) == (200, {"value": 7})
    assert [(e["entityId"], e["state"]) for e in listed.json()] == [
        ({"name": "counter", "key": ""}, {"value": 1}),
        ({"name": "counter", "key": "a"}, {"value": 7}),
    ]
    assert [e["entityId"]["key"] for e in named.json()] == ["a"]
    assert "state" not in named.json()[0]
    assert named.headers["x-ms-continuation-token"]


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "Counter/a"), ("POST", "Counter/a?op=%0A"), ("GET", "Coun@ter/a")]
)
async def test_what_cannot_be_meant_is_refused(http: httpx2.AsyncClient, method: str, path: str) -> None:
    assert (await http.request(method, f"{E}/{path}")).status_code == 400


async def test_the_remote_client_says_what_the_local_one_does(remote: RemoteClient) -> None:
    entity = df.EntityId("Counter", "a")
    assert not (await remote.read_entity_state(entity)).exists
    await remote.signal_entity(entity, "add", 5, operation_id="once")
    await remote.signal_entity(entity, "add", 5, operation_id="once")
    await remote.signal_entity(entity, "add", 100, at=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(FunctionNotFound, match="no entity named 'nobody' is registered"):
        await remote.signal_entity("@nobody@x", "do")
    await remote.start_new("holds", "h")
    state = await remote.read_entity_state(entity)
    page = await remote.query_entities(fetch_state=True)
    named = await remote.query_entities(name="counter", last_operation_from=datetime(2020, 1, 1, tzinfo=UTC))
    await remote.raise_event("h", "Go")
    await remote.wait_for_completion("h", 10)

    assert (state.exists, state.state, state.locked_by) == (True, {"value": 5}, "h")
    assert [(str(e.entity_id), e.state, e.exists) for e in page.entities] == [
        ("@counter@a", {"value": 5}, True),
    ]
    assert [str(e.entity_id) for e in named.entities] == ["@counter@a"]


async def test_pages_do_not_break_on_entities(http: httpx2.AsyncClient) -> None:
    await http.post(f"{E}/Counter/a?op=add", json=5)
    listed = await http.get("/instances", headers={"Accept": "text/html"})
    one = await http.get("/instances/@counter@a", headers={"Accept": "text/html"})

    assert listed.status_code == 200
    assert "@counter" not in listed.text
    assert one.status_code in (200, 404)


def perdure(*arguments: str, store: Path) -> tuple[int, str]:
    result = CliRunner().invoke(
        root, [*arguments, "--store", str(store)], env={"PERDURE_STORE": "", "PERDURE_HUB": ""}
    )
    return result.exit_code, result.stdout


def test_the_commands(tmp_path: Path) -> None:
    store = tmp_path / "hub.db"

    async def serve() -> None:
        async with make_app().running(store=f"sqlite:///{store}") as client:
            await client.signal_entity("@counter@a", "add", 5)

    asyncio.run(serve())
    assert perdure("entities", "signal", "counter@a", "add", "-i", "2", store=store)[0] == 0
    before = perdure("entities", "show", "@counter@a", store=store)
    asyncio.run(serve())
    after = perdure("entities", "show", "@counter@a", store=store)
    listed = perdure("entities", "list", store=store)
    as_json = perdure("entities", "list", "counter", "--json", store=store)

    assert json.loads(before[1]) == {"value": 5}
    assert json.loads(after[1]) == {"value": 12}
    assert listed[1].split("\t")[0] == "@counter@a"
    assert json.loads(as_json[1])[0]["state"] == {"value": 12}
    assert perdure("entities", "show", "@counter@other", store=store)[0] == 3
    assert perdure("entities", "show", "counter", store=store)[0] == 1


async def test_entities_have_pages_of_their_own(http: httpx2.AsyncClient) -> None:
    nasty = "<b>\"&{{7*7}}'"
    await http.post(f"{E}/Counter/{quote(nasty, safe='')}?op=add", json=5)
    await http.post(f"{E}/Counter/$?op=add", json=1)

    listed = (await http.get("/entities?name=Counter")).text
    assert "counter@&lt;b&gt;" in listed and nasty not in listed
    address = re.search(r'href="(/entities/counter/%3Cb[^"]*)"', listed)
    assert address is not None
    page = await http.get(html.unescape(address[1]))
    assert page.status_code == 200
    assert "counter@&lt;b&gt;" in page.text and nasty not in page.text
    assert (await http.get("/entities/counter/$")).status_code == 200
    assert (await http.get("/entities/counter/none")).status_code == 404
    assert "No entity has this name" in (await http.get("/entities?name=counter&key=zzz")).text
    assert (await http.get("/entities?key=zzz")).status_code == 200


async def test_the_page_of_functions_shows_what_is_registered(http: httpx2.AsyncClient) -> None:
    page = (await http.get("/functions")).text

    assert "<b>counter</b>" in page
    assert "Counter</code>" in page
    assert "This hub has one process" in (await http.get("/workers")).text
