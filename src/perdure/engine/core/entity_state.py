"""An entity at hand: its state, who has it locked, and what is noted for its history.

What waits for it stands in `Instance.held`, in the order in which it is to be done; those are inbox rows that no
poll shows. Everything here is either in the entity's record or can be told from it and from what waits.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from msgspec import Raw

from perdure.model import events as ev
from perdure.model.entities import Caller, EntityRecord, decode_record, encode_record
from perdure.model.instances import execution_id_of

NAMED = 100  # entries of one history row; what goes beyond is counted together


class Salted(Protocol):
    """An instance, or its row, by what it was born with."""

    @property
    def salt(self) -> bytes: ...


class LiveEntity:
    """The part of an instance that only an entity has."""

    __slots__ = ("_log", "_saved", "applied", "flying", "live", "lock", "probed_at", "senders", "state")

    def __init__(self, stored: bytes | None = None) -> None:
        record = decode_record(stored)
        self.state: Raw = record.state
        self.lock: Caller | None = record.lock
        self.applied = record.applied
        self.live: Any = None
        self.flying = False  # an operation of it runs outside the loop
        self.senders: Counter[str] | None = None  # how much of what waits is whose, once somebody has counted
        self.probed_at = 0
        self._saved = stored
        self._log: dict[tuple[str, str], list[Any]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing has to be kept: no state, no lock."""
        return not bytes(self.state) and self.lock is None

    def note(self, operation: str, sender: str, failure: str) -> None:
        """An operation was done, for the history row of this batch."""
        key = (operation, sender)
        entry = self._log.get(key)
        if entry is None:
            if len(self._log) >= NAMED:
                key = ("(others)", "")
            entry = self._log.setdefault(key, [0, 0, ""])
        entry[0] += 1
        if failure:
            entry[1] += 1
            entry[2] = failure

    def take_log(self) -> list[ev.EntityOperated]:
        """What was noted since the last time."""
        log, self._log = self._log, {}
        return [
            ev.EntityOperated(operation=operation, sender=sender, count=count, failed=failed, failure=failure)
            for (operation, sender), (count, failed, failure) in log.items()
        ]

    def changed(self) -> bytes | None:
        """The record to be written, or None when it is as it was written last."""
        record = encode_record(EntityRecord(self.state, self.lock, self.applied))
        if record == self._saved:
            return None
        self._saved = record
        return record


def flight_of(instance: Salted, entity_state: LiveEntity) -> tuple[str, int]:
    """The name of the operation that is due: the same until it has been applied, then never again."""
    return execution_id_of(instance.salt, 0), entity_state.applied
