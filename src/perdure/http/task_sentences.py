"""What a task's deadline means, in one sentence: the same on every page and in the terminal."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from perdure.http.formatting import lasting

if TYPE_CHECKING:
    from perdure.engine.client.tasks import OpenTask

SOON = timedelta(hours=4)
"""How long before its deadline a task counts as due soon."""


def deadline_sentence(task: OpenTask, now: datetime) -> str:
    """When the task is due, and what happens then: "Due in 2 h 10 min, today at 20:00 UTC. Then it is denied."""
    if task.due is None:
        said = ["No deadline."]
    elif task.due <= now:
        said = [f"{lasting_of(now - task.due)} late: it was due {day(task.due, now)}."]
    else:
        said = [f"Due in {lasting_of(task.due - now)}, {day(task.due, now)}."]
    if task.escalation is not None:
        at, role = task.escalation
        said.append(f"It goes to the role {role} {day(at, now)}.")
    if task.then and task.due is not None:
        said.append(f"Then {task.then.rstrip('.')}.")
    return " ".join(said)


def is_late(task: OpenTask, now: datetime) -> bool:
    return task.due is not None and task.due <= now


def urgency(task: OpenTask, now: datetime) -> str:
    """How pages mark the task: late, soon, or ""."""
    if is_late(task, now):
        return "late"
    return "soon" if task.due is not None and task.due - now < SOON else ""


def label_of(name: str) -> str:
    """The label of a fact: its key in words."""
    words = name.replace("_", " ").strip() or name
    return words[:1].upper() + words[1:]


def due_in_short(task: OpenTask, now: datetime) -> str:
    """The same for one column: "2 h 10 min", "12 min late", "Tue 09:30", or "no deadline"."""
    if task.due is None:
        return "no deadline"
    if task.due <= now:
        return f"{lasting_of(now - task.due)} late"
    return lasting_of(task.due - now) if task.due - now < timedelta(days=1) else f"{task.due:%a %d %b, %H:%M}"


def day(at: datetime, now: datetime) -> str:
    """A time of day with its day: "today at 20:00 UTC"."""
    days = (at.date() - now.date()).days
    named = {-1: "yesterday", 0: "today", 1: "tomorrow"}.get(days, f"on {at:%a} {at.day} {at:%b}")
    return f"{named} at {at:%H:%M} UTC"


def lasting_of(time: timedelta) -> str:
    """A duration in whole minutes, in at most two units."""
    seconds = max(0, round(time.total_seconds()))
    return lasting(seconds // 60 * 60) if seconds >= 60 else "less than a minute"


__all__ = ["SOON", "day", "deadline_sentence", "due_in_short", "is_late", "label_of", "lasting_of", "urgency"]
