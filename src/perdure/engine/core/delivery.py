"""Delivery of a message to its instance: one function for each kind, chosen by a table.

Each function leaves the message in exactly one place: consumed (answered, processed, dropped with a record),
held until the instance is resumed, or postponed to the next batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.core import arrivals, control, damaged, entities, rewinding, starts, tasks
from perdure.model import messages as msg

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.envelope import Envelope
    from perdure.engine.core.instance import Instance

_HANDLERS: Final[dict[type, Callable[[OpenBatch, Any, Envelope, Any], None]]] = {
    msg.Start: starts.start,
    msg.Begin: starts.begin_later,
    msg.NextGeneration: starts.next_generation,
    msg.RaiseEvent: arrivals.raise_event,
    msg.CompleteTask: tasks.complete,
    msg.MoveTask: tasks.move,
    msg.ActivityResult: arrivals.activity_result,
    msg.ChildResult: arrivals.child_result,
    msg.Wake: arrivals.wake,
    msg.EntityOperation: entities.arrive,
    msg.LockRequest: entities.arrive,
    msg.LockRelease: entities.arrive,
    msg.EntityResult: arrivals.entity_result,
    msg.LockGrant: arrivals.lock_granted,
    msg.LockProbe: arrivals.lock_probed,
    msg.Suspend: control.suspend,
    msg.Resume: control.resume,
    msg.Terminate: control.terminate,
    msg.Rewind: rewinding.rewind,
    msg.Purge: control.purge,
}


def deliver(batch: OpenBatch, instance: Instance | None, envelope: Envelope) -> None:
    """Deliver one message to its instance, which is None if it does not exist."""
    message = envelope.message
    kind = type(message)
    if instance is not None and instance.damage and kind in damaged.HANDLERS:
        damaged.HANDLERS[kind](batch, instance, envelope, message)
    elif instance is not None and instance.entity_state is not None:
        entities.HANDLERS.get(kind, entities.refuse)(batch, instance, envelope, message)
    else:
        _HANDLERS[kind](batch, instance, envelope, message)
