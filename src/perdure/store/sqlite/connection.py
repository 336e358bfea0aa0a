"""Connections: opening the file, and checking its access and format.

Only apsw opens the file. It includes its own SQLite, without a bug that corrupts a WAL with two connections.
`synchronous=FULL` is mandatory: with NORMAL a power failure loses acknowledged commits. Checkpoints never run
inside a commit (`wal_autocheckpoint=0`): see `wal.py`. A file of a newer version, or of another program, is
checked through a read-only connection and left unchanged.
"""

from __future__ import annotations

import os
import time
from typing import Final

import apsw

from perdure.errors import StoreTooNew, StoreUnusable
from perdure.model.ring import RingRow
from perdure.store.sqlite.errors import translating
from perdure.store.sqlite.files import demand_one_place
from perdure.store.sqlite.lock import connect
from perdure.store.sqlite.statements import CACHED, read_sql
from perdure.store.sqlite.wal import LOG_KEPT

APPLICATION_ID: Final = 0x70657264  # "perd"
SCHEMA_VERSION: Final = 9
_REPLAYS_SINCE: Final = 6  # the version whose instances have the columns
RING_SINCE: Final = 8  # the version that has the table
_OLDEST_SQLITE: Final = (3, 51, 3)
_BUSY_MS: Final = 5_000
_CACHE_KIB: Final = 32_768


def check_library() -> None:
    """Raise StoreUnusable if apsw includes a SQLite with the WAL bug."""
    found = apsw.sqlite_lib_version()
    if tuple(int(part) for part in found.split(".")[:3]) < _OLDEST_SQLITE:
        wanted = ".".join(map(str, _OLDEST_SQLITE))
        raise StoreUnusable(
            f"apsw {apsw.apsw_version()} includes SQLite {found}, which can corrupt a database in WAL mode; "
            f"perdure needs {wanted} or newer: pip install -U 'apsw>={wanted}'"
        )


def open_writer(path: str) -> apsw.Connection:
    """The engine's connection, to a file with the current schema, created or migrated if necessary."""
    check_library()
    with translating(path):
        known = os.path.exists(path) and os.path.getsize(path) > 0 and _check_file(path)
        connection = connect(path, statementcachesize=CACHED)
        try:
            _configure(connection)
            connection.set_busy_handler(_wait_a_little)
            connection.pragma("journal_size_limit", LOG_KEPT)
            if connection.readonly("main"):
                raise StoreUnusable(f"{path} is read-only for this user: give it write permission")
            connection.pragma("journal_mode", "wal")
            if not known:
                _create(connection)
            _migrate(connection)
        except BaseException:
            connection.close(force=True)
            raise
    return connection


def open_reader(path: str) -> apsw.Connection:
    """A read-only connection."""
    check_library()
    if not os.path.exists(path):
        raise StoreUnusable(f"no database at {os.path.abspath(path)}")
    demand_one_place(path)
    with translating(path):
        connection = connect(path, flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=CACHED)
        try:
            _configure(connection)
            if not _check_version(connection, path):
                raise StoreUnusable(f"{path} is empty: no engine has ever opened it")
            _show_as_migrated(connection)
            connection.pragma("query_only", True)
        except BaseException:
            connection.close(force=True)
            raise
    return connection


def _show_as_migrated(connection: apsw.Connection) -> None:
    """Give a file of an earlier version the tables of today, in views that only this connection sees.

    After another process has migrated the file, the view of instances shows the columns of the table.
    """
    version = connection.pragma("user_version")
    if version < RING_SINCE:
        columns = ", ".join(f"null as {name}" for name in ("hub_no", *RingRow._fields))
        connection.execute(f"create temp view ring as select {columns} where false")
    if version < _REPLAYS_SINCE:
        connection.execute(
            "create temp view instances as select *, 0 as replays, '' as replay_reason from main.instances"
        )


def open_maintenance(path: str) -> apsw.Connection:
    """A connection for checkpoints. It gives up quickly when the file is busy, because checkpoints are retried."""
    connection = connect(path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        _configure(connection)
        connection.set_busy_timeout(5)
    except BaseException:  # the garbage collector would close it too late, and could not report an error
        connection.close(force=True)
        raise
    return connection


def _wait_a_little(tries: int) -> bool:
    """SQLite's own busy handler sleeps up to 100 ms between looks; a checkpoint is over in a few."""
    time.sleep(0.001)
    return tries < _BUSY_MS


def _configure(connection: apsw.Connection) -> None:
    connection.set_busy_timeout(_BUSY_MS)
    connection.limit(apsw.SQLITE_LIMIT_VARIABLE_NUMBER, 32_766)
    connection.pragma("synchronous", "full")
    connection.pragma("wal_autocheckpoint", 0)
    connection.pragma("foreign_keys", False)
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("temp_store", "memory")


def check_place(path: str) -> None:
    """Raise StoreUnusable if the path cannot be a file."""
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise StoreUnusable(
            f"the directory {directory} of {os.path.basename(path)} does not exist: create it"
        )
    if os.path.isdir(path):
        raise StoreUnusable(f"{path} is a directory, not a database file")


def _check_file(path: str) -> bool:
    """Check a file without changing it. True for a perdure database, False for an empty file.

    A crash during the creation of the file leaves a journal that must be rolled back first, which a read-only
    connection cannot do. As SQLite would on opening the file, this function rolls it back.
    """
    try:
        return _look_at(path, apsw.SQLITE_OPEN_READONLY)
    except apsw.ReadOnlyError:
        return _look_at(path, apsw.SQLITE_OPEN_READWRITE)


def _look_at(path: str, flags: int) -> bool:
    connection = connect(path, flags=flags)
    try:
        connection.set_busy_timeout(_BUSY_MS)
        return _check_version(connection, path)
    finally:
        connection.close(force=True)


def _check_version(connection: apsw.Connection, path: str) -> bool:
    application, version = connection.pragma("application_id"), connection.pragma("user_version")
    if application == 0 and version == 0 and not connection.execute("select 1 from sqlite_schema").get:
        return False
    if application != APPLICATION_ID:
        raise StoreUnusable(f"{path} is a SQLite database of another program: give perdure a file of its own")
    if version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"{path} has schema version {version}, this perdure supports {SCHEMA_VERSION}: upgrade perdure. "
            "Nothing was changed"
        )
    return True


def _create(connection: apsw.Connection) -> None:
    with connection:
        connection.execute(read_sql("schema.sql"))
        connection.pragma("application_id", APPLICATION_ID)
        connection.pragma("user_version", 1)


def _migrate(connection: apsw.Connection) -> None:
    """Apply the migrations since the file's version, each in one transaction."""
    for version in range(connection.pragma("user_version") + 1, SCHEMA_VERSION + 1):
        with connection:
            connection.execute(read_sql(f"migrations/{version:04}.sql"))
            connection.pragma("user_version", version)
