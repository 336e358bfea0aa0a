"""Clients that wait for the loop's answer, and their error when the store blocks the loop.

The loop itself handles a failed commit. A commit that neither fails nor succeeds blocks the loop's thread: a
synchronous standby is down, a disk hangs, a network drops packets. PostgreSQL may take half a minute until even
the connection fails. So a timer on the clients' event loop measures the current commit. After too long, waiting
clients get the error that the outcome is unknown, and new ones that nothing was stored. The commit itself
continues; it may still succeed. Clients get the same errors when an orchestrator's code blocks the thread and
cannot be interrupted, as in a call into C.
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
        self._held = held  # the instance whose code blocks the loop's thread for too long, and its duration
        self._loop = loop
        self._clock = clock
        self._waiting: set[asyncio.Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._found: float | None = None  # the start of the commit seen by the last check
        self.held_up = 0.0  # seconds of the current commit, once that is too long

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait_for(self, answer: asyncio.Future[T]) -> T:
        """Wait for the answer; raises OutcomeUnknown if the store does not answer."""
        self._waiting.add(answer)
        try:
            return await answer
        finally:
            self._waiting.discard(answer)

    def check(self) -> None:
        """Raise StoreError while the store is blocked, because a new message would wait too."""
        instance_id, seconds = self._held()
        if instance_id:
            raise Overloaded(
                f"the code of instance {instance_id!r} has blocked the engine for {seconds:.0f} s: nothing "
                "was stored. Restart the worker; the server's log shows the line of code"
            )
        if self.held_up:
            raise StoreError(
                f"the store has not answered for {self.held_up:.0f} s: nothing was stored, try again shortly"
            )

    def watch(self) -> None:
        """Start the checks, on the running event loop."""
        self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look_on)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look_on(self) -> None:
        self.watch()
        self.look()

    def look(self) -> None:
        """Send waiting clients the error, if the wait is too long.

        Only for a commit that the last check saw too: a virtual clock may skip during one.
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
                f"the code of instance {instance_id!r} has blocked the engine for {seconds:.0f} s: the "
                "request may or may not take effect. Get the instance's status, or repeat the request with "
                "the same id"
            )
        return OutcomeUnknown(
            f"the store has not answered for {self.held_up:.0f} s during the commit: the request may or may "
            "not take effect. Get the instance's status, or repeat the request with the same id"
        )


__all__ = ["Callers"]
