"""Under which names triggers stand in a hub."""

from __future__ import annotations

from hashlib import sha256

from perdure.model.durations import moment
from perdure.model.http_calls import BUILT_IN

SCHEDULE = f"{BUILT_IN}Schedule"
FIRING = f"{BUILT_IN}Firing"
MESSAGE = f"{BUILT_IN}Message"


LONGEST = 150  # characters of a message's id that are kept as they are


def schedule_id(name: str) -> str:
    """The instance that serves a schedule."""
    return f"schedule:{name}"


def firing_id(schedule: str, tick: int, number: int | None) -> str:
    """The instance of one firing. A tick fires once, so that is its name; an operator's wish has a number too."""
    at = f"{moment(tick):%Y%m%dT%H%M%SZ}"
    return f"{schedule}:{at}" if number is None else f"{schedule}:{at}:{number}"


def message_id(queue: str, message: str) -> str:
    """The instance that handles a message."""
    return f"queue:{queue}:{_usable(message)}"


def queue_of(instance_id: str) -> str:
    """The queue that an instance is a message of; empty for any other instance."""
    kind, _, rest = instance_id.partition(":")
    return rest.partition(":")[0] if kind == "queue" else ""


def _usable(message: str) -> str:
    """A message's own id as part of an instance's.

    Brokers let ids be anything. What cannot stand in an instance's is replaced, and a digest keeps two such apart.
    """
    fine = "".join(one if one.isprintable() and one not in "/\\#?" else "-" for one in message)
    fine = fine.replace("::", "--")
    if fine == message and len(message) <= LONGEST:
        return message
    digest = sha256(message.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{fine[:LONGEST]}-{digest[:16]}"


def firing_activity(schedule: str) -> str:
    """The activity that is a schedule's function."""
    return f"{FIRING}:{schedule}"


def message_activity(queue: str) -> str:
    """The activity that is a queue's function."""
    return f"{MESSAGE}:{queue}"
