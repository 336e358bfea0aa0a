"""The lease keeper of a supervisor: extends and ends its workers' leases, on its own connection.

It knows the workers by name only, without a hub: the names are its own, so a row with such a name belongs to
its worker. It only extends or ends leases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from perdure.store.postgres.address import address_of
from perdure.store.postgres.binary import number, numbers, text, texts
from perdure.store.postgres.connection import connect, leasing
from perdure.store.postgres.errors import translated
from perdure.store.postgres.notify import channel_of
from perdure.store.postgres.statements import NOW, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perdure.store.postgres.pipeline import StatementResult, Wire

_PROLONG = f"""
update {{schema}}.workers set lease_until = greatest(lease_until, {NOW} + $2::bigint)
where worker = any($1::text[]) and state <> 'void' returning worker
"""
_EXPIRE = f"""
update {{schema}}.workers set lease_until = least(lease_until, {NOW})
where worker = any($1::text[]) and state <> 'void' returning worker, hub_no::bigint
"""
_OTHERS = f"""
select h.name, w.incarnation from {{schema}}.workers w join {{schema}}.hubs h on h.hub_no = w.hub_no
where w.hub_no = any($1::bigint[]) and w.state <> 'void' and w.lease_until > {NOW}
"""


class PostgresOverseer:
    """For one thread at a time. See `perdure.store.port.Overseer`."""

    def __init__(self, url: str) -> None:
        self._address = address_of(url)
        self._schema = quoted(self._address.schema)
        self._wire: Wire | None = None

    def prolong(self, names: Sequence[str], lease: int) -> list[str]:
        if not names:
            return []
        rows = self._ask(lease, _PROLONG, texts(list(names)), number(lease)).rows
        return sorted({row[0] for row in rows})

    def expire(self, names: Sequence[str], lease: int) -> list[str]:
        if not names:
            return []
        rows = self._ask(lease, _EXPIRE, texts(list(names))).rows
        if rows:
            self._tell_others(lease, sorted({row[1] for row in rows}))
        return sorted({row[0] for row in rows})

    def _tell_others(self, lease: int, hubs: list[int]) -> None:
        """Notify the other workers, so that they take over without waiting for their next census."""
        for hub, incarnation in self._ask(lease, _OTHERS, numbers(hubs)).rows:
            channel = channel_of(self._address.schema, hub, incarnation)
            self._ask(lease, "select pg_notify($1::text, '')", text(channel))

    def _ask(self, lease: int, sql: str, *values: bytes) -> StatementResult:
        """Run a statement, which may be repeated; a connection that died since its last use is replaced once."""
        while True:
            used_before = self._wire is not None
            wire, self._wire = self._wire or connect(self._address, leasing(lease)), None
            try:
                answer = wire.text(sql.replace("{schema}", self._schema), *values)
            except psycopg.Error as error:
                wire.close()
                if used_before and error.sqlstate is None:
                    continue
                raise translated(error, self._address.shown) from error
            except BaseException:
                wire.close()
                raise
            self._wire = wire
            return answer

    def close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


__all__ = ["PostgresOverseer"]
