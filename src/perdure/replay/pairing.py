"""Pairing: decides which wait takes an event when several waits for its name are open.

Under the pairing AWAITED it is the oldest wait that the code still awaits; without one, the oldest that was
never awaited; without one, the oldest of those that lost their `task_any`. A wait that lost and is awaited
later then has its event; but if the code starts another wait for the name first, the event moves to that one.
The first candidate whose type the event fits takes it; if it fits none, it is rejected. History alone does not
show which tasks the code awaits, so `EventTaken` records the choice.
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


class WaitOwner(Protocol):
    """The recorder, as the choice of a wait uses it."""

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


def choose(recorder: WaitOwner, item: Item, waits: Iterable[EventTask[Any]]) -> None:
    """Give the event to one of several open waits, or to none. `waits` are in order of age.

    The oldest awaited wait takes it in nearly every case, so the others are checked only if it rejects.
    """
    number, event = item
    recorded = recorder._recorded()
    if (
        isinstance(recorded, ev.EventRejected) and recorded.event == number
    ):  # whichever event today's types would accept
        _reject(recorder, recorded.wait_id, item, recorded.reason)
        return
    wanted: Iterable[EventTask[Any]]
    if isinstance(recorded, ev.EventTaken) and recorded.event == number:
        wanted = _as_recorded(recorder, event.name, recorded.wait_id, waits)
    else:
        wanted = in_order_of_wish(waits)
    refusal: PayloadError | None = None
    refused: Any = None  # the last type that rejected it: waits in a loop share one type
    unqualified = ""
    foremost: EventTask[Any] | None = None
    for wait in wanted:
        foremost = foremost or wait
        unqualified = wait._unqualified(event)
        if unqualified:
            continue
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
    assert foremost is not None
    if refusal is None:
        _reject(recorder, foremost.id, item, unqualified)
        return
    if recorder._script is not None or number < recorder._kept:
        raise recorder._park(misfit(f"the event '{event.name}'", foremost.expected, refusal))
    _reject(recorder, foremost.id, item, f"does not fit: {refusal}")


def _reject(recorder: WaitOwner, wait_id: int, item: Item, reason: str) -> None:
    number, event = item
    recorder._forget_reading(number)
    recorder._emit(act.RejectEvent(wait_id, event.name, event.operation_id, event.input, reason, number))


def in_order_of_wish(waits: Iterable[EventTask[Any]]) -> Iterator[EventTask[Any]]:
    """The waits that the code awaits, then those never awaited; without any, those that it has left."""
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
    recorder: WaitOwner, name: str, wait_id: int, waits: Iterable[EventTask[Any]]
) -> Iterable[EventTask[Any]]:
    """The wait that history names, if it is a candidate; else all candidates."""
    named = recorder._waits.get(wait_id)
    if named is not None and same(named.name, name) and named._standing() is Standing.AWAITED:
        return (named,)
    wanted = list(in_order_of_wish(waits))
    return [wait for wait in wanted if wait.id == wait_id] or wanted


def pass_on(recorder: WaitOwner, wait: EventTask[Any]) -> None:
    """Move an event to a new wait, from one that lost its task_any and was not awaited since."""
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
    """Whether two event names match, ignoring case as Azure does."""
    return one == other or one.casefold() == other.casefold()


def body_of(event: EventRaised) -> Raw:
    """The body of an event; null without one."""
    return event.input if bytes(event.input) else NULL


__all__ = ["Item", "body_of", "choose", "in_order_of_wish", "pass_on", "same"]
