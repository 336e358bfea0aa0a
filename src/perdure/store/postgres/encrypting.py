"""Encryption in PostgreSQL: the keys of a hub, and rekeying.

The rules are the same as in SQLite: a hub records every key under which it was written, it is opened for
writing only with all its keys, and rekeying walks the tables by their keys, one page per transaction, until no
row uses an old key. Replaced content stays in the database's files until a vacuum, and in its log and backups
as long as they exist.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.model.records import ActivityRow
from perdure.store.column_encryption import PLACED, SPOTS, Spot, Vault
from perdure.store.postgres.binary import number, text
from perdure.store.postgres.transfer import KEYS, bound
from perdure.store.rekeying import PAGE, RekeyingRun
from perdure.store.transfer import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perdure.model.encryption import Cipher
    from perdure.store.postgres.pipeline import Wire

_ALL: Final = (*SPOTS, PLACED)


def vault_of(
    proofs: Iterable[tuple[str, bytes]], hub: str, cipher: Cipher | None, where: str
) -> Vault | None:
    """For reading: None for a hub without encryption. Raises WrongEncryptionKey for a wrong key."""
    noted = list(proofs)
    if not noted:
        return None
    vault = Vault(hub, cipher)
    vault.check(noted, demand_all=False, where=where)
    return vault


def take_vault(wire: Wire, hub: str, cipher: Cipher | None, where: str) -> Vault | None:
    """For writing: record the current key. Raises WrongEncryptionKey unless all recorded keys are given."""
    proofs = wire.one("encryption_proofs")
    if cipher is None and not proofs:
        return None
    vault = Vault(hub, cipher)
    vault.check(proofs, demand_all=True, where=where)
    assert cipher is not None
    if cipher.current not in dict(proofs):
        wire.one("add_encryption_key", text(cipher.current), vault.proof())
    return vault


class PostgresRekeying(RekeyingRun):
    """Encrypts a schema's hub again."""

    def __init__(self, vault: Vault, hub_no: int, schema: str, ask: Callable[..., list[Any]]) -> None:
        super().__init__(vault, _ALL)
        self._hub_no, self._schema = hub_no, schema
        self._ask = ask  # statements and their values, in one transaction; rows of the last one

    def _forget_other_keys(self) -> None:
        sql = f"delete from {self._schema}.encryption where hub_no = {self._hub_no} and key_id <> $1::text"
        self._ask([(sql, (text(self._cipher.current),))])

    def _page(self, spot: Spot, after: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        key = KEYS.get(spot.table, spot.key)
        columns = ", ".join((*key, *_columns(spot)))
        marks, values = bound(after)
        behind = f" and ({', '.join(key)}) > ({marks})" if after else ""
        limit = min(PAGE, TABLES[spot.table].page if spot.table in TABLES else PAGE)
        found = self._ask(
            [
                (
                    f"select {columns} from {self._schema}.{spot.table} "
                    f"where {self._where(spot, len(after) + 1)}{behind} order by {', '.join(key)} limit {limit}",
                    (*values, *self._values()),
                )
            ]
        )
        changes = []
        for whole in found:
            at, row = whole[: len(key)], whole[len(key) :]
            sealed = self._sealed_again(spot, row)
            if sealed is not None:
                marks, values = bound(at)
                place = f"({', '.join(key)}) = ({marks})"
                stored = (
                    f"{spot.column} = ${len(at) + 2}::bytea"  # no other value was written in the meantime
                )
                changes.append(
                    (
                        f"update {self._schema}.{spot.table} set {spot.column} = ${len(at) + 1}::bytea "
                        f"where hub_no = {self._hub_no} and {place} and {stored}",
                        (*values, sealed, row[spot.at]),
                    )
                )
        if changes:
            self._ask(changes)
        return len(found), found[-1][: len(key)] if found else after

    def _count(self, spot: Spot) -> int:
        sql = f"select count(*) from {self._schema}.{spot.table} where {self._where(spot, 1)}"
        return int(self._ask([(sql, self._values())])[0][0])

    def _where(self, spot: Spot, first: int) -> str:
        return (
            f"hub_no = {self._hub_no} and {spot.column} is not null "
            f"and substr({spot.column}, 1, ${first}::bigint::integer) <> ${first + 1}::bytea"
        )

    def _values(self) -> tuple[bytes, ...]:
        prefix = self._cipher.prefix
        return (number(len(prefix)), prefix)


def _columns(spot: Spot) -> tuple[str, ...]:
    return TABLES[spot.table].columns if spot.table in TABLES else ActivityRow._fields


__all__ = ["PostgresRekeying", "take_vault", "vault_of"]
