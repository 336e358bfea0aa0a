"""Virtual time for tests: a clock that does not advance by itself, and a waiter that moves it from timer to
timer.

The clock moves only when nothing else can happen: no message is queued, no activity is running, and the event
loop of the test has nothing left to do. Then, if the test waits for an instance to finish, the clock skips to
the next timer of the whole hub; if the test called `advance`, it fires every timer on the way.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from perdure.model.durations import instant, moment

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from queue import SimpleQueue

    from perdure.engine.loop.inbox import Item
    from perdure.engine.loop.loop import Loop

START = datetime(2026, 1, 1, 9, 0, tzinfo=UTC)
_TICKS = 4  # turns of the test's event loop in which it may still send a message


class VirtualClock:
    """An `engine.clock.Clock` that changes only by `move`. It never decreases."""

    def __init__(self, start: datetime = START) -> None:
        self._start = self._now = instant(start, "start")
        self.waiters = 0

    def now(self) -> int:
        """Microseconds since 1970."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the start."""
        return (self._now - self._start) / 1e6

    @property
    def datetime(self) -> datetime:
        """The current time, aware, in UTC."""
        return moment(self._now)

    def move(self, at: int) -> None:
        """Move forward to `at`; a time in the past changes nothing."""
        self._now = max(self._now, at)

    def waiting(self, more: int) -> None:
        """Called by the engine with the change in the number of waits for an instance's end."""
        self.waiters += more


class SkippingWaiter:
    """An `engine.loop.inbox.InboxWaiter` that moves a `VirtualClock` instead of sleeping."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._loop: Loop | None = None
        self._host: asyncio.AbstractEventLoop | None = None
        self._goal: int | None = None
        self._reached: asyncio.Future[None] | None = None
        self._overdue_at = -1
        self._idle: Callable[[int], None] | None = None
        self.moment = 0  # changes whenever the engine has work

    def attach(
        self, loop: Loop, host: asyncio.AbstractEventLoop, idle: Callable[[int], None] | None = None
    ) -> None:
        """Serve this engine's loop, for a test that runs on `host`.

        `idle` is called there, with the current `moment`, when nothing more can happen while the test waits.
        """
        self._loop, self._host, self._idle = loop, host, idle
        loop.nudge()

    async def advance(self, to: int) -> None:
        """Advance to `to`, firing every timer on the way; returns when the engine is idle there."""
        assert self._loop is not None and self._host is not None, "attach the waiter to a loop first"
        self._reached = self._host.create_future()
        self._goal = max(to, self._clock.now())
        self._loop.nudge()
        await self._reached

    def wait(self, inbox: SimpleQueue[Item], until: int | None, busy: Callable[[], bool]) -> Item:
        """The next envelope, or None when the clock was moved or the loop was nudged."""
        self.moment += 1
        if not inbox.empty():
            return inbox.get()
        if until is not None and until <= self._clock.now():
            return None
        if self._may_move() and not busy() and self._host_is_idle() and inbox.empty():
            if self._move():
                return None
            self._say_idle()
        return inbox.get()

    def _may_move(self) -> bool:
        return self._loop is not None and (self._goal is not None or self._clock.waiters > 0)

    def _host_is_idle(self) -> bool:
        """Give the test's event loop a few turns, so that its pending messages come before any skip."""
        assert self._loop is not None and self._host is not None
        host, said = self._host, threading.Event()

        def tick(left: int) -> None:
            if left:
                host.call_soon(tick, left - 1)
            else:
                said.set()

        try:
            host.call_soon_threadsafe(tick, _TICKS)
        except RuntimeError:
            return False  # the test is over
        while not said.wait(1.0):
            if self._loop.stopping or host.is_closed():
                return False
        return True

    def _move(self) -> bool:
        """Move to the next timer or to the goal; returns False without either."""
        assert self._loop is not None
        upcoming, goal, now = self._loop.next_timer_at(), self._goal, self._clock.now()
        if goal is not None and self._loop.sweeper is not None:  # housekeeping alone does not move the clock
            upcoming = min(self._loop.sweeper.next_at, goal if upcoming is None else upcoming)
        if upcoming is not None and upcoming <= now:  # due, but not in memory: the loop must poll once more
            upcoming = None if self._overdue_at == now else upcoming
            self._overdue_at = now
        if upcoming is not None and (goal is None or upcoming <= goal):
            self._clock.move(upcoming)
        elif goal is not None:
            self._clock.move(goal)
            self._arrive()
        else:
            return False
        self._loop.look_again()
        return True

    def _say_idle(self) -> None:
        if self._idle is not None and self._host is not None and not self._host.is_closed():
            self._host.call_soon_threadsafe(self._idle, self.moment)

    def _arrive(self) -> None:
        reached, self._goal, self._reached = self._reached, None, None
        if reached is not None and self._host is not None:
            self._host.call_soon_threadsafe(_tell, reached)


def _tell(reached: asyncio.Future[None]) -> None:
    if not reached.done():
        reached.set_result(None)
