"""Encrypted payloads from a terminal and over HTTP: only a caller with the key sees them."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

import perdure as df
from perdure.cli.main import root

CANARY = "canary-51d0"
KEY = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
NEXT = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="


def perdure(*arguments: str, store: Path) -> Any:
    return CliRunner().invoke(root, [*arguments, "--store", str(store)])


def app_of() -> df.App:
    app = df.App("claims")

    @app.orchestrator
    async def approval(context: df.OrchestrationContext, name: str) -> Any:
        context.set_custom_status(f"{name} is asked")
        return await context.wait_for_external_event("Decision")

    @app.orchestrator
    def greeting(context: df.OrchestrationContext):  # type: ignore[no-untyped-def]
        yield context.create_timer(0.001)
        return f"hello {context.get_input()}"

    return app


@pytest.fixture
async def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"k1:{KEY}")
    file = tmp_path / "claims.db"
    async with app_of().running(store=str(file)) as client:
        await client.start_new("approval", "asked", CANARY)
        await client.start_new("greeting", "greeted", CANARY)
        await client.wait_for_completion("greeted", 10)
    return file


async def test_commands_with_the_key_show_what_commands_without_it_do_not(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    def look() -> None:
        shown = perdure("status", "greeted", "--json", store=filled)
        assert json.loads(shown.stdout)["output"] == f"hello {CANARY}"
        assert CANARY in perdure("export", "asked", store=filled).stdout
        assert "no problems" in perdure("verify", store=filled).stdout

        monkeypatch.delenv("PERDURE_ENCRYPTION_KEYS")
        listed = perdure("list", store=filled)
        assert listed.exit_code == 0 and "greeted" in listed.stdout
        status = perdure("status", "greeted", "--json", store=filled)
        assert json.loads(status.stdout)["output"] == "<encrypted>"
        assert perdure("status", "asked", store=filled).exit_code == 0
        verified = perdure("verify", store=filled)
        assert (
            verified.exit_code == 0
            and "not checked because their encryption key is missing" in verified.stdout
        )
        for refused, number in (
            (perdure("history", "asked", store=filled), "PDR-048"),
            (perdure("export", "asked", store=filled), "PDR-048"),
            (perdure("raise", "asked", "Decision", "-i", "1", store=filled), "PDR-047"),
            (perdure("purge", "greeted", "--yes", store=filled), "PDR-047"),
            (CliRunner().invoke(root, ["copy", str(filled), f"{filled}y"]), "PDR-047"),
        ):
            assert refused.exit_code != 0 and number in refused.stderr
        for result in (listed, status, verified):
            assert CANARY not in result.output

        monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"k1:{NEXT}")
        wrong = perdure("list", store=filled)
        assert wrong.exit_code == 4 and "PDR-047" in wrong.stderr
        monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"k1:{NEXT}x")
        nonsense = perdure("list", store=filled)
        assert nonsense.exit_code != 0
        assert "PERDURE_ENCRYPTION_KEYS is ***" in nonsense.stderr and NEXT not in nonsense.output

    await asyncio.to_thread(look)


async def test_keys_are_rotated_from_a_terminal(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    def rotate() -> None:
        made = CliRunner().invoke(root, ["encryption-key"]).stdout.strip()
        assert made.startswith("k20") and df.Encryption.read(made).current == made.partition(":")[0]
        assert made != CliRunner().invoke(root, ["encryption-key"]).stdout.strip()

        monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"k2:{NEXT},k1:{KEY}")
        done = perdure("rekey", store=filled)
        assert done.exit_code == 0 and "rows encrypted with k2, 0 of them for the first time." in done.stdout
        monkeypatch.setenv("PERDURE_ENCRYPTION_KEYS", f"k2:{NEXT}")
        again = perdure("rekey", "--vacuum", "--json", store=filled)
        told = json.loads(again.stdout)
        assert (told["key"], told["hubs"], told["unreadable"]) == ("k2", {"claims": {}}, [])
        assert "no problems" in perdure("verify", store=filled).stdout
        assert f"hello {CANARY}" in perdure("status", "greeted", "--json", store=filled).stdout

    await asyncio.to_thread(rotate)


async def test_over_http_the_server_decrypts_for_callers_who_may_read_and_for_nobody_else(
    filled: Path,
) -> None:
    host = app_of().asgi(store=str(filled))
    async with host.lifespan(), app_client(host) as client:
        instance = "/runtime/webhooks/durabletask/instances/greeted?showHistory=true&showInput=true"
        keys = {}
        for scope in ("read", "function"):
            made = await client.post(
                "/runtime/webhooks/durabletask/keys",
                json={"name": scope, "scopes": [scope]},
                headers={"x-functions-key": ADMIN},
            )
            assert made.status_code < 300, made.text
            keys[scope] = made.json()["secret"]
        seen = await client.get(instance, headers={"x-functions-key": keys["read"]})
        assert seen.json()["output"] == f"hello {CANARY}"
        for headers in ({}, {"x-functions-key": keys["function"]}):
            refused = await client.get(instance, headers=headers)
            assert refused.status_code in (401, 403) and CANARY not in refused.text
        log = await client.get("/runtime/webhooks/durabletask/audit", headers={"x-functions-key": ADMIN})
        assert log.status_code == 200 and CANARY not in log.text


ADMIN = "an-admin-key-of-enough-length"


@pytest.fixture(autouse=True)
def admin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_ADMIN_KEY", ADMIN)


def app_client(host: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(host), base_url="http://localhost")
