"""Detects `async def` activities that block the event loop instead of waiting.

While an activity sleeps, computes or uses a database in the blocking way, nothing else on the event loop runs:
no other activity, no request, no timeout. While activities run, the watchdog's thread pings the event loop, and
names the current activity when no answer comes.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import FrameType
from typing import Final

from perdure.engine.activities.asyncio_host import OnLoop
from perdure.engine.activities.runner import Attempt

ASK_EVERY: Final = 0.5  # seconds between an answer and the next ping

log = logging.getLogger("perdure.watchdog")


class Blocking:
    """Checks one event loop, from another thread.

    Parameters:
        host: the host of the activities on that loop.
        warn_after: seconds without an answer before it warns.
    """

    def __init__(self, host: OnLoop, warn_after: float) -> None:
        self._host = host
        self._warn_after = warn_after
        self._asked_at = 0.0
        self._answered = True
        self._is_warned = False

    def look(self, now: float) -> None:
        """Ping the loop, or check how long an answer is overdue. `now` is of the monotonic clock."""
        if self._answered:
            if self._host.running and now - self._asked_at >= min(ASK_EVERY, self._warn_after):
                self._asked_at, self._answered, self._is_warned = now, False, False
                self._ask()
        elif now - self._asked_at > self._warn_after and not self._is_warned:
            self._is_warned = True
            self._warn(now - self._asked_at)

    def _ask(self) -> None:
        try:
            self._host.event_loop.call_soon_threadsafe(self._answer)
        except RuntimeError:
            pass  # it is closed, so there is nothing to check

    def _answer(self) -> None:
        self._answered = True

    def _warn(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._host.thread_id)
        attempt = _attempt_at(frame)
        stack = "".join(traceback.format_stack(frame)[-8:]) if frame is not None else ""
        if attempt is not None:
            log.warning(
                "activity %r of instance %s has blocked the event loop for %.1f s: nothing else on it can "
                "run. Wait with asyncio's functions, or make the activity `def`, so that it runs on a "
                "thread:\n%s",
                attempt.invocation.name,
                attempt.invocation.instance_id,
                seconds,
                stack,
            )
        else:
            log.warning(
                "the event loop has been blocked for %.1f s, by a task of an activity's or by other code of this "
                "process. Activities that run on it: %s\n%s",
                seconds,
                ", ".join(self._host.names()) or "none",
                stack,
            )


def _attempt_at(frame: FrameType | None) -> Attempt | None:
    """The attempt whose body is on this stack."""
    while frame is not None:
        if frame.f_code is OnLoop._run.__code__:
            attempt = frame.f_locals.get("attempt")
            return attempt if isinstance(attempt, Attempt) else None
        frame = frame.f_back
    return None


__all__ = ["Blocking"]
