"""Notes: who asked for what, written in the transaction that does it.

A host that knows its caller puts a `AuditNote` into `NOTE` for as long as it handles the request. Every message the
request sends then carries it, and when the hub answers that message with success, the note becomes a row of
the audit log in the same batch: an operation that is durable has its row, and one that is not has none.
What has no message (a key, a refusal, a question) travels as a `AuditMemo`, written beside whatever batch comes next,
so that it costs no commit of its own while the hub is busy.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from perdure.model.records import AuditRow, Batch, KeyRow, SeenRow

if TYPE_CHECKING:
    from perdure.model.messages import Message

_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
SHORT, LONG = 200, 1_000  # characters kept of a name, and of an id or a detail


@dataclass(slots=True)
class AuditNote:
    """The caller of the request in hand. `is_taken` tells that a message carries it.

    Without an `operation` it is called what the message is. A verb that is more than its message says so with
    `noted_as`, and is then called the same by whatever door it came.
    """

    who: str
    address: str
    operation: str = ""
    detail: str = ""
    is_taken: bool = False

    def about(self, message: Message) -> AuditNote:
        """The note that goes with a message."""
        self.is_taken = True
        kind = type(message).__name__
        return self if self.operation else replace(self, operation=_CAPITAL.sub("_", kind).lower())

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
    """Call the request in hand what its verb is called, where the message that it sends would tell less."""
    note = NOTE.get()
    if note is not None:
        note.operation = operation
        note.detail = f"{about}: {reason}" if about and reason else about or reason


def clean(text: str, limit: int) -> str:
    """Text of a stranger's that a database, a log and a terminal can take: printable, and not too long."""
    kept = text[:limit]
    if kept.isprintable():
        return kept
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in kept)


@dataclass(slots=True)
class AuditMemo:
    """Rows for the next batch. `reply`, a future, is resolved once they are durable.

    Of `seen`, a row whose id is kept already is left out: the first counts.
    """

    keys: list[KeyRow] = field(default_factory=list)
    keys_used: list[tuple[str, int]] = field(default_factory=list)
    audit: list[AuditRow] = field(default_factory=list)
    seen: list[SeenRow] = field(default_factory=list)
    reply: Any = None


class AuditMemos:
    """Memos on their way into a batch: put by any thread, taken by the loop's.

    Those in hand when a commit fails are taken back, and go into the next one.
    """

    def __init__(self) -> None:
        self._waiting: deque[AuditMemo] = deque()
        self._in_hand: list[AuditMemo] = []

    def __bool__(self) -> bool:
        return bool(self._waiting or self._in_hand)

    def put(self, memo: AuditMemo) -> None:
        self._waiting.append(memo)

    def take_back(self) -> None:
        """What is in hand was not committed: it waits again."""
        self._waiting.extendleft(reversed(self._in_hand))
        self._in_hand = []

    def write_into(self, batch: Batch, seen: Callable[[list[str]], list[SeenRow]]) -> None:
        """Add the rows of all that waits; `seen` finds answers that are kept already."""
        while self._waiting:
            self._in_hand.append(self._waiting.popleft())
        for memo in self._in_hand:
            batch.keys.extend(memo.keys)
            batch.keys_used.extend(memo.keys_used)
            batch.audit.extend(memo.audit)
        new = {row.operation_id: row for memo in self._in_hand for row in memo.seen}
        if new:
            known = {row.operation_id for row in seen(list(new))}
            batch.seen.extend(row for name, row in new.items() if name not in known)

    def committed(self) -> Iterable[tuple[Any, Any]]:
        """The batch is durable: whom to tell."""
        done, self._in_hand = self._in_hand, []
        return [(memo.reply, None) for memo in done if memo.reply is not None]

    def waiting_for(self) -> list[Any]:
        """Whoever waits for one to be written."""
        return [memo.reply for memo in (*self._in_hand, *self._waiting) if memo.reply is not None]

    def refused(self, error: Exception) -> Iterable[tuple[Any, Any]]:
        """They will not be written: whom to tell."""
        left = [*self._in_hand, *self._waiting]
        self._in_hand = []
        self._waiting.clear()
        return [(memo.reply, error) for memo in left if memo.reply is not None]


__all__ = ["NOTE", "AuditMemo", "AuditMemos", "AuditNote", "clean", "noted_as"]
