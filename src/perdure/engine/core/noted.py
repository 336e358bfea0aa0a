"""What a batch notes for telemetry beside its rows: facts that no row holds."""

from __future__ import annotations

from typing import Final, NamedTuple

UNTAKEN: Final = "untaken"  # the instance ended, or continued as new, without a wait that took it
MISFIT: Final = "misfit"  # it did not fit the type of its wait
REFUSED: Final = "refused"  # the instance could not accept it any more
CAUSES: Final = (UNTAKEN, MISFIT, REFUSED)
"""Why an accepted event is dropped."""


class EventAccepted(NamedTuple):
    """An external event was accepted for an instance of this orchestrator; "" if it is not known."""

    orchestrator: str


class EventDropped(NamedTuple):
    """An accepted event could not be delivered."""

    orchestrator: str
    reason: str


class TimerWasDue(NamedTuple):
    """A timer fired this many microseconds after its time."""

    late: int


class Replayed(NamedTuple):
    """The code of an instance was recreated from its history; `replays` is how often that has happened."""

    orchestrator: str
    reason: str  # see `engine.core.tenure`
    events: int
    seconds: float
    instance_id: str
    replays: int


Noted = EventAccepted | EventDropped | TimerWasDue | Replayed


__all__ = [
    "CAUSES",
    "MISFIT",
    "REFUSED",
    "UNTAKEN",
    "EventAccepted",
    "EventDropped",
    "Noted",
    "Replayed",
    "TimerWasDue",
]
