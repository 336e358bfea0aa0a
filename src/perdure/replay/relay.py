"""The relay: one shared waiter in place of a wide `task_any`, reused by the next one over the same tasks.

A loop that takes results one by one creates a task_any over all remaining tasks, again and again. If each
registered itself with every task and removed itself afterwards, the time would grow with the square of the
width. So the tasks notify a relay. When its task_any is done, the relay stays, idle and without finished tasks;
the next task_any over the remaining tasks takes it over. A task with any other waiter dissolves the relay,
because the order in which waiters are notified is part of replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, Generic, Protocol, TypeVar

Member = TypeVar("Member")
Member_contra = TypeVar("Member_contra", contravariant=True)

WIDE: Final = 16  # number of tasks from which a task_any uses a relay
DEEPEST: Final = 30  # longest chain of waiting tasks; a longer one is a cycle


class Standing(IntEnum):
    """The interest of the code in an open task."""

    LEFT = 0  # it lost its task_any, and nothing has waited for it since
    FRESH = 1  # nothing has waited for it yet
    AWAITED = 2  # a part of the code is blocked on it


class Waiter(Protocol[Member_contra]):
    """A waiter, notified when a task is done."""

    def on_done(self, task: Member_contra) -> None: ...

    def _standing(self, depth: int) -> Standing:
        """The code's interest in the tasks of this waiter."""


class Relay(Generic[Member]):
    """A waiter of many tasks, on behalf of the open task_any.

    `members` are the tasks of that task_any that are pending, or of the last one. `is_alone` means that none of
    them has another waiter: only then may another task_any take over the relay.
    """

    __slots__ = ("is_alone", "members", "race")

    def __init__(self, members: list[Member]) -> None:
        self.race: Waiter[Member] | None = None
        self.members = members
        self.is_alone = True

    def on_done(self, task: Member) -> None:
        try:
            self.members.remove(task)
        except ValueError:
            return  # registered for an earlier task_any, not part of this one
        race, self.race = self.race, None
        if race is not None:
            race.on_done(task)

    def strangers_among(self, children: list[Any]) -> list[Any] | None:
        """The children without this relay. None if a child is not a task, or occurs twice."""
        known = len(self.members)
        if children[:known] == self.members:
            return children[known:]
        if children[-known:] == self.members:
            return children[:-known]
        try:
            found = [child for child in children if child._waiters is not self]
            return found if len(set(children)) == len(children) else None
        except (AttributeError, TypeError):
            return None

    def _standing(self, depth: int) -> Standing:
        return Standing.LEFT if self.race is None else self.race._standing(depth)


ABANDONED: Final[Relay[Any]] = Relay([])
"""The waiter of a task that every waiter has left."""


def idle_relay(children: Sequence[Any]) -> Relay[Any] | None:
    """The idle relay of an earlier task_any over these tasks, if there seems to be one."""
    if not children:
        return None
    for child in (children[0], children[-1], children[len(children) // 2]):
        relay = getattr(child, "_waiters", None)
        if type(relay) is Relay and relay.race is None and relay.is_alone and relay.members:
            return relay
    return None
