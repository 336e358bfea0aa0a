"""The waits of an instance, as data and as the one sentence that is shown everywhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import msgspec

from perdure.model.durations import moment
from perdure.model.http_calls import BUILT_IN


class EventWait(msgspec.Struct, frozen=True, omit_defaults=True):
    """An open wait for an external event; `deadline` is 0 when open-ended; `schema` is a JSON Schema.

    `rejected` is why the last event for it did not fit, and `rejected_at` when that was.
    """

    name: str
    since: int
    deadline: int = 0
    schema: dict[str, Any] | None = None
    rejected: str = ""
    rejected_at: int = 0


class OpenActivity(msgspec.Struct, frozen=True, omit_defaults=True):
    """A running activity. The fields from `where` on come from its worker, if that worker is known.

    `where` is event loop, thread, queue or the executor's name; with several workers also the worker that runs
    it, or the pool it waits in. `begun_at` and `heard_at` (its last heartbeat) are 0 before that; `progress`
    comes from the last heartbeat.
    """

    name: str
    since: int
    attempt: int = 1
    task_id: int = -1
    where: str = ""
    begun_at: int = 0
    heard_at: int = 0
    progress: Any = None


class OpenRetry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A failed call that is retried at `at`. `error` is the type and message of its last failure."""

    name: str
    attempt: int
    at: int
    error: str = ""


