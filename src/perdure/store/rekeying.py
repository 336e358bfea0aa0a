"""Rekeying on any database, and messages that cannot be decrypted."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from perdure.model.encryption import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perdure.model.encryption import Cipher
    from perdure.store.column_encryption import Spot, Vault

PAGE: Final = 256  # rows; fewer where they may be large
log = logging.getLogger("perdure.store")


@dataclass
class Rekeyed:
    """The result of a rekey. `unreadable` are sentences; while there are any, old keys are still needed."""

    rows: dict[str, int] = field(default_factory=dict)  # by table
    plain: int = 0  # of those, cells that were not encrypted before
    unreadable: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.rows.values())


@runtime_checkable
class Encrypting(Protocol):
    """A store that supports rekeying. It must be open; for one thread."""

    def rekey(self, progress: Callable[[str, int, int], object] = ...) -> Rekeyed:
        """Encrypt with the current key all other cells, a page per transaction."""

    def vacuum(self) -> None:
        """Rewrite the files, whose free space may still contain deleted or replaced content."""


class RekeyingRun(ABC):
    """One run over a hub that this process has open for writing, one page per transaction.

    A page selects rows without the prefix of the current key. After an interruption the next run continues
    where this one stopped.
    """

    def __init__(self, vault: Vault, spots: Sequence[Spot]) -> None:
        assert vault.cipher is not None
        self._vault, self._spots = vault, spots
        self._cipher: Cipher = vault.cipher
        self._done = Rekeyed()

    def run(self, progress: Callable[[str, int, int], object]) -> Rekeyed:
        """Raises the errors of a commit. Earlier pages stay encrypted."""
        for spot in self._spots:
            total, done = self._count(spot), 0
            seen, after = self._page(spot, ())
            while seen:
                done += seen
                progress(spot.name, min(done, total), total)
                seen, after = self._page(spot, after)
        if not self._done.unreadable:
            self._forget_other_keys()
        return self._done

    def _sealed_again(self, spot: Spot, row: tuple[Any, ...]) -> bytes | None:
        """The cell under the current key; None if it cannot be decrypted."""
        stored = row[spot.at]
        plain = self._vault.open_cell(spot, stored, row)
        if isinstance(plain, Unreadable):
            self._done.unreadable.append(plain.why)
            return None
        self._done.plain += plain is stored
        self._done.rows[spot.table] = self._done.rows.get(spot.table, 0) + 1
        return self._vault.seal_cell(spot, plain, row)

    @abstractmethod
    def _count(self, spot: Spot) -> int:
        """The number of cells not encrypted with the current key."""

    @abstractmethod
    def _page(self, spot: Spot, after: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        """Encrypt a page of cells after a key. Returns the number of cells read, and the last key."""

    @abstractmethod
    def _forget_other_keys(self) -> None: ...


def readable_messages(rows: Iterable[Any], told: set[int]) -> list[Any]:
    """The messages without undecryptable ones, which stay in the inbox and are logged once."""
    found = []
    for row in rows:
        if not isinstance(row[3], Unreadable):
            found.append(row)
        elif row[0] not in told:
            told.add(row[0])
            log.error("a message to instance %r stays in the inbox: %s", row[1], row[3].why)
    return found


__all__ = ["PAGE", "Encrypting", "Rekeyed", "RekeyingRun", "readable_messages"]
