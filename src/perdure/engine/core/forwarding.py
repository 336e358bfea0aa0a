"""Forwarding: stores messages for instances of another worker as rows for their owner.

This worker neither runs nor writes such an instance, with one exception: the worker that accepts a start takes
the id, with the instance's first row, so that the start is durable and its answer known before the owner
processes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from perdure.engine.core.ports import OWNER_ANSWERS_WITHIN, Asked
from perdure.model.messages import ActivityResult, Request, Start, Wake, accepted, encode_message
from perdure.model.records import ResultRow

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.envelope import Envelope


def is_passed_on(batch: OpenBatch, envelope: Envelope) -> bool:
    """Forward a message for another worker's instance; False for a message that this worker handles itself."""
    message = envelope.message
    if isinstance(message, Start) and envelope.reply is not None and not envelope.row_no:
        return False
    if envelope.row_no or isinstance(message, Wake):
        return True  # the owner finds the row, and knows its own timers
    if envelope.internal:
        batch.store_message(message, batch.at_once)
    elif isinstance(message, ActivityResult):
        _hand_in(batch, message)
    elif envelope.reply is not None:
        ask(batch, envelope)
    return True


def _hand_in(batch: OpenBatch, message: ActivityResult) -> None:
    """Store the result of an activity claimed here; it counts if the claim is still valid."""
    claim = batch.placement.claim_of(message) if batch.placement is not None else None
    if claim is None:  # this worker owned the instance before; the activity runs again at the new owner
        batch.counters["stale_results"] += 1
        return
    batch.rows.results.append(
        ResultRow(
            message.instance_id,
            message.execution_id,
            message.task_id,
            claim,
            batch.message_numbers.take(),
            encode_message(accepted(message, batch.now)),
        )
    )
    batch.hint(message)


def ask(batch: OpenBatch, envelope: Envelope) -> None:
    """Put the client's message into the owner's inbox; the request is open once the row is durable."""
    territory = batch.territory
    assert territory is not None
    message, note = envelope.message, envelope.note
    request_id = f"request-{batch.random.salt().hex()}"
    batch.store_message(
        Request(
            instance_id=message.instance_id,
            request_id=request_id,
            body=Raw(encode_message(accepted(message, batch.now))),
            asked_at=batch.now,
            asker=territory.incarnation,
            note=(note.who, note.address, note.operation, note.detail) if note is not None else None,
        ),
        batch.at_once,
    )
    batch.released.asked.append(Asked(request_id, message, envelope.reply, batch.now + OWNER_ANSWERS_WITHIN))


__all__ = ["ask", "is_passed_on"]
