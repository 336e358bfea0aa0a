"""The pooler in the tests pools: transactions of several clients on one connection, or sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres.pooler import Pooler
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
