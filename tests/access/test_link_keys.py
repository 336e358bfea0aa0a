"""The keys that sign links: one is made, however many need it first, and they are shown apart from people's."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root
from perdure.engine.client.access import FIRST
from perdure.http.access.gate import Access
from perdure.http.api.instance_urls import MANAGEMENT as M
from perdure.http.host import application
from tests.access.conftest import ADMIN, Door, as_key
from tests.cluster.shop import shop
from tests.cluster.test_workers import TWO
from tests.cluster.test_workers import application as shop_app
from tests.http.conftest import LOCAL, make_app


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    match request.param:
        case "memory":
            yield "memory:"
        case "sqlite":
            yield f"sqlite:///{tmp_path}/perdure.db"
        case _:
            yield request.getfixturevalue("newest_url")


async def _starts(servers: list[httpx2.AsyncClient], requests: int) -> list[dict[str, str]]:
    async def start(n: int) -> dict[str, str]:
        server = servers[n % len(servers)]
        answer = await server.post(f"{M}/orchestrators/sleeper/s-{n}", headers=as_key(ADMIN))
        assert answer.status_code == 202, answer.text
        links: dict[str, str] = answer.json()
        return links

    return list(await asyncio.gather(*(start(n) for n in range(requests))))


async def test_sixteen_first_requests_at_once_make_one_key(url: str) -> None:
    """In one server, and where the database allows it in two at once; every link opens at each of them."""
    async with AsyncExitStack() as stack:
        servers: list[httpx2.AsyncClient] = []
        clients: list[df.Client] = []
        for _ in range(2 if url.startswith("postgres") else 1):
            client = await stack.enter_async_context(make_app().running(store=url))
            transport = httpx2.ASGITransport(application(client, access=Access(client, admin_key=ADMIN)))
            http = httpx2.AsyncClient(transport=transport, base_url=LOCAL)
            servers.append(await stack.enter_async_context(http))
            clients.append(client)
        links = await _starts(servers, 16)

        assert [key.key_id for key in await clients[0].link_keys()] == [FIRST]
        for one in links:
            for server in servers:
                assert (await server.get(one["statusQueryGetUri"])).status_code == 202


async def test_gates_of_several_workers_make_one_key() -> None:
    async with shop(shop_app(), *TWO) as opened:
        gates = [Access(worker.client) for worker in opened.workers for _ in range(5)]
        await asyncio.gather(*(gate.signer.prepare() for gate in gates))

        assert [key.key_id for key in await opened[0].client.link_keys()] == [FIRST]
        assert len({gate.keys.newest_signing() for gate in gates}) == 1


async def test_two_who_make_the_first_key_in_one_batch_get_the_first_ones_secret(url: str) -> None:
    async with make_app().running(store=url) as client:
        rows = [client._signing_key(FIRST) for _ in range(4)]
        await asyncio.gather(*(client._record([row], "rotate_links", "") for row in rows))
        [kept] = client.gateway.store.keys()
        assert kept.secret in {row.secret for row in rows}
        before = kept.secret
        await client._record([client._signing_key(FIRST)], "rotate_links", "")
        assert client.gateway.store.keys()[0].secret == before


async def test_a_first_key_that_was_called_back_stays_so(url: str) -> None:
    async with make_app().running(store=url) as client:
        await client.first_link_key()
        await client.first_link_key()
        [first] = await client.link_keys()
        await client.revoke_key(first.key_id)
        await client.first_link_key()
        states = {key.key_id: key.revoked_time is None for key in await client.link_keys()}
        assert states.pop(FIRST) is False
        assert list(states.values()) == [True]


async def test_a_hub_whose_signing_keys_are_all_called_back_gets_another_first(tmp_path: Path) -> None:
    """Two administrators who revoke the last two at once leave none; the next request makes one."""
    async with make_app().running(store=f"sqlite:///{tmp_path}/perdure.db") as client:
        await client.first_link_key()
        row = client.gateway.store.keys()[0]
        await client._record([row._replace(revoked_at=1)], "revoke_key", "")
        gate = Access(client)
        await gate.signer.prepare()
        signing = [key.key_id for key in await client.link_keys() if key.revoked_time is None]
        assert len(signing) == 1 and signing != [FIRST]


# --------------------------------------------------------------------------------------- shown apart


def test_the_api_shows_them_apart(door: Door) -> None:
    door.start()
    door.key("read", name="Ada")
    people = door.http.get(f"{M}/keys", headers=as_key(ADMIN)).json()
    signing = door.http.get(f"{M}/keys/links", headers=as_key(ADMIN)).json()
    assert [(key["name"], key["kind"]) for key in people] == [("Ada", "access")]
    assert [(key["key_id"], key["kind"]) for key in signing] == [(FIRST, "link")]
    assert door.http.get(f"{M}/keys/links", headers=as_key(door.key("operate"))).status_code == 403


def test_the_page_shows_them_apart(door: Door) -> None:
    door.start()
    door.key("read", name="Ada")
    door.http.get(f"/?token={ADMIN}")
    page = door.http.get("/keys").text
    people, _, signing = page.partition("Keys that sign links")
    assert "Ada" in people and FIRST not in people
    assert FIRST in signing and "Ada" not in signing


def test_the_command_shows_them_apart(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/perdure.db"

    async def made() -> None:
        async with make_app().running(store=store, hub="hosts") as client:
            await client.first_link_key()
            await client.create_key("Ada", ["read"])

    def listed(*more: str) -> str:
        done = CliRunner().invoke(root, ["keys", "list", "--store", store, "--hub", "hosts", *more])
        assert done.exit_code == 0, done.output
        return done.stdout

    asyncio.run(made())
    assert "Ada" in listed() and FIRST not in listed()
    assert FIRST in listed("--links") and "Ada" not in listed("--links")
    assert [key["name"] for key in json.loads(listed("--json"))] == ["Ada"]
    assert [key["key_id"] for key in json.loads(listed("--json", "--links"))] == [FIRST]
