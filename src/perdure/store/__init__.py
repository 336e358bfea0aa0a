"""The port (`perdure.store.port`) and its adapters. `open_store` picks one by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.errors import StoreUnusable

if TYPE_CHECKING:
    from perdure.store.encryption import Encryption
    from perdure.store.port import Store


def open_store(url: str, hub: str, encryption: Encryption | None = None) -> Store:
    """The store of a URL: `memory:`, `sqlite:///relative.db`, `sqlite:////absolute.db` or a bare path.

    `encryption` holds the keys for what lies on disk; a store in memory needs none.

    Raises:
        StoreUnusable: for a scheme nobody knows.
    """
    if url in ("memory:", "memory://"):
        from perdure.store.memory import MemoryStore

        return MemoryStore(hub)
    path = _sqlite_path(url)
    if path:
        from perdure.store.sqlite.store import SqliteStore

        return SqliteStore(path, hub, encryption)
    raise StoreUnusable(
        f"cannot open a store at {url!r}: use memory:, sqlite:///file.db or a path that ends in .db"
    )


def _sqlite_path(url: str) -> str:
    if url.startswith("sqlite:///"):
        return url[len("sqlite:///") :]
    return url if "://" not in url and not url.endswith(":") else ""
