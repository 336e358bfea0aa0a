"""What encrypting a hub again comes to, and what becomes of messages that cannot be decrypted, on any database."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from perdure.model.encryption import Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger("perdure.store")


@dataclass
class Rekeyed:
    """What encrypting again came to. `unreadable` are sentences; while there are any, old keys are still needed."""

    rows: dict[str, int] = field(default_factory=dict)  # by table
    plain: int = 0  # of those, what had not been encrypted before
    unreadable: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.rows.values())


@runtime_checkable
class Encrypting(Protocol):
    """What a store needs beyond `Store` to be encrypted again. Opened before; for one thread."""

    def rekey(self, progress: Callable[[str, int, int], object] = ...) -> Rekeyed:
        """Encrypt with the current key what is not yet, a page a transaction."""

    def vacuum(self) -> None:
        """Write anew what may still hold, in free space, what was deleted or replaced."""


def readable_messages(rows: Iterable[Any], told: set[int]) -> list[Any]:
    """The messages but for those that cannot be decrypted: they stay where they are, and the log tells, once."""
    found = []
    for row in rows:
        if not isinstance(row[3], Unreadable):
            found.append(row)
        elif row[0] not in told:
            told.add(row[0])
            log.error("a message to instance %r is left in the inbox: %s", row[1], row[3].why)
    return found


__all__ = ["Encrypting", "Rekeyed", "readable_messages"]
