"""Keys, audit and links on the command line, without a server and through one."""

import asyncio
import json
import re
from pathlib import Path

import httpx2
import pytest

import perdure as df
from perdure.cli.target import StoreReader
from perdure.http.access.gate import Access
from perdure.http.host import application
from tests.cli.test_cli import perdure, said, serve
from tests.cli.test_run import PROGRAM, folder, running
from tests.http.conftest import make_app

__all__ = ["folder"]


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    async def fill(client: df.Client) -> None:
        await client.start_new("sleeper", "s-1")

    store = tmp_path / "perdure.db"
    serve(store, fill)
    return store


def test_keys_are_made_listed_and_revoked_without_a_server(filled: Path) -> None:
    made = perdure(
        "keys", "create", "desk", "--scope", "read", "-s", "operate", "--expires-in", "90d", store=filled
    )
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    [listed] = said("keys", "list", store=filled)
    assert secret.startswith(f"pdk_{listed['key_id']}_")
    assert (listed["name"], listed["scopes"]) == ("desk", ["operate", "read"])
    assert secret not in perdure("keys", "list", store=filled).output

    assert perdure("keys", "revoke", listed["key_id"], store=filled).exit_code == 0
    assert said("keys", "list", store=filled)[0]["revoked_time"]
    assert perdure("keys", "revoke", "nobodys", store=filled).exit_code != 0


@pytest.mark.parametrize(
    "arguments",
    [("x", "--scope", "root"), ("x",), ("x", "-s", "read", "--expires-in", "soon"), ("", "-s", "read")],
)
def test_a_key_that_cannot_be_is_refused(filled: Path, arguments: tuple[str, ...]) -> None:
    assert perdure("keys", "create", *arguments, store=filled).exit_code != 0
    assert said("keys", "list", store=filled) == []


def test_what_a_command_does_to_a_file_is_written_down(filled: Path) -> None:
    perdure("suspend", "s-1", "--reason", "lunch", store=filled)
    perdure("keys", "create", "desk", "-s", "read", store=filled)

    rows = said("audit", store=filled)["records"]

    assert [(row["operation"], row["instance_id"], row["address"]) for row in rows] == [
        ("create_key", "", "cli"),
        ("suspend", "s-1", "cli"),
    ]
    assert rows[0]["who"].endswith("(on this machine)")


def test_a_link_needs_an_address_when_nobody_serves(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERDURE_PUBLIC_URL", raising=False)

    refused = perdure("link", "s-1", "go", store=filled)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--public-url" in refused.stderr
    assert "PERDURE_PUBLIC_URL" in refused.stderr
    assert "--url" in refused.stderr
    assert "PDR-017" in refused.stderr
    assert perdure("link", "s-1", "go", "--public-url", "example.org", store=filled).exit_code == 2


async def test_a_link_made_without_a_server_opens_the_one_that_comes(filled: Path) -> None:
    address = "http://testserver"
    made = await asyncio.to_thread(perdure, "link", "s-1", "go", "--public-url", f"{address}/", store=filled)
    assert made.exit_code == 0, made.output
    link = made.stdout.strip()
    assert link.startswith(f"{address}/decide/s-1/go?sig=")
    [row] = (await asyncio.to_thread(said, "audit", "--operation", "create_link", store=filled))["records"]
    assert (row["instance_id"], row["detail"], row["address"]) == ("s-1", "go", "cli")

    async with make_app().running(store=str(filled), hub="hosts") as client:
        api = application(client, access=Access(client), allowed_hosts=["testserver"])
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(api)) as web:
            assert (await web.get(link)).status_code == 200
            assert (await web.get(f"{link}x")).status_code == 403


