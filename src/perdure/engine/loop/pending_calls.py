"""Clients that wait for the loop's answer, and what they are told when the store gives the loop none.

A commit that fails is the loop's own affair. One that neither fails nor succeeds holds up the loop's thread: a
synchronous standby is away, a disk hangs, a network swallows packets. PostgreSQL may take half a minute until even
the connection is given up. So somebody else looks at how long the commit under way has been going on: a timer on
the clients' event loop. When it is too long, everyone who waits is told that the outcome is not known, and whoever
comes meanwhile, that nothing was stored. The commit itself is not disturbed; it may well succeed.
The same is told when an orchestrator's code keeps the thread and cannot be interrupted, as a call into C.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.loop.callbacks import tell
from perdure.engine.loop.loop import CLIENT_WAITS, Loop
from perdure.errors import OutcomeUnknown, Overloaded, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from perdure.engine.clock import Clock

    T = TypeVar("T")

LOOK_EVERY: Final = 1.0  # seconds


class Callers:
    """The futures that clients of one engine wait on."""

    def __init__(self, loop: Loop, clock: Clock, held: Callable[[], tuple[str, float]]) -> None:
        self._held = held  # whose code has the loop's thread beyond all patience, and for how long
        self._loop = loop
        self._clock = clock
        self._waiting: set[asyncio.Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._found: float | None = None  # when the commit began that the last look has found
        self.held_up = 0.0  # seconds the commit under way has taken, once that is too long

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait_for(self, answer: asyncio.Future[T]) -> T:
        """The answer, or OutcomeUnknown when the store does not come to an end."""
        self._waiting.add(answer)
        try:
            return await answer
        finally:
            self._waiting.discard(answer)

    def check(self) -> None:
        """Raise StoreError while the store holds everybody up: what would be taken now would wait as well."""
        instance_id, seconds = self._held()
        if instance_id:
            raise Overloaded(
                f"the code of instance {instance_id!r} has kept the engine to itself for {seconds:.0f} s: "
                "nothing was stored. Restart the worker; the server's log says where the code is"
            )
        if self.held_up:
            raise StoreError(
                f"the store has not answered for {self.held_up:.0f} s: nothing was stored, try again shortly"
            )

    def watch(self) -> None:
        """Look after them from now on, on the running event loop."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look_on)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_on(self) -> None:
        self.watch()
        self.look()

    def look(self) -> None:
        """Tell everyone who waits, when it is too long.

        Only a commit that was there at the last look, too: a virtual clock may leap while one is under way.
        """
        since, before = self._loop.committing_since, self._found
        self._found = since
        lasting = 0.0 if since is None or since != before else self._clock.monotonic() - since
        self.held_up = lasting if lasting * 1e6 >= CLIENT_WAITS else 0.0
        if self.held_up or self._held()[0]:
            tell([(answer, self._unknown()) for answer in list(self._waiting)])

    def _unknown(self) -> OutcomeUnknown:
        instance_id, seconds = self._held()
        if instance_id:
            return OutcomeUnknown(
                f"the code of instance {instance_id!r} has kept the engine to itself for {seconds:.0f} s: what "
                "was asked may or may not happen. Ask for the instance's status, or repeat it with the same id"
            )
        return OutcomeUnknown(
            f"the store has not answered for {self.held_up:.0f} s while this was being committed: it may or may not "
            "happen. Ask for the instance's status, or repeat the request with the same id"
        )


__all__ = ["Callers"]
