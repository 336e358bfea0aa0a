"""What a task's deadline means, in one sentence: the same on every page and in the terminal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from perdure.http.languages import clock_time, days_between, say, say_number, short_day

if TYPE_CHECKING:
    from perdure.engine.client.tasks import OpenTask

SOON = timedelta(hours=4)
"""How long before its deadline a task counts as due soon."""


def deadline_sentence(task: OpenTask, now: datetime) -> str:
    """When the task is due, and what happens then: "Due in 2 h 10 min, today at 20:00 UTC. Then it is denied."

    A task that escalates is due for the people whose it is now when it goes to the next role.
    """
    said = [_due(task.due_now, now)]
    if task.escalation is not None:
        said.append(say("Then it goes to the role %(role)s.", role=task.escalation[1]))
        if task.due is not None:
            said.append(say("Its deadline is %(day)s.", day=day(task.due, now)))
    if task.then and task.due is not None:
        said.append(say("Then %(then)s.", then=task.then.rstrip(".")))
    return " ".join(said)


def _due(due: datetime | None, now: datetime) -> str:
    if due is None:
        return say("No deadline.")
    if due <= now:
        return say("%(lasting)s late: it was due %(day)s.", lasting=lasting_of(now - due), day=day(due, now))
    return say("Due in %(lasting)s, %(day)s.", lasting=lasting_of(due - now), day=day(due, now))


def is_late(task: OpenTask, now: datetime) -> bool:
    return task.due_now is not None and task.due_now <= now


def urgency(task: OpenTask, now: datetime) -> str:
    """How pages mark the task: late, soon, or ""."""
    if is_late(task, now):
        return "late"
    return "soon" if task.due_now is not None and task.due_now - now < SOON else ""


def label_of(name: str) -> str:
    """The label of a fact: its key in words."""
    words = name.replace("_", " ").strip() or name
    return words[:1].upper() + words[1:]


def due_in_short(task: OpenTask, now: datetime) -> str:
    """The same for one column: "2 h 10 min", "12 min late", "Tue 1 Dec, 09:30", or "no deadline".

    A column has no room for the zone; the sentence has it.
    """
    due = task.due_now
    if due is None:
        return say("no deadline")
    if due <= now:
        return say("%(lasting)s late", lasting=lasting_of(now - due))
    if due - now < timedelta(minutes=1):
        return "< 1 min"  # words would need another case than in a sentence, in some languages
    if due - now < timedelta(days=1):
        return lasting_of(due - now)
    return f"{short_day(due)}, {clock_time(due).removesuffix(' UTC')}"


def day(at: datetime, now: datetime) -> str:
    """A time of day with its day: "today at 20:00 UTC"."""
    time = clock_time(at)
    match days_between(at, now):
        case -1:
            return say("yesterday at %(time)s", time=time)
        case 0:
            return say("today at %(time)s", time=time)
        case 1:
            return say("tomorrow at %(time)s", time=time)
    return say("on %(day)s at %(time)s", day=short_day(at), time=time)


def since(at: datetime, now: datetime) -> str:
    """How long ago something was: "3 h 5 min ago"."""
    return say("%(lasting)s ago", lasting=lasting_of(now - at))


def lasting_of(time: timedelta) -> str:
    """A duration in whole minutes, in at most two units."""
    minutes = max(0, round(time.total_seconds())) // 60
    days, hours, rest = minutes // 1_440, minutes // 60 % 24, minutes % 60
    if not minutes:
        return say("less than a minute")
    units = [
        say_number("%(number)s day", "%(number)s days", days) if days else "",
        f"{hours} h" if hours else "",
        f"{rest} min" if rest else "",
    ]
    first = next(place for place, unit in enumerate(units) if unit)
    return " ".join(unit for unit in units[first : first + 2] if unit)


__all__ = [
    "SOON",
    "day",
    "deadline_sentence",
    "due_in_short",
    "is_late",
    "label_of",
    "lasting_of",
    "since",
    "urgency",
]
