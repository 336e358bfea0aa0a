"""The names and instance ids of triggers in a hub."""

from __future__ import annotations

from hashlib import sha256

from perdure.model.durations import moment
from perdure.model.http_calls import BUILT_IN

SCHEDULE = f"{BUILT_IN}Schedule"
FIRING = f"{BUILT_IN}Firing"
MESSAGE = f"{BUILT_IN}Message"


LONGEST = 150  # characters of a message id that are kept unchanged


def schedule_id(name: str) -> str:
    """The instance of a schedule."""
    return f"schedule:{name}"


def firing_id(schedule: str, tick: int, number: int | None) -> str:
    """The instance of one run. A tick fires once, so its time is the id. A manual run has a number too."""
    at = f"{moment(tick):%Y%m%dT%H%M%SZ}"
    return f"{schedule}:{at}" if number is None else f"{schedule}:{at}:{number}"


def message_id(queue: str, message: str) -> str:
    """The instance of a message."""
    return f"queue:{queue}:{_usable(message)}"


def queue_of(instance_id: str) -> str:
    """The queue of a message's instance; "" for any other instance."""
    kind, _, rest = instance_id.partition(":")
    return rest.partition(":")[0] if kind == "queue" else ""


def _usable(message: str) -> str:
    """A message id as part of an instance id.

    A broker's message id can contain any character. Characters that an instance id must not have are replaced, and a
    digest keeps such ids distinct.
    """
    fine = "".join(one if one.isprintable() and one not in "/\\#?" else "-" for one in message)
    fine = fine.replace("::", "--")
    if fine == message and len(message) <= LONGEST:
        return message
    digest = sha256(message.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{fine[:LONGEST]}-{digest[:16]}"


def firing_activity(schedule: str) -> str:
    """The activity of a schedule's function."""
    return f"{FIRING}:{schedule}"


def message_activity(queue: str) -> str:
    """The activity of a queue's function."""
    return f"{MESSAGE}:{queue}"
