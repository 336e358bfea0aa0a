"""One awaitable for many tasks, which reports each finished task in the order of history.

A program with its own kind of tasks, such as the host of Azure's package, waits only for this. It is the only
waiter of each task, so a fan-out of n tasks costs O(n).
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from perdure.replay.relay import DEEPEST, Standing
from perdure.replay.task import DONE, PENDING, Owner, Task


class Observed(Protocol):
    """What arrives: a task, or what stands for one."""

    def _observe(self) -> None: ...


A = TypeVar("A", bound=Observed)


class Arrivals(Task[None], Generic[A]):
    """Wait for it while `take()` returns None: it is done again each time a followed task is done.

    It follows tasks itself, or is told by waiters of its user's own what is done.
    """

    __slots__ = ("_arrived",)

    def __init__(self, context: Owner) -> None:
        super().__init__(context)
        self._arrived: list[A] | None = None  # a list for each sleeping instance would be wasted

    def follow(self, task: Task[Any]) -> None:
        """Follow a pending task."""
        task._add_waiter(self)

    def leave(self, task: Task[Any]) -> None:
        """Stop following a pending task."""
        task._drop_waiter(self)

    def take(self) -> A | None:
        """The next task that is done, whose outcome the code sees now; None when there is none yet."""
        self._state = PENDING
        if self._arrived is None:
            return None
        task = self._arrived.pop(0)
        if not self._arrived:
            self._arrived = None
        task._observe()
        return task

    def on_done(self, task: Any) -> None:
        if self._arrived is None:
            self._arrived = [task]
        else:
            self._arrived.append(task)
        if self._waiters is not None:
            self._state = DONE
            self._tell()

    def _standing(self, depth: int = DEEPEST) -> Standing:
        """The followed tasks count as awaited, because the other program may be blocked on any of them."""
        return Standing.AWAITED


__all__ = ["Arrivals"]
