"""Databases that speak PostgreSQL's protocol are refused by what they say when a session begins.

None of them can be installed here: the answers are made up over a real session.
"""

from contextlib import closing

import pytest

pytest.importorskip("psycopg")

import psycopg

from perdure.errors import StoreUnusable
from perdure.store import hubs_of, migrate_store
from perdure.store.postgres.store import PostgresStore

SAID = {
    "CockroachDB": {"crdb_version": "CockroachDB CCL v25.4.1"},
    "YugabyteDB": {"server_version": "15.12-YB-2025.2.0.0-b0"},
}


@pytest.fixture(params=[*SAID, "Aurora DSQL"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    real = psycopg.ConnectionInfo.parameter_status
    said = SAID.get(request.param, {})

    def parameter_status(self: psycopg.ConnectionInfo, name: str) -> str | None:
        return said.get(name) or real(self, name)

    monkeypatch.setattr(psycopg.ConnectionInfo, "parameter_status", parameter_status)
    if not said:
        host = property(lambda self: "abcd1234.dsql.eu-west-1.on.aws")
        monkeypatch.setattr(psycopg.ConnectionInfo, "host", host)
    return str(request.param)


def test_they_are_refused_before_anything_is_created(engine: str, postgres_url: str) -> None:
    with closing(PostgresStore(postgres_url, "claims")) as store:
        for attempt in (
            store.open,
            store.counts,
            lambda: migrate_store(postgres_url),
            lambda: hubs_of(postgres_url),
        ):
            with pytest.raises(
                StoreUnusable, match=f"is {engine}, not PostgreSQL: .* Use PostgreSQL 14 or newer"
            ):
                attempt()


def test_postgresql_is_served(postgres_url: str) -> None:
    with closing(PostgresStore(postgres_url, "claims")) as store:
        store.open()
