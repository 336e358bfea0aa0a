"""The envelope: a message with its context, in which messages travel inside the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from perdure.engine.core.audit import AuditNote
from perdure.engine.core.repeats import id_in
from perdure.model.messages import Message, Request, Start, decode_message
from perdure.model.readings import Reading
from perdure.model.records import InboxRow


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The reply address of a client of another worker: the answer is stored under this id."""

    request_id: str
    asker: int  # incarnation
    asked_at: int


class Envelope(msgspec.Struct, eq=False):
    """A message, its reply address (`reply`: a future, or `Elsewhere`), and its inbox row (0 for none).

    `internal` marks a message created in the current batch, `counted` an input of the batch, `held` a message
    that waits for its instance to be resumed, `hidden` one whose row polls skip: it was held when the row was
    committed, and is loaded with its instance. `note` is the sender, for the audit log. `stored_as` is the
    original row if the current batch gives the message another; `waits` marks a message in a line, `came_at` is
    its time of arrival if it has no row. `kept` marks a message that parked its instance, because it was
    accepted under other code and no longer fits. `reading` is the decoded body of an event. A struct is created
    faster than an object with slots, and the garbage collector skips it: one step may create a hundred
    thousand.
    """

    message: Message
    reply: Any = None
    row_no: int = 0
    internal: bool = False
    counted: bool = False
    held: bool = False
    hidden: bool = False
    kept: bool = False
    note: AuditNote | None = None
    stored_as: int = 0
    waits: bool = False
    came_at: int = 0
    reading: Reading | None = None


def envelopes_of(rows: Iterable[InboxRow], unread: list[str]) -> Iterator[Envelope]:
    """Stored messages. An unreadable message stays in the inbox without blocking others; the reason is added to
    `unread`.
    """
    for row in rows:
        try:
            envelope = _envelope_of(decode_message(row.message), row.message_no)
        except msgspec.MsgspecError as error:
            unread.append(f"message {row.message_no} for {row.instance_id} cannot be read: {error}")
            continue
        envelope.hidden = row.visible_at is None
        yield envelope


def _envelope_of(message: Message, row_no: int) -> Envelope:
    if not isinstance(message, Request):
        return Envelope(message, None, row_no)
    reply = Elsewhere(message.request_id, message.asker, message.asked_at)
    note = AuditNote(*message.note, is_taken=True) if message.note is not None else None
    return Envelope(decode_message(message.body), reply, row_no, note=note)


def operation_of(envelope: Envelope) -> str:
    """The id under which the answer is kept for a repeat; only a request with a waiting client has one."""
    return id_in(envelope.message) if envelope.reply is not None else ""


def acceptance_of(envelope: Envelope) -> Any:
    """The answer to a client whose message is kept for later."""
    return envelope.message.instance_id if isinstance(envelope.message, Start) else None
