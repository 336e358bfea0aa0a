"""The port (`perdure.store.port`) and its adapters. `open_store` picks one by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.errors import ExtraMissing, StoreUnusable

if TYPE_CHECKING:
    from perdure.store.encryption import Encryption
    from perdure.store.port import Store
    from perdure.store.postgres.store import PostgresStore


def open_store(url: str, hub: str, encryption: Encryption | None = None) -> Store:
    """The store of a URL: `memory:`, `sqlite:///relative.db`, `sqlite:////absolute.db`, a bare path, or `postgresql://`.

    `encryption` holds the keys for what lies on disk; a store in memory needs none.

    Raises:
        StoreUnusable: for a scheme nobody knows.
        ExtraMissing: for `postgresql://` without the extra `postgres`.
    """
    if url in ("memory:", "memory://"):
        from perdure.store.memory import MemoryStore

        return MemoryStore(hub)
    if is_postgres(url):
        return _postgres_store()(url, hub, encryption)
    path = _sqlite_path(url)
    if path:
        from perdure.store.sqlite.store import SqliteStore

        return SqliteStore(path, hub, encryption)
    raise StoreUnusable(
        f"cannot open a store at {url!r}: use memory:, sqlite:///file.db, a path that ends in .db, "
        "or postgresql://user@host/database"
    )


def is_postgres(url: str) -> bool:
    """Whether a store's URL is of a PostgreSQL database."""
    return url.startswith(("postgresql://", "postgres://"))


def hubs_at(url: str) -> list[str]:
    """The hubs of a PostgreSQL database."""
    store = _postgres_store()(url, "")
    try:
        return store.hubs()
    finally:
        store.close()


def _postgres_store() -> type[PostgresStore]:
    try:
        import psycopg  # noqa: F401
    except ImportError as missing:
        raise ExtraMissing(
            "a store in PostgreSQL needs psycopg, which is not installed here or does not find libpq: "
            "pip install 'perdure[postgres]'"
        ) from missing
    from perdure.store.postgres.store import PostgresStore

    return PostgresStore


def _sqlite_path(url: str) -> str:
    if url.startswith("sqlite:///"):
        return url[len("sqlite:///") :]
    return url if "://" not in url and not url.endswith(":") else ""
