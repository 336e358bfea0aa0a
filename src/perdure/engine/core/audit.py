"""Audit notes: the caller of each operation, written in the transaction of the operation.

A host that knows its caller sets `NOTE` to an `AuditNote` while it handles the request. Every message that the
request sends carries the note. When the hub answers the message with success, the note becomes a row of the
audit log in the same batch: a durable operation has its row, a failed one has none. An event without a message
(a key, a rejection, a query) travels as an `AuditMemo`, which the next batch writes, so that it costs no commit
of its own on a busy hub.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from perdure.model.messages import MoveTask
from perdure.model.records import AuditRow, Batch, KeyRow, SeenRow

if TYPE_CHECKING:
    from perdure.model.messages import Message

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
SHORT, LONG = 200, 1_000  # maximal characters of a name, and of an id or a detail


@dataclass(slots=True)
class AuditNote:
    """The caller of the current request. `is_taken` means that a message carries the note.

    Without an `operation` the entry has the name of the message. A verb that is more than its message sets its
    name with `noted_as`, the same for every interface.
    """

    who: str
    address: str
    operation: str = ""
    detail: str = ""
    is_taken: bool = False

    def about(self, message: Message) -> AuditNote:
        """The note for one message."""
        self.is_taken = True
        if self.operation:
            return self
        kind = f"{message.verb}_task" if isinstance(message, MoveTask) else type(message).__name__
        return replace(self, operation=_CAPITAL.sub("_", kind).lower())

    def row(self, at: int, instance_id: str, outcome: str = "ok") -> AuditRow:
        """The note as a row of the audit log."""
        return AuditRow(
            at,
            clean(self.who, SHORT),
            clean(self.address, SHORT),
            self.operation,
            clean(instance_id, LONG),
            clean(self.detail, LONG),
            outcome,
        )


NOTE: ContextVar[AuditNote | None] = ContextVar("perdure_note", default=None)


def noted_as(operation: str, about: str, reason: str = "") -> None:
    """Name the current request after its verb, where its message says less."""
    note = NOTE.get()
    if note is not None:
        note.operation = operation
        note.detail = f"{about}: {reason}" if about and reason else about or reason


def clean(text: str, limit: int) -> str:
    """Untrusted text made safe for a database, a log and a terminal: printable and limited in length."""
    kept = text[:limit]
    if kept.isprintable():
        return kept
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in kept)


@dataclass(slots=True)
class AuditMemo:
    """Rows for the next batch. `reply`, a future, is resolved once they are durable.

    A row of `seen` whose id exists is skipped: the first row counts.
    """

    keys: list[KeyRow] = field(default_factory=list)
    keys_used: list[tuple[str, int]] = field(default_factory=list)
    audit: list[AuditRow] = field(default_factory=list)
    seen: list[SeenRow] = field(default_factory=list)
    reply: Any = None


class AuditMemos:
    """Memos that wait for a batch: any thread adds them, the loop's thread writes them.

    Memos of a failed commit return to the queue for the next one. `waiting` and `in_hand` are for looking only.
    """

    def __init__(self) -> None:
        self.waiting: deque[AuditMemo] = deque()
        self.in_hand: list[AuditMemo] = []

    def __bool__(self) -> bool:
        return bool(self.waiting or self.in_hand)

    def put(self, memo: AuditMemo) -> None:
        self.waiting.append(memo)

    def take_back(self) -> None:
        """Return the memos of a failed commit to the queue."""
        self.waiting.extendleft(reversed(self.in_hand))
        self.in_hand = []

    def write_into(self, batch: Batch, seen: Callable[[list[str]], list[SeenRow]]) -> None:
        """Add the rows of all waiting memos; `seen` finds existing answers."""
        while self.waiting:
            self.in_hand.append(self.waiting.popleft())
        for memo in self.in_hand:
            batch.keys.extend(memo.keys)
            batch.keys_used.extend(memo.keys_used)
            batch.audit.extend(memo.audit)
        new = {row.operation_id: row for memo in self.in_hand for row in memo.seen}
        if new:
            known = {row.operation_id for row in seen(list(new))}
            batch.seen.extend(row for name, row in new.items() if name not in known)

    def committed(self) -> Iterable[tuple[Any, Any]]:
        """The (future, result) pairs of the committed memos."""
        done, self.in_hand = self.in_hand, []
        return [(memo.reply, None) for memo in done if memo.reply is not None]

    def waiting_for(self) -> list[Any]:
        """The futures of all memos."""
        return [memo.reply for memo in (*self.in_hand, *self.waiting) if memo.reply is not None]

    def refused(self, error: Exception) -> Iterable[tuple[Any, Any]]:
        """The (future, error) pairs of all memos, which will not be written."""
        left = [*self.in_hand, *self.waiting]
        self.in_hand = []
        self.waiting.clear()
        return [(memo.reply, error) for memo in left if memo.reply is not None]


__all__ = ["NOTE", "AuditMemo", "AuditMemos", "AuditNote", "clean", "noted_as"]
