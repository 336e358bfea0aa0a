"""`async def` activities: one hand-over per batch to the event loop, then as many drivers as needed.

A driver is a task that runs one activity after the other. Only when a body really waits does the event loop
start another driver for the rest, so bodies that return at once need no task each. Bodies get only a slice of
each turn of the event loop, which also answers clients. A driver ends if its activity left values in its
context variables or an undelivered cancellation, so that the next one starts clean.

Code of the application may cancel a body: a library cancels its task, or the body cancels itself. That fails
the attempt. When the host shuts down, on the other hand, the attempt stays open and runs again after a restart.
An engine task that waits for ever distinguishes the two: only a host that shuts down cancels that task as well.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from types import CoroutineType
from typing import Any, Final

from perdure.engine.activities.results import completed, failed
from perdure.engine.activities.runner import Attempt
from perdure.engine.activities.task_exits import contain, create_driver, enter_body, exit_of, release
from perdure.engine.running_code import WANTED, forget_activity, note_activity
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult
from perdure.replay.settle import Invocation

SLICE: Final = 0.003  # seconds of one turn of the event loop in which bodies start
LAST_WORDS = 3.0  # seconds in which cancelled bodies must end, after `drain`

log = logging.getLogger("perdure.engine")
Conclude = Callable[[Attempt, ActivityResult], None]


class OnLoop:
    where = "event loop"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        take_up: Callable[[Invocation], Attempt | None],
        begin: Callable[[Attempt], None],
        conclude: Conclude,
        limit: int,
    ) -> None:
        self.event_loop = loop
        self._begin = begin
        self._conclude = conclude
        self._limit = limit
        self._context = copy_context()
        self._context.run(enter_body)
        self._waiting: deque[Attempt | Invocation] = deque()
        self._take_up = take_up
        self._drivers: set[asyncio.Task[None]] = set()
        self._starting = False
        self._slice_ends = 0.0  # of the current turn; 0 before a body has started in it
        self._closing = False
        self._sentinel: asyncio.Task[None] | None = None
        self.running = 0
        self.thread_id = threading.get_ident()  # created on the event loop's thread

    def take(self, work: Sequence[Attempt | Invocation]) -> None:
        """On the event loop: take more work. An invocation becomes an attempt when its turn comes."""
        if self._sentinel is None:
            self._sentinel = self.event_loop.create_task(_wait_for_ever(), name="perdure-host")
            contain(self.event_loop)
        self._waiting.extend(work)
        if not self._starting:
            self._start_driver()

    def take_one(self, attempt: Attempt) -> None:
        """Take one attempt, from any thread."""
        if asyncio._get_running_loop() is self.event_loop:
            self.take([attempt])
        else:
            self._soon(self.take, [attempt])

    @property
    def slots(self) -> int:
        return self._limit

    @property
    def free(self) -> int:
        return self._limit - self.running - len(self._waiting)

    def stop(self, attempt: Attempt) -> None:
        self._soon(_interrupt, attempt)

    async def close(self) -> None:
        """Cancel the running bodies. A body that ignores this for LAST_WORDS is abandoned, and the log names
        its activity.
        """
        self._closing = True
        self._waiting.clear()
        tasks = [*self._drivers, *([self._sentinel] if self._sentinel is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS)
        for driver in list(self._drivers):
            log.warning(
                "activity %r is still running: the engine stops without waiting for it", _name_on(driver)
            )
        if self._sentinel is not None:
            release(self.event_loop)

    def names(self) -> list[str]:
        """The running activities. From any thread."""
        return sorted({_name_on(driver) for driver in self._drivers.copy()})

    def _soon(self, action: Callable[..., None], argument: Any) -> None:
        try:
            self.event_loop.call_soon_threadsafe(action, argument)
        except RuntimeError:
            pass  # the host is gone, and its bodies with it

    def _start_driver(self) -> None:
        self._starting = False
        if self._waiting and self.running < self._limit:
            task = create_driver(self.event_loop, self._drive(), self._context.copy())
            self._drivers.add(task)
            task.add_done_callback(self._drivers.discard)

    def _is_host_ending(self) -> bool:
        sentinel = self._sentinel
        if self._closing or sentinel is None or asyncio._get_running_loop() is not self.event_loop:
            return True
        return sentinel.done() or sentinel.cancelling() > 0

    async def _drive(self) -> None:
        driver = asyncio.current_task()
        assert driver is not None
        waiting = self._waiting
        while waiting and self.running < self._limit:
            # One activity alone needs no slice.
            if (self._slice_ends or len(waiting) > 1) and not self._has_time():
                break
            work = waiting.popleft()
            attempt = work if isinstance(work, Attempt) else self._take_up(work)
            if waiting and not self._starting:
                self._starting = True  # reached when this driver waits, or has finished all work
                self.event_loop.call_soon(self._start_driver)
            if attempt is None or attempt.settled:
                continue
            self.running += 1
            try:
                result = await self._run(attempt, driver)
            finally:
                self.running -= 1
            self._conclude(attempt, result)
            if not waiting:
                break
            # State left behind by the body would affect the next one.
            if attempt.interrupted or driver.cancelling() or copy_context() != self._context:
                break
            if getattr(driver, "_must_cancel", False):  # `uncancel` leaves it before Python 3.13
                break
        if waiting and not self._starting:
            self._start_driver()

    def _has_time(self) -> bool:
        """Whether another body may start in this turn of the event loop, for any driver."""
        now = time.monotonic()
        if not self._slice_ends:
            self._slice_ends = now + SLICE
            self.event_loop.call_soon(self._next_slice)
            return True
        return now < self._slice_ends

    def _next_slice(self) -> None:
        self._slice_ends = 0.0

    async def _run(self, attempt: Attempt, driver: asyncio.Task[None]) -> ActivityResult:
        invocation = attempt.invocation
        self._begin(attempt)
        noted = note_activity(attempt.runner.hub, invocation) if WANTED.is_wanted else None
        try:
            value = attempt.runner.call(invocation, attempt)
            if type(value) is CoroutineType or inspect.isawaitable(value):
                attempt.task = driver
                value = await value
            return completed(invocation, value, attempt.runner.guard)
        except (asyncio.CancelledError, GeneratorExit) as error:
            if self._is_host_ending():
                raise  # the activity stays open and runs again after a restart
            return failed(invocation, failure_of(error))
        except BaseException as error:  # sys.exit() in a body ends the attempt, not the process
            return failed(invocation, failure_of(exit_of(error)))
        finally:
            attempt.task = None
            if noted is not None:
                forget_activity(noted)


def invocation_here() -> Invocation | None:
    """The invocation whose body the present task runs, unless the body has begun another task."""
    task = asyncio.current_task()
    attempt = _attempt_on(task) if task is not None else None
    return attempt.invocation if attempt is not None else None


def _name_on(driver: asyncio.Task[None]) -> str:
    """The activity that a driver runs."""
    attempt = _attempt_on(driver)
    return attempt.invocation.name if attempt is not None else "?"


def _attempt_on(driver: asyncio.Task[Any]) -> Attempt | None:
    frame = getattr(driver.get_coro(), "cr_frame", None)
    attempt = frame.f_locals.get("attempt") if frame is not None else None
    return attempt if isinstance(attempt, Attempt) else None


async def _wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _interrupt(attempt: Attempt) -> None:
    """On the event loop: throw CancelledError into the body, if the body is still running."""
    if attempt.task is not None and not attempt.interrupted:
        attempt.interrupted = True
        attempt.task.cancel()


__all__ = ["OnLoop", "invocation_here"]
