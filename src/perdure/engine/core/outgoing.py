"""Wide steps: the messages of a step that sends more than one batch can process.

A step may call a hundred thousand sub-orchestrations or entity operations. A row for each message would make one
commit long, and every other client would wait for it. Therefore the messages are divided into parts, and each
part is one row, a message from the sender to itself. A part is sent when its turn comes: its messages are then
handled as if the step had sent them in that batch, and the same commit consumes the part. So a crash neither
loses nor repeats a message.

The parts come first in the sender's line. All later messages to the sender wait behind them, so its code does not
run, and sends nothing, before the last part is sent: the messages keep their order. The same holds after a
restart, when rows are read in the order of their numbers. Each part reserves a number for every message in it,
below its own number and above the part before it. Messages that the batch has sent before the step, and may have
to store, get lower numbers. A message that waited for the sender before the step has a lower number than the
parts: therefore `parts_first` puts the parts in front when rows are read.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final

from perdure.engine.core.envelope import Envelope
from perdure.model.messages import Message, Outgoing, Wake, accepted, pack, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.instance import Instance

PARTS_IN_BATCH: Final = 4  # parts whose messages fill a batch
LARGEST: Final = 1_000  # messages of a part, whatever the limits


def divide(batch: OpenBatch, sender: str, count: int) -> None:
    """Put the last `count` messages of the batch, all sent in one step, into parts in front of the sender's line."""
    messages = _take_back(batch, count)
    behind = [one for one in batch.deferred if one.message.instance_id == sender]  # its next execution
    if behind:
        batch.deferred[:] = [one for one in batch.deferred if one.message.instance_id != sender]
    _number_earlier(batch)
    size = min(max(1, batch.limits.episodes // PARTS_IN_BATCH), LARGEST)
    parts = []
    for at in range(0, len(messages), size):
        parts.append(_part(batch, sender, messages[at : at + size]))
        batch.pause()
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


def parts_first(envelopes: Iterable[Envelope]) -> list[Envelope]:
    """The messages of some rows, in the order in which they are handled: parts come before what waits behind them."""
    return sorted(envelopes, key=_is_no_part)


def _is_no_part(envelope: Envelope) -> bool:
    return type(envelope.message) is not Outgoing


def _number_earlier(batch: OpenBatch) -> None:
    """Reserve the numbers of messages that were sent before the step and are not handled yet, in their order."""
    aside = chain.from_iterable(batch.aside.values())
    for envelope in chain(batch.deferred, aside, batch.lines.recent, batch.backlog):
        is_sent_here = envelope.internal and not isinstance(envelope.message, Wake)
        if is_sent_here and not envelope.row_no and not envelope.place:
            envelope.place = batch.message_numbers.take()


def _take_back(batch: OpenBatch, count: int) -> list[Message]:
    """Remove the last messages of the backlog. Wakes stay, because they are never stored."""
    taken = [batch.backlog.pop() for _ in range(count)]
    taken.reverse()
    batch.backlog.extend(one for one in taken if isinstance(one.message, Wake))
    return [one.message for one in taken if not isinstance(one.message, Wake)]


def _part(batch: OpenBatch, sender: str, messages: list[Message]) -> Envelope:
    part = pack(sender, [accepted(one, batch.now) for one in messages])
    return Envelope(part, internal=True, place=batch.message_numbers.reserve(part.count + 1))


__all__ = ["divide", "parts_first", "send_on"]
