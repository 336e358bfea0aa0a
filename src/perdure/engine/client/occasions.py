"""Assigns starts to requests that a route of the surrounding site answers.

A client function has the occasion of its request, created before the function runs. A route of the site has
none, so each task gets its own occasion when it first uses the client or starts an instance. Later tasks and
threads inherit the context, and the instances that they meet are reported to the task that started them. All
tasks of a server may inherit one occasion, such as that of the program's main task. Therefore a task never uses
an inherited occasion as its own: otherwise it would take instances met by other requests for its own.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from perdure.engine.core.repeats import OCCASION, Occasion

_DEEPEST: Final = 8  # tasks that begin one another without end share the last one


def occasion() -> Occasion:
    """The current request; outside a client function, the record of the current task."""
    found = OCCASION.get()
    task = _task()
    if found is not None and (found.task in (None, task) or _depth(found) >= _DEEPEST):
        return found
    made = Occasion(task=task, around=found)
    OCCASION.set(made)
    return made


def _task() -> object:
    """The present task, or outside of the event loop the thread: each of its calls has a context of its own."""
    try:
        return asyncio.current_task() or threading.current_thread()
    except RuntimeError:
        return threading.current_thread()


def _depth(found: Occasion) -> int:
    depth = 1
    while found.around is not None:
        found, depth = found.around, depth + 1
    return depth


__all__ = ["occasion"]
