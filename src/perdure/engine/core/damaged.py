"""Messages to an instance with a damaged row: it can be terminated and purged, and does not run.

Messages whose sender awaits no answer (results, timers, signals) are held or discarded, as for a suspended
instance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.core import control
from perdure.errors import IllegalTransition
from perdure.model import messages as msg

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.envelope import Envelope
    from perdure.engine.core.instance import Instance

_WHAT_TO_DO: Final = (
    "`perdure export --raw` saves its rows unchanged; then purge the instance, or restore an earlier backup"
)


def purge(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.Purge) -> None:
    """Purge the instance, whatever the status in its row."""
    if message.finished_before:  # retention's purge, by a time that may be damaged
        batch.consume(envelope)
        return
    batch.answer(envelope, 1)
    control.forget(batch, instance)


def refuse(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.Message) -> None:
    verb = _VERBS[type(message)]
    refusal = IllegalTransition(
        f"cannot {verb} instance {instance.instance_id!r}, which is {instance.damage}. {_WHAT_TO_DO}"
    )
    if envelope.reply is not None:
        batch.answer(envelope, refusal)
    else:
        batch.drop(envelope, str(refusal))


_VERBS: Final[dict[type, str]] = {
    msg.RaiseEvent: "raise an event to",
    msg.Suspend: "suspend",
    msg.Resume: "resume",
    msg.Rewind: "rewind",
}
HANDLERS: Final[dict[type, Callable[[OpenBatch, Any, Envelope, Any], None]]] = {
    msg.Purge: purge
} | dict.fromkeys(_VERBS, refuse)
"""The handlers that differ from those of other instances."""
