"""The schema: created and upgraded by a role with permission, and checked by all others.

Versions only increase, each in its own transaction, under a lock against concurrent migrations. A worker whose
role must not create tables serves a current schema; otherwise it reports the command to run.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg.sql import SQL

from perdure.errors import StoreTooNew, StoreUnusable
from perdure.store.postgres.address import address_of
from perdure.store.postgres.binary import text
from perdure.store.postgres.connection import MIGRATING, UPKEEP, connect, open_session
from perdure.store.postgres.errors import translated, translating
from perdure.store.postgres.statements import quoted, read_sql

if TYPE_CHECKING:
    from perdure.store.postgres.address import Address
    from perdure.store.postgres.pipeline import Wire

VERSION: Final = 5
_VERSIONS: Final = (
    "create table if not exists {schema}.versions "
    "(version bigint primary key, at timestamptz not null default now())"
)
_FORBIDDEN: Final = "42501"
_CITUS: Final = "pg_catalog.pg_dist_partition"  # the table in which Citus lists distributed tables
_DISTRIBUTED: Final = (
    f"select c.relname::text from {_CITUS} d join pg_catalog.pg_class c on c.oid = d.logicalrelid "
    "join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = "
)
_RIGHTS: Final = """\
-- A role with exactly the rights that a worker needs once the schema is there. Give it a password, or a certificate.
--
-- create role perdure_worker login;
-- grant usage on schema {schema} to perdure_worker;
-- grant select on {schema}.versions to perdure_worker;
-- grant select, insert, update, delete on
--     {tables}
--     to perdure_worker;
-- grant usage on sequence {schema}.incarnations to perdure_worker;
-- grant execute on function {schema}.fail to perdure_worker;
"""
TABLES: Final = (
    *(
        "hubs",
        "instances",
        "history",
        "payloads",
        "state",
        "inbox",
        "waits",
        "seen",
        "dropped",
        "keys",
        "audit",
        "ring",
    ),
    *("encryption", "workers", "partitions", "activities"),
)


def lock_key(*names: str) -> int:
    """The number of an advisory lock for these names."""
    return int.from_bytes(sha256("\0".join(("perdure", *names)).encode()).digest()[:8], "big", signed=True)


def migration_sql(schema: str) -> str:
    """The SQL that creates the current schema, for a DBA to read and run; a low-privilege role is in comments."""
    name = quoted(schema)
    parts = [
        f"begin;\n\ncreate schema if not exists {name};\n\n{_VERSIONS.replace('{schema}', name)};\n",
        *(
            f"{_script(version, name)}\ninsert into {name}.versions (version) values ({version});\n"
            for version in range(1, VERSION + 1)
        ),
        "commit;\n",
        _RIGHTS.format(schema=name, tables=",\n--     ".join(f"{name}.{table}" for table in TABLES)),
    ]
    return "\n".join(parts)


def migrate(url: str) -> tuple[int, int]:
    """Upgrade the schema of this address. Returns the versions before and after. Raises as `bring_up_to_date`."""
    address = address_of(url)
    wire = connect(address, UPKEEP)
    try:
        before = version_of(address, wire)
        bring_up_to_date(address, wire)
    finally:
        wire.close()
    return before, VERSION


def bring_up_to_date(address: Address, wire: Wire) -> None:
    """Upgrade the schema if necessary. Raises StoreTooNew, and StoreUnusable if this role must not change it.

    Also raises StoreUnusable for tables distributed by Citus.
    """
    found = version_of(address, wire)
    if found < VERSION:
        _migrate(address, found)
    with translating(address.shown):
        if wire.text("select to_regclass($1::text) is not null", text(_CITUS)).rows[0][0]:
            rows = wire.text(f"{_DISTRIBUTED}$1::text order by 1", text(address.schema)).rows
            _demand_undistributed(address, [name for (name,) in rows])


def _demand_undistributed(address: Address, tables: list[str]) -> None:
    """Reject tables distributed by Citus, which commits each statement of a pipeline on its node, so a batch
    would not be atomic.
    """
    if not tables:
        return
    shown = ", ".join(tables[:3]) + (", ..." if len(tables) > 3 else "")
    raise StoreUnusable(
        f"Citus distributes tables of the schema {address.schema!r} in {address.shown} ({shown}), and a commit of "
        "perdure's is not one transaction there: half of a batch could be stored. Keep them on the coordinator: "
        f"select citus_schema_undistribute('{address.schema}'), or undistribute_table for each; "
        "citus.enable_schema_based_sharding has to be off where the schema is made"
    )


def version_of(address: Address, wire: Wire) -> int:
    """The schema's version, 0 without one. Raises StoreTooNew."""
    with translating(address.shown):
        there = wire.text(
            "select to_regclass($1::text) is not null", text(f"{quoted(address.schema)}.versions")
        )
        if not there.rows[0][0]:
            return 0
        rows = wire.text(f"select coalesce(max(version), 0) from {quoted(address.schema)}.versions").rows
    found = int(rows[0][0])
    if found > VERSION:
        raise too_new(address, found)
    return found


def too_new(address: Address, found: int) -> StoreTooNew:
    return StoreTooNew(
        f"{address.shown} has schema version {found}, this perdure supports {VERSION}: upgrade perdure. "
        "Nothing was changed"
    )


def too_old(address: Address, found: int) -> StoreUnusable:
    return StoreUnusable(
        f"{address.shown} has schema version {found}, this perdure reads version {VERSION}. Start a worker with a "
        "role that may create tables, or run `perdure migrate`. Nothing was changed"
    )


def _migrate(address: Address, found: int) -> None:
    session = open_session(address, MIGRATING)
    schema = quoted(address.schema)
    try:
        session.execute("select pg_advisory_lock(%s)", (lock_key("migrating", address.schema),))
        # Another process may have migrated in the meantime. A schema created by a DBA is not created again.
        there = session.execute("select to_regnamespace(%s) is not null", (schema,)).fetchone()
        if there == (False,):
            session.execute(SQL(f"create schema {schema}"))
        session.execute(SQL(_VERSIONS.replace("{schema}", schema)))
        if session.execute("select to_regclass(%s) is not null", (_CITUS,)).fetchone() == (True,):
            rows = session.execute(SQL(f"{_DISTRIBUTED}%s order by 1"), (address.schema,)).fetchall()
            _demand_undistributed(address, [name for (name,) in rows])
        row = session.execute(SQL(f"select coalesce(max(version), 0) from {schema}.versions")).fetchone()
        for version in range((row or (0,))[0] + 1, VERSION + 1):
            with session.transaction():
                session.execute(SQL(_script(version, schema)))
                session.execute(SQL(f"insert into {schema}.versions (version) values ({version})"))
    except psycopg.Error as error:
        if error.sqlstate == _FORBIDDEN:
            raise StoreUnusable(
                f"{address.shown} has schema version {found} and needs {VERSION}, and this role has no "
                "permission to change it. Run `perdure migrate` with a role that may (`perdure migrate "
                "--print` shows the SQL). Nothing was changed"
            ) from error
        raise translated(error, address.shown) from error
    finally:
        session.close()


def _script(version: int, schema: str) -> str:
    return read_sql(f"migrations/{version:04}.sql").replace("{schema}", schema)


__all__ = [
    "TABLES",
    "VERSION",
    "bring_up_to_date",
    "lock_key",
    "migrate",
    "migration_sql",
    "too_new",
    "too_old",
    "version_of",
]
