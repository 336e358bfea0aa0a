"""Databases that speak PostgreSQL's protocol and are none: perdure refuses them before it creates anything.

They accept locks that the fence and a single engine rely on, and do not all hold them, or they commit a batch in
parts. See the page on other databases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.errors import StoreUnusable

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

_ENGINES: Final[tuple[tuple[str, Callable[[psycopg.ConnectionInfo], bool], str], ...]] = (
    (
        "CockroachDB",
        lambda info: info.parameter_status("crdb_version") is not None,
        "it accepts advisory locks and row locks without holding all of them",
    ),
    (
        "YugabyteDB",
        lambda info: "-YB-" in (info.parameter_status("server_version") or ""),
        "its locks wait or fail depending on its version and settings, and perdure was never run on it",
    ),
    (
        "Aurora DSQL",
        lambda info: ".dsql." in info.host and info.host.endswith(".on.aws"),
        "it has no row locks that wait, no advisory locks, and no functions in PL/pgSQL",
    ),
)


def refuse_other_engines(connection: psycopg.Connection[Any], shown: str) -> None:
    """Raise StoreUnusable for a database that is known not to keep what perdure relies on. Sends no query."""
    for name, is_it, why in _ENGINES:
        if is_it(connection.info):
            raise StoreUnusable(
                f"{shown} is {name}, not PostgreSQL: {why}, so a worker that has lost its lease could still write. "
                "Use PostgreSQL 14 or newer, on one primary server"
            )


__all__ = ["refuse_other_engines"]
