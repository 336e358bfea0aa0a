"""Messages for instances that another worker owns: each becomes a row, or what the row would be is there already.

Nothing of such an instance is fed or written here, but for one thing: whoever accepts a start takes the id, with
the instance's first row, so that a start is durable and its answer known although no owner has looked at it yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.engine.cluster import pending_requests
from perdure.model.messages import ActivityResult, Message, Start, Wake, accepted, encode_message
from perdure.model.records import ResultRow

if TYPE_CHECKING:
    from perdure.engine.core.dispatcher import Hub
    from perdure.engine.core.envelope import Envelope


def is_passed_on(hub: Hub, envelope: Envelope) -> bool:
    """Deal with a message for an instance of another worker's; false for what is handled here all the same."""
    message = envelope.message
    if isinstance(message, Start) and envelope.reply is not None and not envelope.row_no:
        return False
    if envelope.row_no or isinstance(message, Wake):
        return True  # the owner finds the row, and knows its own timers
    if envelope.internal:
        hub.store_message(message, hub.at_once)
    elif isinstance(message, ActivityResult):
        _hand_in(hub, message)
    elif envelope.reply is not None:
        pending_requests.ask(hub, envelope)
    return True


def _hand_in(hub: Hub, message: ActivityResult) -> None:
    """The result of an activity that was claimed here: it counts if the claim still holds."""
    claim = hub.placement.claim_of(message) if hub.placement is not None else None
    if (
        claim is None
    ):  # it was this worker's own until it lost the instance, and runs again at the new owner's
        hub.counters["stale_results"] += 1
        return
    hub.rows.results.append(
        ResultRow(
            message.instance_id,
            message.execution_id,
            message.task_id,
            claim,
            hub.message_numbers.take(),
            encode_message(accepted(message, hub.now)),
        )
    )
    hint(hub, message)


def hint(hub: Hub, message: Message) -> None:
    """After the commit, tell the owner that there is something in its inbox."""
    territory = hub.territory
    if territory is not None:
        owner = territory.owner_of(message.instance_id)
        if owner is not None:
            hub.released.hints.add(owner)


__all__ = ["hint", "is_passed_on"]
