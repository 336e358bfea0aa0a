"""What an instance is waiting for, as facts and as the one sentence that is shown everywhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from perdure.model.times import moment


class EventWait(msgspec.Struct, frozen=True, omit_defaults=True):
    """An open wait for an external event; `deadline` is 0 when open-ended; `schema` is a JSON Schema."""

    name: str
    since: int
    deadline: int = 0
    schema: dict[str, Any] | None = None


class OpenActivity(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    since: int
    attempt: int = 1


class OpenRetry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A failed call that is tried again at `at`."""

    name: str
    attempt: int
    at: int


class OpenChild(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    instance_id: str
    since: int


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """Everything an instance is waiting for at one moment."""

    events: tuple[EventWait, ...] = ()
    activities: tuple[OpenActivity, ...] = ()
    retries: tuple[OpenRetry, ...] = ()
    children: tuple[OpenChild, ...] = ()
    timers: tuple[int, ...] = ()
    start_at: int = 0
    reason: str = ""

    def sentence(self) -> str:
        """One sentence for people: what has to happen before this instance goes on. "" when nothing has."""
        if self.reason:
            return _REASONS.get(self.reason.partition(":")[0], self.reason)
        parts = [
            *(_event(wait) for wait in self.events[:3]),
            *_several("activity", "activities", [_activity(a) for a in self.activities]),
            *(_retry(retry) for retry in self.retries[:3]),
            *_several("sub-orchestration", "sub-orchestrations", [_child(c) for c in self.children]),
            *([f"the timer due at {clock(min(self.timers))}"] if self.timers else []),
            *([f"its start at {clock(self.start_at)}"] if self.start_at else []),
        ]
        return "waiting for " + ", and for ".join(parts) if parts else ""


_REASONS = {
    "operator": "suspended by an operator until resumed",
    "nondeterminism": "parked: the deployed code disagrees with its history; deploy matching code, then resume",
    "poison": "parked: processing it failed again and again; see the reason, then resume or terminate",
    "no_worker": "waiting for a worker that has its orchestrator function",
}


def clock(at: int) -> str:
    """An instant for people, in UTC to the second."""
    return moment(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def _event(wait: EventWait) -> str:
    until = f", until {clock(wait.deadline)}" if wait.deadline else ""
    return f"the event '{wait.name}' since {clock(wait.since)}{until}"


def _activity(activity: OpenActivity) -> str:
    again = f" (attempt {activity.attempt})" if activity.attempt > 1 else ""
    return f"the activity '{activity.name}'{again}"


def _retry(retry: OpenRetry) -> str:
    return f"attempt {retry.attempt} of '{retry.name}' at {clock(retry.at)}"


def _child(child: OpenChild) -> str:
    return f"the sub-orchestration '{child.name}' ({child.instance_id})"


def _several(one: str, many: str, parts: list[str]) -> list[str]:
    if len(parts) <= 3:
        return parts
    return [f"{len(parts)} {many if len(parts) > 1 else one}"]


def short_duration(duration: timedelta) -> str:
    """A duration as people say it: 72 h, 3 min, 12 s."""
    seconds = duration.total_seconds()
    for size, unit in ((86_400 * 3, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / (86_400 if unit == 'd' else size):.0f} {unit}"
    return f"{seconds:.0f} s"
