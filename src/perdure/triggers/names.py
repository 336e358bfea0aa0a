"""Under which names triggers stand in a hub."""

from __future__ import annotations

from perdure.model.http_calls import BUILT_IN
from perdure.model.times import moment

SCHEDULE = f"{BUILT_IN}Schedule"
FIRING = f"{BUILT_IN}Firing"
MESSAGE = f"{BUILT_IN}Message"


def schedule_id(name: str) -> str:
    """The instance that serves a schedule."""
    return f"schedule:{name}"


def firing_id(schedule: str, tick: int, number: int | None) -> str:
    """The instance of one firing. A tick fires once, so that is its name; an operator's wish has a number too."""
    at = f"{moment(tick):%Y%m%dT%H%M%SZ}"
    return f"{schedule}:{at}" if number is None else f"{schedule}:{at}:{number}"


def message_id(queue: str, message: str) -> str:
    """The instance that handles a message."""
    return f"queue:{queue}:{message}"


def firing_activity(schedule: str) -> str:
    """The activity that is a schedule's function."""
    return f"{FIRING}:{schedule}"


def message_activity(queue: str) -> str:
    """The activity that is a queue's function."""
    return f"{MESSAGE}:{queue}"
