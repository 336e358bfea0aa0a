"""Keys, audit and links on the command line, without a server and through one."""

import json
from pathlib import Path

import httpx2
import pytest

import perdure as df
from tests.hosts.conftest import make_app
from tests.hosts.test_cli import perdure, said, serve
from tests.hosts.test_run import PROGRAM, folder, running

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


def test_a_link_needs_a_server(filled: Path) -> None:
    assert perdure("link", "s-1", "go", store=filled).exit_code != 0


def test_a_server_beyond_this_machine_starts_when_there_is_a_key(folder: Path) -> None:
    (folder / "app.py").write_text(PROGRAM.format(name="served"))
    database = folder / "perdure.db"
    with running(folder) as (_, address):
        key = perdure("keys", "create", "desk", "-s", "operate", store=database).stdout.strip()
        answer = httpx2.get(f"{address}/", headers={"x-functions-key": key}, trust_env=False)
        assert answer.status_code == 200
        httpx2.post(f"{address}/api/begin", trust_env=False)
        link = perdure("link", "w-1", "go", store=database).stdout.strip()
        assert link.startswith(address)
        assert httpx2.post(link, json=7, trust_env=False).status_code == 202
        told = said("audit", "--operation", "decide", store=database)["records"]
        assert [row["outcome"] for row in told] == ["ok"]

    with running(folder, "--host", "0.0.0.0") as (_, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        refused = httpx2.get(f"{local}/runtime/webhooks/durabletask/instances", trust_env=False)
        opened = httpx2.get(
            f"{local}/runtime/webhooks/durabletask/instances",
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
        )
        listed = perdure("list", "--url", local, "--key", key)

    assert (refused.status_code, opened.status_code) == (401, 200)
    assert "w-1" in listed.stdout
    assert json.loads(refused.text)["code"] == "unauthenticated"


async def test_the_remote_client_has_the_same_verbs(tmp_path: Path) -> None:
    from perdure.http.host import application
    from perdure.http.remote import RemoteClient

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
    from perdure.http.remote import RemoteClient

    host = make_app().asgi(store="memory:", admin_key="the-administrators-own-long-key")
    async with host.lifespan():
        async with RemoteClient("http://localhost", transport=httpx2.ASGITransport(app=host)) as nobody:
            with pytest.raises(Unauthenticated, match="show a key"):
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
