"""`async def` activities: one hand-over per batch to the event loop, then as many drivers as needed.

A driver is a task that runs one activity after the other. Only when a body really waits for something does
the event loop get to start another driver for the rest: bodies that return at once cost no task each.
A driver whose activity left traces in its context variables ends, so that the next one starts clean.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from perdure.engine.activities.results import completed, failed, too_late
from perdure.engine.activities.runner import Attempt
from perdure.model.failure import failure_of
from perdure.model.messages import ActivityResult

Conclude = Callable[[Attempt, ActivityResult], None]


class OnLoop:
    """Runs attempts on one event loop."""

    where = "event loop"

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        begin: Callable[[Attempt], None],
        conclude: Conclude,
        limit: int,
    ) -> None:
        self.event_loop = loop
        self._begin = begin
        self._conclude = conclude
        self._limit = limit
        self._context = copy_context()
        self._waiting: deque[Attempt] = deque()
        self._drivers: set[asyncio.Task[None]] = set()
        self._starting = False
        self.running = 0

    def take(self, work: list[Attempt]) -> None:
        """On the event loop: take more work."""
        self._waiting.extend(work)
        if not self._starting:
            self._start_driver()

    def take_one(self, attempt: Attempt) -> None:
        """One more, from any thread."""
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
        self._waiting.clear()
        for task in list(self._drivers):
            task.cancel()
        await asyncio.gather(*self._drivers, return_exceptions=True)

    def _soon(self, action: Callable[..., None], argument: Any) -> None:
        try:
            self.event_loop.call_soon_threadsafe(action, argument)
        except RuntimeError:
            pass  # the host is gone, and its bodies with it

    def _start_driver(self) -> None:
        self._starting = False
        if self._waiting and self.running < self._limit:
            task = self.event_loop.create_task(self._drive(), context=self._context.copy())
            self._drivers.add(task)
            task.add_done_callback(self._drivers.discard)

    async def _drive(self) -> None:
        while self._waiting and self.running < self._limit:
            attempt = self._waiting.popleft()
            if self._waiting and not self._starting:
                self._starting = True  # reached when this driver waits for something, or is done with all
                self.event_loop.call_soon(self._start_driver)
            if attempt.settled:
                continue
            self.running += 1
            try:
                result = await self._run(attempt)
            finally:
                self.running -= 1
            self._conclude(attempt, result)
            if copy_context() != self._context:
                break
        if self._waiting and not self._starting:
            self._start_driver()

    async def _run(self, attempt: Attempt) -> ActivityResult:
        invocation = attempt.invocation
        self._begin(attempt)
        try:
            value = attempt.runner.call(invocation, attempt)
            if inspect.isawaitable(value):
                attempt.task = asyncio.current_task()
                if invocation.timeout:
                    return await _in_time(attempt, value)
                value = await value
            return completed(invocation, value)
        except asyncio.CancelledError as error:
            driver = asyncio.current_task()
            if driver is not None and driver.cancelling() > attempt.interrupted:
                raise  # the host is going down: the activity stays open and runs again at the next start
            return failed(invocation, failure_of(error))
        except Exception as error:
            return failed(invocation, failure_of(error))
        finally:
            task, attempt.task = attempt.task, None
            if attempt.interrupted:
                task.uncancel()


async def _in_time(attempt: Attempt, body: Any) -> ActivityResult:
    invocation = attempt.invocation
    limit = asyncio.timeout(invocation.timeout / 1e6)
    try:
        async with limit:
            return completed(invocation, await body)
    except TimeoutError as error:
        return failed(invocation, too_late(invocation) if limit.expired() else failure_of(error))


def _interrupt(attempt: Attempt) -> None:
    """On the event loop: throw CancelledError into the body, if it is still running."""
    if attempt.task is not None and not attempt.interrupted:
        attempt.interrupted = True
        attempt.task.cancel()


__all__ = ["OnLoop"]
