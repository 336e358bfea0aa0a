"""The pooler in the tests pools: transactions of several clients on one connection, or sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

import perdure as df
from tests.postgres.pooler import Pooler, Pooling
from tests.postgres.servers import Server


def test_in_transaction_mode_clients_share_a_connection(postgres: Server, postgres_url: str) -> None:
    with Pooler(postgres, "transaction", size=1) as pooler:
        first = psycopg.connect(pooler.url(postgres_url), autocommit=True)
        second = psycopg.connect(pooler.url(postgres_url), autocommit=True)
        assert _backend(first) == _backend(second)
        first.execute("set application_name = 'first'")
        assert second.execute("show application_name").fetchone() == ("first",), "this mode leaks settings"
        first.close()
        second.close()


def test_in_session_mode_a_connection_is_a_clients_until_it_leaves(
    postgres: Server, postgres_url: str
) -> None:
    with Pooler(postgres, "session", size=2) as pooler:
        first = psycopg.connect(pooler.url(postgres_url), autocommit=True)
        second = psycopg.connect(pooler.url(postgres_url), autocommit=True)
        assert _backend(first) != _backend(second)
        first.execute("set work_mem = '1MB'")
        assert second.execute("show work_mem").fetchone() == ("4MB",)
        first.close()
        second.close()


def test_it_leaves_nothing_behind(postgres: Server, postgres_url: str) -> None:
    with Pooler(postgres) as pooler:
        pid = int((pooler.directory / "pid").read_text())
        with psycopg.connect(pooler.url(postgres_url)) as connection:
            connection.execute("select 1")
    assert not pooler.directory.exists()
    assert not Path(f"/proc/{pid}/exe").exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(pooler.url(postgres_url))


def _backend(connection: psycopg.Connection[Any]) -> int:
    found = connection.execute("select pg_backend_pid()").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_hub_behind_a_pooler_is_refused_and_told_why(
    postgres: Server, postgres_url: str, mode: Pooling
) -> None:
    with Pooler(postgres, mode) as pooler, pytest.raises(df.StoreUnusable, match="pooler=session"):
        async with df.App("pooled").running(store=pooler.url(postgres_url)):
            raise AssertionError("it was served")


async def test_a_hub_behind_a_pooler_of_sessions_is_served_when_that_is_said(
    postgres: Server, postgres_url: str
) -> None:
    app = df.App("pooled")

    @app.activity
    async def echo(text: str) -> str:
        return text

    @app.orchestrator
    async def echoing(context: df.OrchestrationContext, text: str) -> str:
        await context.wait_for_external_event("Go")
        return await context.call_activity(echo, text)

    with Pooler(postgres, "session") as pooler:
        async with app.running(store=f"{pooler.url(postgres_url)}?pooler=session") as client:
            await client.start_new(echoing, "one", "said")
            await client.raise_event("one", "Go")
            assert (await client.wait_for_completion("one", 20)).output == "said"
