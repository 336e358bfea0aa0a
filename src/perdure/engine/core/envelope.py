"""An envelope: a message with its circumstances. Inside the engine messages travel in these."""

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
    """Who waits for an answer is a client of another worker: it is kept for it under this id."""

    request_id: str
    asker: int  # incarnation
    asked_at: int


class Envelope(msgspec.Struct, eq=False):
    """A message, who waits for its answer (`reply`: a future, or `Elsewhere`), and its inbox row (0 for none).

    `internal` marks a message born in the present batch, `counted` one that the batch knows as an input,
    `held` one that waits for its instance to be resumed, `hidden` one whose row no poll shows: it was held when
    the row was committed, and comes with its instance whenever that is loaded. `note` says who sent it.
    `stored_as` is the row it came from if the present batch gives it another; `waits` says that it stands in line,
    `came_at` when it came, if it is no row. `kept` marks what parked its instance because it was accepted under other
    code and fits no more. `reading` is an event's body as the door has decoded it. A struct is made faster than an
    object with slots, and the collector passes over it: one step may make a hundred thousand.
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
    """Stored messages. One that cannot be read stays in the inbox and stops no other; `unread` is told why."""
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
    """The id under which the answer is kept for a repeat; only a request that a client waits for has one."""
    return id_in(envelope.message) if envelope.reply is not None else ""


def acceptance_of(envelope: Envelope) -> Any:
    """What a client is told when its message is kept for later."""
    return envelope.message.instance_id if isinstance(envelope.message, Start) else None
