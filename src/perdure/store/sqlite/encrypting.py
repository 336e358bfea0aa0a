"""Encryption in SQLite: the keys of a hub, and rekeying.

A hub records every key under which it was written, with a proof that detects the same id with other bytes. It
is opened for writing only with all its keys, so no key is lost while a row may need it. Rekeying walks the
tables by their keys, one page per transaction. A page selects rows without the prefix of the current key, so
the next run continues after an interruption. The old keys are forgotten only when no row uses them. Digests and
chain cover the plain events and stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.store.column_encryption import SPOTS, Spot, Vault
from perdure.store.rekeying import PAGE, RekeyingRun
from perdure.store.sqlite.statements import query
from perdure.store.sqlite.transfer import KEYS
from perdure.store.transfer import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from perdure.model.encryption import Cipher

    Execute = Callable[..., Any]

_SINCE_VERSION: Final = 5


def vault_of(execute: Execute, hub_no: int, hub: str, cipher: Cipher | None, where: str) -> Vault | None:
    """For reading: None for a hub without encryption. Raises WrongEncryptionKey for a wrong key."""
    proofs = _proofs(execute, hub_no)
    if not proofs:
        return None
    vault = Vault(hub, cipher)
    vault.check(proofs, demand_all=False, where=where)
    return vault


def take_vault(execute: Execute, hub_no: int, hub: str, cipher: Cipher | None, where: str) -> Vault | None:
    """For writing: record the current key. Raises WrongEncryptionKey unless all recorded keys are given."""
    proofs = _proofs(execute, hub_no)
    if cipher is None and not proofs:
        return None
    vault = Vault(hub, cipher)
    vault.check(proofs, demand_all=True, where=where)
    assert cipher is not None
    if cipher.current not in dict(proofs):
        execute(query("add_encryption_key"), (hub_no, cipher.current, vault.proof()))
    return vault


def _proofs(execute: Execute, hub_no: int) -> list[tuple[str, bytes]]:
    [(version,)] = execute("pragma user_version").fetchall()
    if version < _SINCE_VERSION:
        return []
    return list(execute(query("encryption_proofs"), (hub_no,)).fetchall())


class SqliteRekeying(RekeyingRun):
    """Encrypts a file's hub again. `after_page` keeps the log short."""

    def __init__(
        self,
        vault: Vault,
        hub_no: int,
        writing: Callable[[], AbstractContextManager[Execute]],
        after_page: Callable[[], None],
    ) -> None:
        super().__init__(vault, SPOTS)
        self._hub_no = hub_no
        self._writing, self._after_page = writing, after_page

    def _forget_other_keys(self) -> None:
        with self._writing() as execute:
            execute(query("forget_encryption_keys"), (self._hub_no, self._cipher.current))

    def _page(self, spot: Spot, after: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        with self._writing() as execute:
            execute(
                "pragma secure_delete = on"
            )  # replaced cells may have been plain: free space must not keep them
            seen, after = self._rewrite(execute, spot, after)
        if seen:
            self._after_page()
        return seen, after

    def _rewrite(self, execute: Execute, spot: Spot, after: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        key = KEYS[spot.table][1]
        keys, columns = ", ".join(key), ", ".join(TABLES[spot.table].columns)
        behind = f" and ({keys}) > ({', '.join('?' * len(key))})" if after else ""
        limit = min(PAGE, TABLES[spot.table].page)
        found = execute(
            f"select {keys}, {columns} from {spot.table} where {self._where(spot)}{behind} order by {keys} limit ?",
            (*self._values(), *after, limit),
        ).fetchall()
        place = " and ".join(f"{name} = ?" for name in key)
        own = ("hub_no = ? and ", (self._hub_no,)) if spot.table == "keys" else ("", ())
        for whole in found:
            at, row = whole[: len(key)], whole[len(key) :]
            sealed = self._sealed_again(spot, row)
            if sealed is not None:
                execute(
                    f"update {spot.table} set {spot.column} = ? where {own[0]}{place}", (sealed, *own[1], *at)
                )
        return len(found), found[-1][: len(key)] if found else after

    def _count(self, spot: Spot) -> int:
        with self._writing() as execute:
            found = execute(f"select count(*) from {spot.table} where {self._where(spot)}", self._values())
            return int(found.fetchall()[0][0])

    def _where(self, spot: Spot) -> str:
        scope = KEYS[spot.table][0]
        return f"{scope} and {spot.column} is not null and substr({spot.column}, 1, ?) is not ?"

    def _values(self) -> tuple[Any, ...]:
        prefix = self._cipher.prefix
        return (self._hub_no, len(prefix), prefix)


__all__ = ["SqliteRekeying", "take_vault", "vault_of"]
