"""Wide steps: the messages of a step that sends more than one batch can process.

A step may call a hundred thousand sub-orchestrations or entity operations. A row for each message would make one
commit long, and every other client would wait for it. Therefore the messages are divided into parts, and each
part is one row, a message from the sender to itself. A part is sent when its turn comes: its messages are then
handled as if the step had sent them in that batch, and the same commit consumes the part. So a crash neither
loses nor repeats a message.

The parts come first in the sender's line. All later messages to the sender wait behind them, so its code does not
run, and sends nothing, before the last part is sent: the messages keep their order. The same holds after a
restart, when rows are read in the order of their numbers: each part reserves a number for every message in it,
below its own number and above the part before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perdure.engine.core.envelope import Envelope
from perdure.model.messages import Message, Outgoing, Wake, accepted, pack, unpack

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.instance import Instance

PARTS_IN_BATCH: Final = 4  # parts whose messages fill a batch
LARGEST: Final = 1_000  # messages of a part, whatever the limits


def divide(batch: OpenBatch, sender: str, count: int) -> None:
    """Put the last `count` messages of the batch, all sent in one step, into parts in front of the sender's line."""
    messages = _take_back(batch, count)
    size = min(max(1, batch.limits.episodes // PARTS_IN_BATCH), LARGEST)
    parts = []
    for at in range(0, len(messages), size):
        parts.append(_part(batch, sender, messages[at : at + size]))
        batch.pause()
    behind = [one for one in batch.deferred if one.message.instance_id == sender]  # its next execution
    if behind:
        batch.deferred[:] = [one for one in batch.deferred if one.message.instance_id != sender]
    for envelope in reversed([*parts, *behind]):
        batch.lines.put_first(envelope)


def send_on(batch: OpenBatch, instance: Instance | None, envelope: Envelope, message: Outgoing) -> None:
    """Send the messages of a part, whatever has become of the sender, once the batch has handled the part before."""
    if batch.backlog and batch.handled < batch.next_part_at:
        batch.lines.put_first(envelope)
        return
    batch.consume(envelope)
    batch.next_part_at = batch.handled + message.count
    first = (envelope.row_no or envelope.place) - message.count
    sent = [Envelope(one, internal=True, place=place) for place, one in enumerate(unpack(message), first)]
    if message.instance_id in batch.quarantine:  # each on its own: one of them may be what the store rejects
        batch.deferred.extend(sent)
    else:
        batch.backlog.extend(sent)


def _take_back(batch: OpenBatch, count: int) -> list[Message]:
    """Remove the last messages of the backlog. Wakes stay, because they are never stored."""
    taken = [batch.backlog.pop() for _ in range(count)]
    taken.reverse()
    batch.backlog.extend(one for one in taken if isinstance(one.message, Wake))
    return [one.message for one in taken if not isinstance(one.message, Wake)]


def _part(batch: OpenBatch, sender: str, messages: list[Message]) -> Envelope:
    part = pack(sender, [accepted(one, batch.now) for one in messages])
    return Envelope(part, internal=True, place=batch.message_numbers.reserve(part.count + 1))


__all__ = ["divide", "send_on"]
