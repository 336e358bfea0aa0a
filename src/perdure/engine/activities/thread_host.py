"""`def` activities: the engine's own threads on one queue.

The threads stay alive. A thread whose activity outlives its timeout, or continues after a cancellation, is
abandoned (Python cannot stop it), counted, and replaced up to a limit. Beyond that limit the worker reports
itself unhealthy and starts no more `def` activities until an abandoned thread returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue

from perdure.engine.activities.ports import Concurrency
from perdure.engine.activities.results import completed, failed
from perdure.engine.activities.runner import Attempt
from perdure.engine.running_code import WANTED, note_activity
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult


class Threads:
    """Runs attempts on threads."""

    where = "thread"

    def __init__(
        self,
        begin: Callable[[Attempt], None],
        conclude: Callable[[Attempt, ActivityResult], None],
        limits: Concurrency,
    ) -> None:
        self.limits = limits
        self._begin = begin
        self._conclude = conclude
        self._context = (
            copy_context()
        )  # context variables of the host; each body gets a copy, as `async def` ones do
        self._queue: SimpleQueue[Attempt | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._unclaimed = (
            0  # queued and not begun; the queue's length lacks an attempt that a thread has just taken
        )
        self._alive = 0
        self.running = 0
        self.abandoned = 0
        self._closed = False

    def put(self, attempt: Attempt) -> None:
        self._queue.put(attempt)
        with self._lock:
            self._unclaimed += 1
            self._spawn_if_needed()

    def waiting(self) -> int:
        return self._queue.qsize()

    @property
    def slots(self) -> int:
        return self.limits.threads

    @property
    def free(self) -> int:
        return self.limits.threads - self.running - self._unclaimed

    def stop(self, attempt: Attempt) -> None:
        """Abandon the thread that runs the attempt; another may replace it."""
        with self._lock:
            if not attempt.begun or attempt.ended or attempt.abandoned:
                return
            attempt.abandoned = True
            self.abandoned += 1
            self.running -= 1
            self._alive -= 1
            if self.abandoned <= self.limits.abandoned:
                self._spawn_if_needed()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for _ in range(self._alive):
                self._queue.put(None)

    def _spawn_if_needed(self) -> None:
        if not self._closed and self._unclaimed > self._idle and self._alive < self.limits.threads:
            self._alive += 1
            threading.Thread(target=self._work, name="perdure-activity", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            attempt = self._queue.get()
            with self._lock:
                self._idle -= 1
                if attempt is None:
                    self._alive -= 1
                    return
                self._unclaimed -= 1
                if attempt.settled:
                    continue
                attempt.begun = True
                self.running += 1
            if not self._run(attempt):
                return

    def _run(self, attempt: Attempt) -> bool:
        """Run one attempt; returns whether this thread is still needed."""
        context = self._context.copy()
        context.run(self._begin, attempt)
        result = context.run(_result_of, attempt)
        with self._lock:
            attempt.ended = True
            wanted = not attempt.abandoned
            if wanted:
                self.running -= 1
            else:
                self.abandoned -= 1
                self._spawn_if_needed()
        self._conclude(attempt, result)
        return wanted


def _result_of(attempt: Attempt) -> ActivityResult:
    if WANTED.is_wanted:
        note_activity(attempt.runner.hub, attempt.invocation)
    try:
        return completed(
            attempt.invocation, attempt.runner.call(attempt.invocation, attempt), attempt.runner.guard
        )
    except BaseException as error:
        return failed(attempt.invocation, failure_of(error))


__all__ = ["Threads"]
