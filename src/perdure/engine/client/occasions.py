"""Which starts belong to which request, where a route of the site around perdure answers it.

A client function has the occasion of its request, which is there before the function runs. For a route of the site
there is none, so each task has one of its own from the first time that it asks for the client or starts something.
Tasks and threads that begin later inherit the context, and what they meet is told to the task that began them.
A server's tasks may all inherit one occasion, such as that of the program's main task. Therefore a task never uses
what it has inherited as its own: it would take what other requests have met for what it has met itself.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from perdure.engine.core.repeats import OCCASION, Occasion

_DEEPEST: Final = 8  # tasks that begin one another without end share the last one


def occasion() -> Occasion:
    """The request in hand; where no client function answers one, what the present task has met so far."""
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