class OpenChild(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sub-orchestration that has not ended. `reason` is why it is on hold, if it is."""

    name: str
    instance_id: str
    since: int
    reason: str = ""


class OpenOperation(msgspec.Struct, frozen=True, omit_defaults=True):
    """An open call of an entity. `reason` is why the entity is on hold, if it is."""

    entity: str
    operation: str
    since: int
    reason: str = ""


class OpenLock(msgspec.Struct, frozen=True, omit_defaults=True):
    """A critical section that is being entered: `entity` is the awaited lock, `wanted` are all entities.

    `reason` is why that entity is on hold, if it is.
    """

    entity: str
    wanted: tuple[str, ...]
    since: int
    reason: str = ""


class Waiting(msgspec.Struct, frozen=True, omit_defaults=True):
    """All waits of an instance at one moment.

    `kept` are the names of accepted events that no wait has taken.
    """

    events: tuple[EventWait, ...] = ()
    activities: tuple[OpenActivity, ...] = ()
    retries: tuple[OpenRetry, ...] = ()
    children: tuple[OpenChild, ...] = ()
    operations: tuple[OpenOperation, ...] = ()
    locks: tuple[OpenLock, ...] = ()
    timers: tuple[int, ...] = ()
    start_at: int = 0
    kept: tuple[str, ...] = ()
    reason: str = ""
    at: int = 0  # the time at which heartbeats were read

    def sentence(self) -> str:
        """One sentence for people: what must happen before this instance continues; "" if nothing."""
        if self.reason:
            return _missing(self.reason) or _REASONS.get(kind_of(self.reason), self.reason)
        parts = [
            *[_event(wait) for wait in _by_name(self.events)[:SHOWN]],
            *_several("activity", "activities", [_activity(a, self.at) for a in self.activities]),
            *[_retry(retry) for retry in self.retries[:SHOWN]],
            *_several("sub-orchestration", "sub-orchestrations", [_child(c) for c in self.children]),
            *_several("entity operation", "entity operations", [_operation(o) for o in self.operations]),
            *[f"the lock of the entity {lock.entity}{_aside(lock.reason)}" for lock in self.locks],
            *([f"the timer due at {clock(min(self.timers))}"] if self.timers else []),
            *([f"its start at {clock(self.start_at)}"] if self.start_at else []),
        ]
        return "waiting for " + ", and for ".join(parts) + self._kept() if parts else ""

    def _kept(self) -> str:
        if not self.kept:
            return ""
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(self.kept))
        return f"; it keeps {len(self.kept)} event(s) that no wait has taken: {names}"


PROGRESS_SHOWN = 60  # characters
TOLD = 200  # characters of an error or a reason
SHOWN = 3  # of one kind; more are only counted


class Pulse(msgspec.Struct, frozen=True):
    """A worker's data about its attempt: see `OpenActivity`. `progress` is JSON."""

    name: str
    attempt: int
    where: str
    begun_at: int = 0
    heard_at: int = 0
    progress: bytes | None = None


_REASONS = {
    "operator": "suspended by an operator until resumed",
    "nondeterminism": "parked: the deployed code does not match its history; deploy matching code, then "
    "resume (PDR-070)",
    "misfit": "parked: a recorded value does not fit the type that the deployed code expects; change the "
    "type to accept it, deploy, then resume (PDR-073)",
    "poison": "parked: processing it failed again and again; see the reason, then resume or terminate (PDR-071)",
    "no_worker": "waiting for a worker that has its orchestrator function (PDR-072)",
    "damaged": "parked: a stored row is damaged; restore a backup, or terminate it (PDR-076)",
}
PARKED: Final = tuple(kind for kind in _REASONS if kind != "operator")
"""The kinds of reasons for which the engine parks an instance."""


MISFIT: Final = "misfit"
_NONDETERMINISM: Final = "nondeterminism"


def reason_of(kind: str, detail: str) -> str:
    """The reason of a parked instance. A misfit is a kind of nondeterminism, so its reason begins with that."""
    return f"{_NONDETERMINISM}: {kind}: {detail}" if kind == MISFIT else f"{kind}: {detail}"


def is_parked(reason: str) -> bool:
    """Whether the reason means that the engine parked the instance, not an operator, and not a delayed start."""
    return bool(reason) and not reason.startswith(("operator", "scheduled:"))


def kind_of(reason: str) -> str:
    """The kind in a reason."""
    kind, _, detail = reason.partition(":")
    return MISFIT if kind == _NONDETERMINISM and detail.startswith(f" {MISFIT}:") else kind


def next_step(reason: str) -> str:
    """What an operator does about a parked instance."""
    kind = kind_of(reason)
    if kind == "no_worker":
        return "start a worker that has the function; the instance then continues (PDR-072)"
    return _REASONS.get(kind, "").rpartition("; ")[2] or "see the reason, then resume or terminate"


_MISSING = (
    (f"no_worker: no activity named '{BUILT_IN}Message:", "its queue's function"),
    (f"no_worker: no activity named '{BUILT_IN}Firing:", "its schedule's function"),
    ("no_worker: no activity named ", "an activity that it calls"),
    ("no_worker: no entity named ", "an entity that it calls"),
    ("no_worker: no worker here has the entity ", "its entity"),
)


def _missing(reason: str) -> str:
    """The missing function of an instance whose orchestrator is registered."""
    what = next((what for begins, what in _MISSING if reason.startswith(begins)), "")
    return f"waiting for a worker that has {what} (PDR-072)" if what else ""


def clock(at: int) -> str:
    """A time for people, in UTC to the second."""
    return moment(at).strftime("%Y-%m-%d %H:%M:%S UTC")


def _by_name(waits: tuple[EventWait, ...]) -> list[EventWait]:
    """The newest wait of each name: a loop that opens a wait in each round leaves older ones open."""
    return list({wait.name.casefold(): wait for wait in waits}.values() if len(waits) > 1 else waits)


def _event(wait: EventWait) -> str:
    until = f", until {clock(wait.deadline)}" if wait.deadline else ""
    rejected = (
        f" (rejected the event that came at {clock(wait.rejected_at)}: {wait.rejected})"
        if wait.rejected
        else ""
    )
    return f"the event '{wait.name}' since {clock(wait.since)}{until}{rejected}"


def _activity(activity: OpenActivity, now: int) -> str:
    known = [
        *([f"attempt {activity.attempt}"] if activity.attempt > 1 else []),
        *([activity.where] if activity.where.startswith("pool ") else []),
        *([progress_text(activity.progress)] if activity.progress is not None else []),
        *([heard_text(activity, now)] if activity.heard_at else []),
    ]
    return f"the activity '{activity.name}'{' (' + ', '.join(known) + ')' if known else ''}"


def activity_facts(activity: OpenActivity, now: int) -> str:
    """The facts of a running activity, for people: attempt, place, since when, progress, last heartbeat."""
    begun = activity.begun_at or activity.since
    where = (
        "waiting for its turn"
        if activity.where == "queue"
        else f"in {activity.where}"
        if activity.where.startswith("pool ")
        else f"on {activity.where}"
        if activity.where
        else ""
    )
    return ", ".join(
        filter(
            None,
            (
                f"attempt {activity.attempt}",
                where,
                f"since {clock(begun)}",
                progress_text(activity.progress) if activity.progress is not None else "",
                heard_text(activity, now),
            ),
        )
    )


def heard_text(activity: OpenActivity, now: int) -> str:
    """The age of its last heartbeat, for people; "" without one."""
    if not activity.heard_at:
        return ""
    return f"last heartbeat {short_duration(timedelta(microseconds=max(now - activity.heard_at, 0)))} ago"


def progress_text(progress: Any) -> str:
    """Progress for people: 0.62 is 62 %, [620, 1000] is 620 of 1000, anything else is shown shortened."""
    match progress:
        case bool():
            text = str(progress).lower()
        case float() if 0.0 <= progress <= 1.0:
            text = f"{progress:.0%}".replace("%", " %")
        case [int() | float() as done, int() | float() as total]:
            text = f"{done:g} of {total:g}"
        case str():
            text = progress
        case _:
            text = msgspec.json.encode(progress).decode()
    return text if len(text) <= PROGRESS_SHOWN else text[: PROGRESS_SHOWN - 1] + "…"


def _retry(retry: OpenRetry) -> str:
    because = f" (it failed with {retry.error})" if retry.error else ""
    return f"attempt {retry.attempt} of '{retry.name}' at {clock(retry.at)}{because}"


def _child(child: OpenChild) -> str:
    return f"the sub-orchestration '{child.name}' ({child.instance_id}){_aside(child.reason)}"


def _operation(operation: OpenOperation) -> str:
    return f"the entity {operation.entity} to do '{operation.operation}'{_aside(operation.reason)}"


def _aside(reason: str) -> str:
    return f", which is on hold ({shortened(reason)})" if reason else ""


def shortened(text: str) -> str:
    """The first line of a text, cut to the length of a sentence."""
    line = text.partition("\n")[0]
    return line if len(line) <= TOLD else f"{line[: TOLD - 1]}…"


def _several(one: str, many: str, parts: list[str]) -> list[str]:
    if len(parts) <= SHOWN:
        return parts
    return [f"{len(parts)} {many if len(parts) > 1 else one}"]


def short_duration(duration: timedelta) -> str:
    """A duration in short form: 72 h, 3 min, 12 s."""
    seconds = duration.total_seconds()
    for size, unit in ((86_400 * 3, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / (86_400 if unit == 'd' else size):.0f} {unit}"
    return f"{seconds:.0f} s"
