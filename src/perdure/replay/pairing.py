"""Which wait takes an event, where several are open for its name.

Under the pairing AWAITED it is the oldest that the code still awaits; if there is none, the oldest that nothing has
waited for yet; if there is none either, the oldest of those that lost their `task_any`. What lost and is looked at
later has its event then; but when the code begins another wait of the name instead, the event is passed on to it.
Of the waits that come into question the first whose type the event fits takes it, and if it fits none it is rejected.
What the code awaits cannot be told from history, so `EventTaken` records the choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Raw

from perdure.errors import PayloadError
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model import payload
from perdure.replay.determinism import Mismatch, misfit
from perdure.replay.relay import Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from perdure.model.events import EventRaised
    from perdure.replay.task import EventTask

NULL: Final = Raw(b"null")
Item = tuple[int, "EventRaised"]
"""An event of this execution with its number."""


class Arrivals(Protocol):
    """What the choice of a wait asks of the recorder."""

    _script: list[Any] | None
    _kept: int
    _waits: dict[int, EventTask[Any]]
    _taken: dict[int, EventTask[Any]]

    def _recorded(self) -> Any | None: ...

    def _emit(self, action: act.Action) -> Any | None: ...

    def _park(self, found: Mismatch) -> Mismatch: ...

    def _take(self, wait: EventTask[Any], item: Item, value: Any) -> None: ...

    def _give_back(self, wait: EventTask[Any]) -> None: ...

    def _read(self, item: Item, expected: Any) -> Any: ...

    def _forget_reading(self, number: int) -> None: ...


def choose(recorder: Arrivals, item: Item, waits: Iterable[EventTask[Any]]) -> None:
    """One of several open waits takes the event, or none. `waits` come in the order of their age.

    The oldest that is awaited takes it in nearly every case, so the others are not looked at before it has refused.
    """
    number, event = item
    recorded = recorder._recorded()
    if (
        isinstance(recorded, ev.EventRejected) and recorded.event == number
    ):  # whatever today's types would take
        _reject(recorder, recorded.wait_id, item, recorded.reason)
        return
    wanted: Iterable[EventTask[Any]]
    if isinstance(recorded, ev.EventTaken) and recorded.event == number:
        wanted = _as_recorded(recorder, event.name, recorded.wait_id, waits)
    else:
        wanted = _in_order_of_wish(waits)
    refusal: PayloadError | None = None
    refused: Any = None  # the type that it did not fit last: waits in a loop have the same
    foremost: EventTask[Any] | None = None
    for wait in wanted:
        foremost = foremost or wait
        if refusal is not None and wait.expected is refused:
            continue
        try:
            value = recorder._read(item, wait.expected)
        except PayloadError as error:
            refusal, refused = refusal or error, wait.expected
            continue
        recorder._emit(act.TakeEvent(wait.id, number))
        recorder._take(wait, item, value)
        return
    assert refusal is not None
    assert foremost is not None
    if recorder._script is not None or number < recorder._kept:
        raise recorder._park(misfit(f"the event '{event.name}'", foremost.expected, refusal))
    _reject(recorder, foremost.id, item, f"does not fit: {refusal}")


def _reject(recorder: Arrivals, wait_id: int, item: Item, reason: str) -> None:
    number, event = item
    recorder._forget_reading(number)
    recorder._emit(act.RejectEvent(wait_id, event.name, event.operation_id, event.input, reason, number))


def _in_order_of_wish(waits: Iterable[EventTask[Any]]) -> Iterator[EventTask[Any]]:
    """Those that the code awaits, then those that nothing has waited for yet; without any, those it has left."""
    fresh: list[EventTask[Any]] = []
    left: list[EventTask[Any]] = []
    is_wanted = False
    for wait in waits:
        standing = wait._standing()
        if standing is Standing.AWAITED:
            is_wanted = True
            yield wait
        else:
            (left if standing is Standing.LEFT else fresh).append(wait)
    yield from fresh
    if not (is_wanted or fresh):
        yield from left


def _as_recorded(
    recorder: Arrivals, name: str, wait_id: int, waits: Iterable[EventTask[Any]]
) -> Iterable[EventTask[Any]]:
    """The wait that history names, if it comes into question; else all that do."""
    named = recorder._waits.get(wait_id)
    if named is not None and same(named.name, name) and named._standing() is Standing.AWAITED:
        return (named,)
    wanted = list(_in_order_of_wish(waits))
    return [wait for wait in wanted if wait.id == wait_id] or wanted


def pass_on(recorder: Arrivals, wait: EventTask[Any]) -> None:
    """A new wait has found no event: one that lost its task_any and was not looked at since may have taken it."""
    for other in recorder._taken.values():
        if other.was_left and same(other.name, wait.name) and _fits(other, wait):
            recorder._give_back(other)
            return


def _fits(other: EventTask[Any], wait: EventTask[Any]) -> bool:
    if other.event is None:
        return False
    if other.expected is wait.expected:
        return True
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