def test_what_nobody_foresaw_is_one_line(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(StoreReader, "read", broken)
    monkeypatch.delenv("PERDURE_DEBUG", raising=False)

    short = perdure("keys", "list", store=filled)
    assert short.exit_code == 1
    [line] = short.stderr.splitlines()
    assert "ZeroDivisionError: oh" in line
    assert "PDR-002" in line

    monkeypatch.setenv("PERDURE_DEBUG", "1")
    assert "Traceback" in perdure("keys", "list", store=filled).stderr


def test_a_server_beyond_this_machine_starts_when_there_is_a_key(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    database = folder / "perdure.db"
    with running(folder) as (_, address):
        key = perdure("keys", "create", "desk", "-s", "operate", store=database).stdout.strip()
        answer = httpx2.get(f"{address}/", headers={"x-functions-key": key}, trust_env=False, timeout=60)
        assert answer.status_code == 200
        httpx2.post(f"{address}/api/begin", trust_env=False, timeout=60)
        link = perdure("link", "w-1", "go", store=database).stdout.strip()
        assert link.startswith(address)
        assert httpx2.post(link, json=7, trust_env=False, timeout=60).status_code == 202
        told = said("audit", "--operation", "decide", store=database)["records"]
        assert [row["outcome"] for row in told] == ["ok"]

    with running(folder, "--host", "0.0.0.0") as (_, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        refused = httpx2.get(f"{local}/runtime/webhooks/durabletask/instances", trust_env=False, timeout=60)
        opened = httpx2.get(
            f"{local}/runtime/webhooks/durabletask/instances",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=60,
        )
        listed = perdure("list", "--url", local, "--key", key)

    assert (refused.status_code, opened.status_code) == (401, 200)
    assert "w-1" in listed.stdout
    assert json.loads(refused.text)["code"] == "unauthenticated"


async def test_the_remote_client_has_the_same_verbs(tmp_path: Path) -> None:
    from perdure.http.host import application
    from perdure.http.remote.client import RemoteClient

    async with make_app().running(store="memory:") as local:
        transport = httpx2.ASGITransport(app=application(local))
        async with RemoteClient("http://localhost:7071", transport=transport) as remote:
            made = await remote.create_key("desk", ["read"], expires_in=60)
            assert made.key.key_id in [key.key_id for key in await remote.keys()]
            assert (await remote.revoke_key(made.key.key_id)).revoked_time is not None
            await remote.start_new("open_door", "o-1")
            link = await remote.create_event_link("o-1", "go", expires_in=60)
            assert "/decide/o-1/go?sig=" in link
            await remote.rotate_links()
            page = await remote.audit(operation="rotate_links", top=1)
            assert [row.operation for row in page.records] == ["rotate_links"]
            assert page.continuation
            made_up = await remote.audit(instance_id="o-1")
            assert {row.operation for row in made_up.records} == {"start", "create_link"}
            with pytest.raises(df.errors.KeyNotFound):
                await remote.revoke_key("nobodys")


async def test_errors_come_back_as_themselves(tmp_path: Path) -> None:
    from perdure.errors import AccessRefused, Unauthenticated
    from perdure.http.remote.client import RemoteClient

    host = make_app().asgi(store="memory:", admin_key="the-administrators-own-long-key")
    async with host.lifespan():
        async with RemoteClient("http://localhost", transport=httpx2.ASGITransport(app=host)) as nobody:
            with pytest.raises(Unauthenticated, match="needs an access key"):
                await nobody.query()
        admin = RemoteClient(
            "http://localhost",
            key="the-administrators-own-long-key",
            transport=httpx2.ASGITransport(app=host),
        )
        async with admin:
            key = await admin.create_key("desk", ["read"])
        reader = RemoteClient("http://localhost", key=key.secret, transport=httpx2.ASGITransport(app=host))
        async with reader:
            assert (await reader.query()).instances == []
            with pytest.raises(AccessRefused, match="operate"):
                await reader.start_new("echo", "e-1")


def test_the_first_key_comes_before_the_hub(tmp_path: Path) -> None:
    store = tmp_path / "new.db"

    unnamed = perdure("keys", "create", "ops", "-s", "admin", store=store)
    assert (unnamed.exit_code, unnamed.stdout) == (4, "")
    assert "--hub NAME" in unnamed.stderr
    assert not store.exists()

    made = perdure("keys", "create", "ops", "-s", "admin", "--hub", "approval", store=store)
    assert made.exit_code == 0, made.output
    assert "Created the hub 'approval'" in made.stderr
    assert made.stdout.startswith("pdk_")

    again = perdure("keys", "create", "desk", "-s", "read", store=store)
    assert again.exit_code == 0, again.output
    assert "was made" not in again.stderr
    assert {row["name"] for row in said("keys", "list", store=store)} == {"ops", "desk"}


def test_the_way_to_the_first_key_is_said_and_leads_there(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    with pytest.raises(AssertionError) as refused, running(folder, "--host", "0.0.0.0"):
        pass

    told = " ".join(str(refused.value).replace("│", " ").split())
    [hub] = re.findall(r"`perdure keys create NAME --scope admin --hub (\S+)`", told)
    made = perdure("keys", "create", "ops", "--scope", "admin", "--hub", hub, store=folder / "perdure.db")
    assert made.exit_code == 0, made.output
    with running(folder, "--host", "0.0.0.0") as (_, address):
        assert address
