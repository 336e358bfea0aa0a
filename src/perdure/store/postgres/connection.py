"""Connections: their purposes, their timeouts, and the check for poolers.

Every wait is bounded: the server's for locks and statements, the client's for answers, and both sides' for a
peer that disappeared. A connection of the engine never scans a table: all its queries use keys, and a plan made
for small tables would be kept when they grow. Prepared statements, settings and locks belong to a session; a
pooler in transaction mode has no sessions, so it is rejected: libpq then reports another backend than the one
that answers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from perdure.errors import StoreError, StoreUnusable
from perdure.store.postgres.errors import for_good, translating
from perdure.store.postgres.other_engines import refuse_other_engines
from perdure.store.postgres.pipeline import Backend, Wire

if TYPE_CHECKING:
    from perdure.store.postgres.address import Address

log = logging.getLogger("perdure.store")

_OLDEST: Final = 140_000
_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "perdure",
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "target_session_attrs": "read-write",
}
_ALWAYS: Final = {
    "client_min_messages": "warning",
    "default_transaction_isolation": "read committed",  # the fence is checked again after waiting for it
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "10s",
    "idle_session_timeout": "0",  # presence is a session's
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
_BY_KEY: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
# A wide step's history has megabytes, and this compresses them several times as fast as PostgreSQL's own method.
_FAST_COMPRESSION: Final = """case when exists (
    select 1 from pg_settings where name = 'default_toast_compression' and 'lz4' = any(enumvals)
) then set_config('default_toast_compression', 'lz4', false) end"""
_SNAPSHOT: Final = {"default_transaction_isolation": "repeatable read", "default_transaction_read_only": "on"}


@dataclass(frozen=True)
class Purpose:
    """The purpose of a connection. Times are in seconds."""

    statement: float
    lock: float
    settings: dict[str, str]
    connect: float = 10
    writes: bool = False


ENGINE: Final = Purpose(30, 10, _BY_KEY, writes=True)
READING: Final = Purpose(30, 5, _SNAPSHOT | {"plan_cache_mode": "auto"})
UPKEEP: Final = Purpose(60, 5, {})
MIGRATING: Final = Purpose(600, 60, {})


def leasing(lease: int) -> Purpose:
    """For renewing a lease of `lease` microseconds: the answer must come long before it expires."""
    seconds = min(max(lease / 4_000_000, 1.0), 5.0)
    return Purpose(seconds, seconds, _BY_KEY, connect=max(2, seconds))


def connect(address: Address, purpose: Purpose) -> Wire:
    """Raises StoreError, and StoreUnusable if a retry is useless."""
    session = open_session(address, purpose)
    with translating(address.shown):
        try:
            row = session.execute(
                "select pid, backend_start::text from pg_stat_get_activity(pg_backend_pid())"
            ).fetchone()
        except BaseException:
            session.close()
            raise
    return Wire(session, address.schema, purpose.statement + 5, Backend(*(row or (0, ""))))


def open_session(address: Address, purpose: Purpose) -> psycopg.Connection[Any]:
    """A session, set up and checked."""
    try:
        given = conninfo_to_dict(address.uri)
    except psycopg.Error:  # which repeats the address with its password
        raise StoreUnusable(
            f"{address.shown} is not a database address: see libpq's connection URIs"
        ) from None
    defaults = _DEFAULTS | {"connect_timeout": round(purpose.connect)}
    wanted = {**defaults, **{name: value for name, value in given.items() if value is not None}}
    with translating(address.shown):
        connection = psycopg.Connection.connect(
            make_conninfo(**wanted, client_encoding="utf8"), autocommit=True
        )
        try:
            refuse_other_engines(connection, address.shown)
            _configure(connection, purpose)
            _check(connection, address)
        except BaseException:
            connection.close()
            raise
    return connection


def reach(address: Address) -> None:
    """Check whether the database answers. Raises StoreError if it may answer later, StoreUnusable if not."""
    try:
        open_session(address, READING).close()
    except StoreUnusable:
        raise
    except StoreError as error:
        database = str(conninfo_to_dict(address.uri).get("dbname") or "")
        final = for_good(error.__cause__, address.shown, database)
        if final is not None:
            raise final from error.__cause__
        raise


def _configure(connection: psycopg.Connection[Any], purpose: Purpose) -> None:
    settings = {
        **_ALWAYS,
        "statement_timeout": f"{purpose.statement * 1_000:.0f}",
        "lock_timeout": f"{purpose.lock * 1_000:.0f}",
        **purpose.settings,
    }
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in settings.items())
    # An acknowledged commit is on disk, whatever the default of the role or the database.
    is_off = "current_setting('synchronous_commit') = 'off'"
    at_last = [f"case when {is_off} then set_config('synchronous_commit', 'on', false) end"]
    if purpose.writes:
        at_last.append(_FAST_COMPRESSION)
    connection.execute(f"select {calls}, {', '.join(at_last)}")


def _check(connection: psycopg.Connection[Any], address: Address) -> None:
    row = connection.execute(
        "select pg_backend_pid(), current_setting('server_encoding'), current_setting('fsync')"
    ).fetchone()
    assert row is not None
    backend, encoding, fsync = row
    if backend != connection.info.backend_pid and address.pooler != "session":
        raise StoreUnusable(
            f"{address.shown} is a connection pooler, not PostgreSQL itself. perdure needs sessions that keep "
            "locks and prepared statements: connect to PostgreSQL directly, or, if the pooler pools whole "
            "sessions (pool_mode = session), add ?pooler=session to the URL"
        )
    if connection.info.server_version < _OLDEST:
        raise StoreUnusable(
            f"{address.shown} is PostgreSQL {connection.info.server_version // 10_000}: use 14 or newer"
        )
    if encoding != "UTF8":
        raise StoreUnusable(
            f"{address.shown} has the encoding {encoding}: create the database with encoding 'UTF8'"
        )
    if fsync == "off":
        log.warning("%s runs with fsync = off: a power failure can lose acknowledged commits", address.shown)


__all__ = [
    "ENGINE",
    "MIGRATING",
    "READING",
    "UPKEEP",
    "Purpose",
    "connect",
    "leasing",
    "open_session",
    "reach",
]
