"""Tables that Citus distributes are refused. The catalogue is made up: Citus itself is not installed here.

`/concepts/other-databases` says what was run on the real one, by hand.
"""

import pytest

pytest.importorskip("psycopg")

import psycopg

from perdure.errors import StoreUnusable
from perdure.store import migrate_store
from perdure.store.postgres.store import PostgresStore

CATALOGUE = 'create table pg_catalog.pg_dist_partition (logicalrelid regclass, partmethod "char")'


@pytest.fixture
def citus(newest_url: str) -> psycopg.Connection:
    """A session that may change the catalogue, in a database that looks as if it had Citus."""
    session = psycopg.connect(newest_url, autocommit=True)
    session.execute("set allow_system_table_mods = on")
    session.execute(CATALOGUE)
    return session


def test_local_tables_beside_citus_are_served(citus: psycopg.Connection, newest_url: str) -> None:
    """Other tables of the database may be distributed."""
    citus.execute("create table of_others (id bigint)")
    citus.execute("insert into pg_catalog.pg_dist_partition values ('of_others', 'h')")
    store = PostgresStore(newest_url, "claims")
    store.open()
    store.close()
    citus.close()


def test_distributed_tables_are_refused_at_open(citus: psycopg.Connection, newest_url: str) -> None:
    migrate_store(newest_url)
    citus.execute("insert into pg_catalog.pg_dist_partition values ('perdure.instances', 'n')")
    citus.close()
    store = PostgresStore(newest_url, "claims")
    for attempt in (store.open, store.reopen, lambda: migrate_store(newest_url)):
        with pytest.raises(
            StoreUnusable, match=r"Citus distributes .*'perdure'.*\(instances\).*undistribute"
        ):
            attempt()
    store.close()


def test_a_schema_that_is_distributed_from_its_beginning_is_left_empty(
    citus: psycopg.Connection, newest_url: str
) -> None:
    """As with citus.enable_schema_based_sharding: every table of the schema is taken over as it is made."""
    citus.execute("create schema perdure")
    citus.execute(
        "create function take_over() returns event_trigger language plpgsql as $$ begin "
        "insert into pg_catalog.pg_dist_partition select objid::regclass, 'n' "
        "from pg_event_trigger_ddl_commands() where object_type = 'table'; end $$"
    )
    citus.execute("create event trigger taking on ddl_command_end execute function take_over()")
    with pytest.raises(StoreUnusable, match="enable_schema_based_sharding has to be off"):
        PostgresStore(newest_url, "claims").open()
    found = citus.execute("select tablename from pg_tables where schemaname = 'perdure'").fetchall()
    assert found == [("versions",)]
    citus.execute("drop event trigger taking")
    citus.close()
