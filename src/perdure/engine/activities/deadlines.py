"""Deadlines of attempts: one thread that finds late and silent attempts.

The first attempt with a limit starts it. It also watches `async def` bodies: a body that swallows its
cancellation, or blocks the event loop, still fails at its deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from heapq import heappop, heappush

from perdure.engine.activities.results import too_late, too_silent
from perdure.engine.activities.runner import Attempt
from perdure.failure import Failure


class Deadlines:
    """Calls `expire` with each attempt past its deadline, and the failure."""

    def __init__(self, expire: Callable[[Attempt, Failure], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, Attempt]] = []
        self._count = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, attempt: Attempt) -> None:
        """Watch an attempt that starts now."""
        invocation, now = attempt.invocation, time.monotonic()
        attempt.deadline = now + invocation.timeout / 1e6 if invocation.timeout else 0.0
        attempt.since = attempt.heard_at = now
        if not (attempt.deadline or invocation.heartbeat):
            return
        with self._changed:
            self._push(attempt)
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="perdure-timeouts", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _push(self, attempt: Attempt) -> None:
        self._count += 1
        heappush(self._heap, (_next_look(attempt), self._count, attempt))

    def _keep(self) -> None:
        while not self._closed:
            with self._changed:
                late = self._take_late()
                if not late:
                    nearest = self._heap[0][0] - time.monotonic() if self._heap else 60.0
                    self._changed.wait(min(max(nearest, 0.001), 60.0))
            for attempt, failure in late:
                self._expire(attempt, failure)

    def _take_late(self) -> list[tuple[Attempt, Failure]]:
        late, now = [], time.monotonic()
        while self._heap and self._heap[0][0] <= now:
            _, _, attempt = heappop(self._heap)
            if attempt.settled or not attempt.since:
                continue  # it has ended, or its process died and it waits for another one
            if attempt.deadline and attempt.deadline <= now:
                late.append((attempt, too_late(attempt.invocation)))
            elif _next_look(attempt) <= now:
                late.append((attempt, too_silent(attempt.invocation)))
            else:
                self._push(attempt)  # it has sent a heartbeat since
        return late


def _next_look(attempt: Attempt) -> float:
    silence = attempt.heard_at + attempt.invocation.heartbeat / 1e6 if attempt.invocation.heartbeat else 0.0
    return min(at for at in (attempt.deadline, silence) if at)
