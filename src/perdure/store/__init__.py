"""The port (`perdure.store.port`) and its adapters. `open_store` picks one by URL."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import datetime
from typing import TYPE_CHECKING

from perdure.errors import StoreUnusable, needing
from perdure.model.instances import PARTITIONS
from perdure.model.settings import mask
from perdure.store.transfer import UNFINISHED

if TYPE_CHECKING:
    from perdure.store.encryption import Encryption
    from perdure.store.port import Overseer, Store
    from perdure.store.sqlite.lock import ServerInfo


def open_store(
    url: str,
    hub: str,
    encryption: Encryption | None = None,
    *,
    refuse_open_files: bool = False,
    partitions: int = PARTITIONS,
    replica_dir: str | None = None,
    standby: bool = False,
    keep_log: float = 0.0,
) -> Store:
    """The store of a URL: `memory:`, `sqlite:///relative.db`, `sqlite:////absolute.db`, a bare path,
    `postgresql://`, or `azure:`.

    Parameters:
        encryption: the keys for content on disk; a store in memory needs none.
        refuse_open_files: do not open a SQLite file that other users may read; by default its mode becomes
            0600.
        partitions: of a new hub in PostgreSQL, how many it has. A hub keeps its number.
        replica_dir: of a hub in Azure Storage, the folder of its replica on this machine.
        standby: of a hub in Azure Storage, wait for as long as another engine holds it.
        keep_log: of a hub in Azure Storage, how many seconds it can be restored to.

    Raises:
        StoreUnusable: for an unknown scheme, and for `azure:` without the setting of an account.
        ExtraMissing: for `postgresql://` without the extra `postgres`.
    """
    if url in ("memory:", "memory://"):
        from perdure.store.memory import MemoryStore

        return MemoryStore(hub)
    if is_postgres(url):
        _demand_driver()
        from perdure.store.postgres.store import PostgresStore

        return PostgresStore(url, hub, encryption, new_partitions=partitions)
    if is_azure(url):
        from perdure.store.log.opening import open_log_store
        from perdure.store.log.store import Terms

        terms = Terms(standby=standby, keep_log=keep_log)
        return open_log_store(url, hub, encryption, directory=replica_dir or "", terms=terms)
    path = sqlite_path(url)
    if path:
        from perdure.store.sqlite.store import SqliteStore

        return SqliteStore(path, hub, encryption, refuse_open_files=refuse_open_files)
    raise StoreUnusable(
        f"cannot open a store at {mask(url)!r}: use memory:, sqlite:///file.db, a path that ends in .db, "
        "postgresql://user@host/database, or azure:"
    )


def hubs_of(url: str) -> list[str]:
    """The names of the hubs that a store on disk has, by name.

    Raises:
        StoreUnusable: when it is not a perdure store, or another process cannot read it.
        StoreError: when it cannot be reached.
    """
    if is_postgres(url):
        _demand_driver()
        from perdure.store.postgres.store import PostgresStore

        with closing(PostgresStore(url, "")) as store:
            names = store.hubs()
    elif is_azure(url):
        from perdure.store.log.opening import hubs_at

        names = hubs_at(url)
    else:
        from perdure.store.sqlite.connection import open_reader
        from perdure.store.sqlite.invalid_text import reading

        with closing(open_reader(file_of(url))) as connection:
            found = reading(connection.execute)("select name from hubs order by name").fetchall()
            names = [str(name) for (name,) in found]
    return [name for name in names if not name.endswith(UNFINISHED)]


def copy_from_log(url: str, hub: str, path: str, *, at: datetime | None = None) -> None:
    """Write a hub in Azure Storage to a new SQLite file, as it is, or as it was at a moment.

    Raises StoreUnusable, StoreError.
    """
    from perdure.store.log.opening import copy_to_file

    copy_to_file(url, hub, path, at)


def server_of(url: str, hub: str) -> ServerInfo | None:
    """The server on this machine that holds a hub in Azure Storage, if any."""
    from perdure.store.log.opening import server_of as found

    return found(url, hub)


def file_of(url: str) -> str:
    """The file of a SQLite store. Raises StoreUnusable for another store, and for a missing file."""
    path = sqlite_path(url)
    if is_azure(url):
        raise StoreUnusable(f"{url} is not a file: `perdure copy` copies the hub to one")
    if not path and not url.startswith("memory:"):
        raise StoreUnusable(
            f"{mask(url)!r} is not a store: use sqlite:///file.db, postgresql://... or memory:"
        )
    if not path:
        raise StoreUnusable(f"a command cannot read {mask(url)!r}: pass --url with the address of its server")
    if not os.path.exists(path):
        raise StoreUnusable(
            f"no database at {os.path.abspath(path)}: name one with --store, or serve an application first, "
            "with `perdure run app.py`"
        )
    return path


def reach(url: str) -> None:
    """Check whether a store's database answers. Raises StoreError if it may answer later, StoreUnusable if not."""
    if is_postgres(url):
        _demand_driver()
        from perdure.store.postgres import connection
        from perdure.store.postgres.address import address_of

        connection.reach(address_of(url))
    if is_azure(url):
        from perdure.store.log.opening import reach_account

        reach_account(url)


def open_overseer(url: str) -> Overseer | None:
    """The lease keeper for supervised workers; None for a store without leases."""
    if not is_postgres(url):
        return None
    _demand_driver()
    from perdure.store.postgres.lease_keeper import PostgresOverseer

    return PostgresOverseer(url)


def migrate_store(url: str) -> tuple[int, int]:
    """Upgrade the tables of a store in PostgreSQL. Returns the versions before and after.

    Raises StoreTooNew, StoreError, and StoreUnusable if the role has no permission.
    """
    _demand_driver()
    from perdure.store.postgres.migrating import migrate

    return migrate(url)


def migration_script(url: str) -> str:
    """The SQL that creates the tables of a store in PostgreSQL, in the schema of its URL."""
    _demand_driver()
    from perdure.store.postgres.address import SCHEMA, address_of
    from perdure.store.postgres.migrating import migration_sql

    return migration_sql(address_of(url).schema if is_postgres(url) else SCHEMA)


def is_postgres(url: str) -> bool:
    """Whether a URL names a store in PostgreSQL."""
    return url.startswith(("postgresql://", "postgres://"))


def is_azure(url: str) -> bool:
    """Whether a URL names a store in Azure Storage."""
    return url.startswith("azure:")


def sqlite_path(url: str) -> str:
    """The path in the URL of a SQLite store, "" for another store."""
    if is_azure(url):
        return ""
    if url.startswith("sqlite:///"):
        return url[len("sqlite:///") :]
    return url if "://" not in url and not url.endswith(":") else ""


def _demand_driver() -> None:
    with needing("postgres", "a store in PostgreSQL"):
        import psycopg  # noqa: F401
