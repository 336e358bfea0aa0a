"""What can be asked of a database before one of its hubs is chosen. Nothing is created."""

from __future__ import annotations

import psycopg

from perdure.store.postgres.address import Address, address_of
from perdure.store.postgres.connection import READING, connect
from perdure.store.postgres.errors import translated
from perdure.store.postgres.statements import quoted


def hubs(url: str) -> list[str]:
    """The names of all hubs. Raises StoreError, and StoreUnusable when there are no tables of perdure."""
    address = address_of(url)
    return _column(address, f"select name from {quoted(address.schema)}.hubs order by name")


def reach(url: str) -> None:
    """See whether it answers. Raises StoreError."""
    _column(address_of(url), "select 1")


def _column(address: Address, sql: str) -> list[str]:
    wire = connect(address, READING)
    try:
        return [row[0] for row in wire.text(sql).rows]
    except psycopg.Error as error:
        raise translated(error, address.shown) from error
    finally:
        wire.close()


__all__ = ["hubs", "reach"]
