"""What tasks tell in place of a wide `task_any`, so that the next one over the same tasks need not enter itself.

A loop that takes results one by one makes a task_any over all that is left, again and again. If each of them entered
itself with every task and left them afterwards, the time would grow with the square of the width. So the tasks tell
a relay. When its task_any is done the relay stays behind, idle and holding nothing that has finished; the next
task_any over the tasks that are left takes it over. A task that gets any other waiter takes the relay apart,
because the order in which waiters are told is part of how histories are replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, Generic, Protocol, TypeVar

Member = TypeVar("Member")
Member_contra = TypeVar("Member_contra", contravariant=True)

WIDE: Final = 16  # tasks from which on a task_any uses a relay
DEEPEST: Final = 30  # tasks that may wait for one another; more are a circle, which never ends


class Standing(IntEnum):
    """What the code wants of a task that is open."""

    LEFT = 0  # it lost its task_any, and nothing has waited for it since
    FRESH = 1  # nothing has waited for it yet
    AWAITED = 2  # a part of the code is blocked on it


class Waiter(Protocol[Member_contra]):
    """What is told when a task is done."""

    def on_done(self, task: Member_contra) -> None: ...

    def _standing(self, depth: int) -> Standing:
        """What the code wants of the tasks that this waits for."""


class Relay(Generic[Member]):
    """Stands among the waiters of many tasks for whichever task_any is open.

    `members` are the tasks of that task_any that are pending, or of the last one. `is_alone` says that none of them
    has another waiter: only then another task_any may take the relay over.
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
            return  # entered for an earlier task_any, and not wanted by this one
        race, self.race = self.race, None
        if race is not None:
            race.on_done(task)

    def strangers_among(self, children: list[Any]) -> list[Any] | None:
        """Those of the children that are not entered here. None if some child is no task, or occurs twice."""
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
    """The relay that an earlier task_any over these left behind, if they look like it."""
    if not children:
        return None
    for child in (children[0], children[-1], children[len(children) // 2]):
        relay = getattr(child, "_waiters", None)
        if type(relay) is Relay and relay.race is None and relay.is_alone and relay.members:
            return relay
    return None
