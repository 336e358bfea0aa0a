"""The live state of an entity: its state, its lock, and notes for its history.

The waiting messages are in `Instance.held`, in their order; they are inbox rows that polls skip. All state here
is in the entity's record or can be derived from it and the waiting messages.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from msgspec import Raw

from perdure.model import events as ev
from perdure.model.entities import Caller, EntityRecord, decode_record, encode_record
from perdure.model.instances import execution_id_of

NAMED = 100  # entries of one history row; further ones are only counted


class Salted(Protocol):
    """An instance or its row, with the salt."""

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
        self.flying = False  # one of its operations runs outside the loop
        self.senders: Counter[str] | None = None  # waiting messages by sender, None until counted
        self.probed_at = 0
        self._saved = stored
        self._log: dict[tuple[str, str], list[Any]] = {}

    @property
    def is_empty(self) -> bool:
        """Whether the entity has neither state nor lock."""
        return not bytes(self.state) and self.lock is None

    def note(self, operation: str, sender: str, failure: str) -> None:
        """Record an operation for the history row of this batch."""
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
        """Remove and return the recorded operations."""
        log, self._log = self._log, {}
        return [
            ev.EntityOperated(operation=operation, sender=sender, count=count, failed=failed, failure=failure)
            for (operation, sender), (count, failed, failure) in log.items()
        ]

    def changed(self) -> bytes | None:
        """The record to write, or None if it has not changed."""
        record = encode_record(EntityRecord(self.state, self.lock, self.applied))
        if record == self._saved:
            return None
        self._saved = record
        return record


def flight_of(instance: Salted, entity_state: LiveEntity) -> tuple[str, int]:
    """The execution and task id of the operation that is due: stable until it is applied, then never reused."""
    return execution_id_of(instance.salt, 0), entity_state.applied
