"""Which wait takes an event, where several are open for its name.

Under the pairing AWAITED it is the oldest that the code still awaits; if there is none, the oldest that nothing has
waited for yet; if there is none either, the oldest of those that lost their `task_any`. What lost and is looked at
later has its event then; but when the code begins another wait of the name instead, the event is passed on to it.
Of the waits that come into question the first whose type the event fits takes it, and if it fits none it is rejected.
What the code awaits cannot be told from history, so `EventTaken` records the choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Raw

from perdure.errors import PayloadError
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.replay.determinism import misfit
from perdure.replay.relay import Standing

if TYPE_CHECKING:
    from perdure.model.events import EventRaised
    from perdure.replay.context import OrchestrationContext
    from perdure.replay.task import EventTask

NULL: Final = Raw(b"null")
Item = tuple[int, "EventRaised"]
"""An event of this execution with its number."""


def choose(context: OrchestrationContext, item: Item, waits: list[EventTask[Any]]) -> None:
    """One of several open waits takes the event, or none."""
    standings = {wait.id: wait._standing() for wait in waits}
    wanted = [wait for wait in waits if standings[wait.id] is not Standing.LEFT] or waits
    wanted.sort(key=lambda wait: -standings[wait.id])  # of equals the oldest stays first
    number, event = item
    recorded = context._recorded()
    if (
        isinstance(recorded, ev.EventRejected) and recorded.event == number
    ):  # whatever today's types would take
        _reject(context, recorded.wait_id, item, recorded.reason)
        return
    if isinstance(recorded, ev.EventTaken) and recorded.event == number:
        wanted = [wait for wait in wanted if wait.id == recorded.wait_id] or wanted
    refusal: PayloadError | None = None
    for wait in wanted:
        try:
            value = payload.decode(body_of(event), wait.expected)
        except PayloadError as error:
            refusal = refusal or error
            continue
        context._emit(act.TakeEvent(wait.id, number))
        context._take(wait, item, value)
        return
    assert refusal is not None
    if context._script is not None or number < context._kept:
        raise context._park(misfit(f"the event '{event.name}'", wanted[0].expected, refusal))
    _reject(context, wanted[0].id, item, f"does not fit: {refusal}")


def _reject(context: OrchestrationContext, wait_id: int, item: Item, reason: str) -> None:
    number, event = item
    context._emit(act.RejectEvent(wait_id, event.name, event.operation_id, event.input, reason, number))


def pass_on(context: OrchestrationContext, wait: EventTask[Any]) -> None:
    """A new wait has found no event: one that lost its task_any and was not looked at since may have taken it."""
    for other in context._taken.values():
        if other.was_left and same(other.name, wait.name) and _fits(other, wait):
            context._give_back(other)
            return


def _fits(other: EventTask[Any], wait: EventTask[Any]) -> bool:
    if other.event is None:
        return False
    try:
        payload.decode(body_of(other.event[1]), wait.expected)
    except PayloadError:
        return False
    return True


def same(one: str, other: str) -> bool:
    """Event names match without regard to case, as Azure's do."""
    return one == other or one.casefold() == other.casefold()


def body_of(event: EventRaised) -> Raw:
    """What an event brings; one without a body brings null."""
    return event.input if bytes(event.input) else NULL


__all__ = ["Item", "body_of", "choose", "pass_on", "same"]
