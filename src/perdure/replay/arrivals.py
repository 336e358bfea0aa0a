"""One thing to wait for that is told of each of many tasks as it is done, in the order of history.

A program that drives other tasks than ours, such as the host of Azure's package, waits for this alone. Each task
has it as its only waiter, so a fan-out of n tasks costs n.
"""

from __future__ import annotations

from typing import Any

from perdure.replay.relay import DEEPEST, Standing
from perdure.replay.task import DONE, PENDING, Owner, Task


class Arrivals(Task[None]):
    """Wait for it while `take()` gives None: it is done again each time that a followed task is done."""

    __slots__ = ("_arrived",)

    def __init__(self, context: Owner) -> None:
        super().__init__(context)
        self._arrived: list[Task[Any]] | None = None  # a list for each sleeping instance would be wasted

    def follow(self, task: Task[Any]) -> None:
        """Be told of a task that is pending, once."""
        task._add_waiter(self)

    def leave(self, task: Task[Any]) -> None:
        """Be told no more of a task that is pending."""
        task._drop_waiter(self)

    def take(self) -> Task[Any] | None:
        """The next task that is done, whose outcome the code sees now; None when there is none yet."""
        self._state = PENDING
        if self._arrived is None:
            return None
        task = self._arrived.pop(0)
        if not self._arrived:
            self._arrived = None
        task._observe()
        return task

    def on_done(self, task: Task[Any]) -> None:
        if self._arrived is None:
            self._arrived = [task]
        else:
            self._arrived.append(task)
        if self._waiters is not None:
            self._state = DONE
            self._tell()

    def _standing(self, depth: int = DEEPEST) -> Standing:
        """What it follows is awaited: the code on the other side may be blocked on any of it."""
        return Standing.AWAITED


__all__ = ["Arrivals"]
