"""Column encryption: the encrypted columns of a store, and the row to which each cell is bound.

All content of users and their code is encrypted: events, bodies, messages, answers, statuses, entity states. So
is each instance's salt: the digests of the chain cover the plain events, and with the salt an attacker could
test guesses against them. So are the secrets of keys. Queried columns stay plain: ids, names, tags, times,
statuses with their reasons, and the audit log. A cell is bound to hub, table, column and the key of its row, so
it can be decrypted only there. A transfer to another store therefore decrypts and encrypts again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.errors import DecryptionFailed, WrongEncryptionKey
from perdure.model.encryption import DAMAGED, ENCRYPTED, Unreadable, is_encrypted, may_be_plain
from perdure.model.records import ActivityRow, TaskUpdate
from perdure.store.transfer import TABLES

if TYPE_CHECKING:
    from perdure.model.encryption import Cipher
    from perdure.model.records import Batch, ResultRow

    Row = tuple[Any, ...]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Spot:
    """An encrypted column and the key columns of its row, by name and by position."""

    table: str
    column: str
    key: tuple[str, ...]
    at: int
    key_at: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"

    @property
    def is_random(self) -> bool:
        """Whether the plain bytes are random; all others are JSON."""
        return self.column in ("salt", "secret")


def _spot(table: str, column: str, *key: str, columns: tuple[str, ...] = ()) -> Spot:
    columns = columns or TABLES[table].columns
    return Spot(table, column, key, columns.index(column), tuple(columns.index(name) for name in key))


SPOTS: Final = (
    _spot("instances", "salt", "instance_no"),
    _spot("history", "events", "instance_no", "execution_no", "episode"),
    _spot("payloads", "body", "instance_no", "execution_no", "episode", "no"),
    _spot("state", "custom_status", "instance_no"),
    _spot("state", "entity_state", "instance_no"),
    _spot("waits", "task", "instance_no", "wait_id"),
    _spot("inbox", "message", "message_no", "instance_id"),
    _spot("seen", "answer", "operation_id", "instance_id"),
    _spot("dropped", "body", "instance_id", "at", "kind", "name", "operation_id"),
    _spot("keys", "secret", "key_id", "kind"),
)
PLACED: Final = _spot(
    "activities", "invocation", "instance_id", "execution_id", "task_id", columns=ActivityRow._fields
)
"""Separate from the others because it is never transferred."""
_OF: Final = {table: tuple(spot for spot in SPOTS if spot.table == table) for table in TABLES} | {
    "activities": (PLACED,)
}
_STATE: Final = {spot.column: replace(spot, at=1) for spot in SPOTS if spot.table == "state"}
"""The two halves of `state` as they are written and read: instance_no and one of the columns."""


_TASK_UPDATE: Final = replace(
    next(spot for spot in SPOTS if spot.table == "waits"), at=TaskUpdate._fields.index("task"), key_at=(0, 1)
)


class Vault:
    """Encrypts and decrypts the rows of one hub; without keys (`cipher` None) it only detects encrypted cells."""

    def __init__(self, hub: str, cipher: Cipher | None) -> None:
        self.hub = hub
        self.cipher = cipher

    # ------------------------------------------------------------------------------------------------ in

    def sealed(self, batch: Batch) -> Batch:
        """The batch with its content encrypted."""
        return msgspec.structs.replace(
            batch,
            new_instances=self.seal("instances", batch.new_instances),
            history=self.seal("history", batch.history),
            bodies=self.seal("payloads", batch.bodies),
            custom_status=self._sealed(batch.custom_status, (_STATE["custom_status"],)),
            entity_states=self._sealed(batch.entity_states, (_STATE["entity_state"],)),
            waits_opened=self.seal("waits", batch.waits_opened),
            task_updates=self._sealed(batch.task_updates, (_TASK_UPDATE,)),
            inbox_added=self.seal("inbox", batch.inbox_added),
            seen=self.seal("seen", batch.seen),
            dropped=self.seal("dropped", batch.dropped),
            keys=self.seal("keys", batch.keys),
            activities_placed=self.seal("activities", batch.activities_placed),
            results=[row._replace(message=self._sealed_result(row)) for row in batch.results],
        )

    def seal(self, table: str, rows: Sequence[Any]) -> list[Any]:
        """Rows of a table, in the order of its columns, with their content encrypted."""
        return self._sealed(rows, _OF[table])

    def seal_cell(self, spot: Spot, plain: bytes, row: Row) -> bytes:
        assert self.cipher is not None
        return self.cipher.encrypt(plain, self._bound(spot, row))

    def _sealed(self, rows: Sequence[Any], spots: tuple[Spot, ...]) -> list[Any]:
        return [self._mapped(row, spots, self.seal_cell) for row in rows]

    def _sealed_result(self, row: ResultRow) -> bytes:
        """Encrypt a result like the message that it becomes."""
        [spot] = _OF["inbox"]
        return self.seal_cell(spot, row.message, (row.message_no, row.instance_id))

    # ----------------------------------------------------------------------------------------------- out

    def open(self, table: str, rows: Iterable[Any]) -> list[Any]:
        """Rows with their content decrypted; undecryptable content becomes `Unreadable`."""
        return [self._mapped(row, _OF[table], self.open_cell) for row in rows]

    def open_state(self, column: str, rows: Iterable[Any]) -> list[Any]:
        """Pairs of instance_no and custom_status, or entity_state."""
        return [self._mapped(row, (_STATE[column],), self.open_cell) for row in rows]

    def open_cell(self, spot: Spot, stored: bytes, row: Row) -> bytes:
        if not is_encrypted(stored) and (spot.is_random or may_be_plain(stored)):
            return stored
        try:
            if self.cipher is None:
                raise KeyError("")
            return self.cipher.decrypt(stored, self._bound(spot, row))
        except KeyError as unknown:
            which = f"the key {unknown.args[0]!r}, which is missing" if unknown.args[0] else "a key"
            why = f"is encrypted with {which}: set PERDURE_ENCRYPTION_KEYS"
            return Unreadable.of(stored, ENCRYPTED, f"{self._place(spot, row)} {why}")
        except ValueError:
            why = "cannot be decrypted: the row was changed, or its bytes belong to another row. Restore a backup"
            return Unreadable.of(stored, DAMAGED, f"{self._place(spot, row)} {why}")

    # -------------------------------------------------------------------------------------------- proofs

    def proof(self) -> bytes:
        """A stored proof by which a later check recognizes the key."""
        assert self.cipher is not None
        return self.cipher.encrypt(b"", self._proof_bound(self.cipher.current))

    def check(self, proofs: Iterable[tuple[str, bytes]], *, demand_all: bool, where: str) -> None:
        """Raise WrongEncryptionKey if a key differs from the store's, or, with `demand_all`, if one is missing."""
        for key_id, proof in proofs:
            try:
                if self.cipher is None:
                    raise KeyError(key_id)
                self.cipher.decrypt(proof, self._proof_bound(key_id))
            except KeyError:
                if demand_all:
                    raise WrongEncryptionKey(
                        f"hub {self.hub!r} of {where} has content encrypted with the key {key_id!r}, which is "
                        "missing: add it to PERDURE_ENCRYPTION_KEYS, after the current key. Nothing was "
                        "changed"
                    ) from None
            except ValueError:
                raise WrongEncryptionKey(
                    f"the key {key_id!r} is not the key that encrypted hub {self.hub!r} of {where}: use that "
                    "key, or give the new key another id. Nothing was changed"
                ) from None

    # ------------------------------------------------------------------------------------------- inside

    def _mapped(self, row: Any, spots: tuple[Spot, ...], change: Any) -> Any:
        cells = list(row)
        for spot in spots:
            if cells[spot.at] is not None:
                cells[spot.at] = change(spot, cells[spot.at], row)
        make = getattr(type(row), "_make", tuple)
        return make(cells)

    def _bound(self, spot: Spot, row: Row) -> bytes:
        return _encode((self.hub, spot.name, *[row[at] for at in spot.key_at]))

    def _proof_bound(self, key_id: str) -> bytes:
        return _encode((self.hub, "proof", key_id))

    def _place(self, spot: Spot, row: Row) -> str:
        named = ", ".join(f"{name} {row[at]}" for name, at in zip(spot.key, spot.key_at, strict=True))
        return f"{spot.name} of {named}"


def opened(vault: Vault | None, table: str, rows: list[Any]) -> list[Any]:
    """The rows, decrypted if there is a vault."""
    return rows if vault is None else vault.open(table, rows)


def demand_readable(rows: Iterable[Row]) -> None:
    """Raise DecryptionFailed for the first cell that could not be decrypted."""
    for row in rows:
        for cell in row:
            if isinstance(cell, Unreadable):
                raise DecryptionFailed(cell.why)


__all__ = ["PLACED", "SPOTS", "Spot", "Vault", "demand_readable", "opened"]
