"""What a message does to an instance that has a damaged row: it can be ended and removed, and runs no more.

What comes without anyone who waits for an answer (results, timers, signals) is held or passes by, as for any instance
that is suspended.
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
    "`perdure export --raw` keeps its rows as they are; then purge it, or restore a backup made before"
)


def purge(batch: OpenBatch, instance: Instance, envelope: Envelope, message: msg.Purge) -> None:
    """It is removed, whatever status its row names."""
    if message.finished_before:  # retention's, by a time that may be the damage
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
"""What differs from other instances."""
