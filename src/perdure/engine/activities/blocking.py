"""Bodies that keep the event loop to themselves: `async def` activities that block instead of waiting.

While one sleeps, computes or talks to a database in the blocking way, nothing else on the event loop goes on: no
other activity, no request, no timeout. The watchdog's thread asks the event loop for a sign of life while activities
run there, and names the one that it is at when none comes.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import FrameType
from typing import Final

from perdure.engine.activities.asyncio_host import OnLoop
from perdure.engine.activities.runner import Attempt

ASK_EVERY: Final = 0.5  # seconds between an answer and the next question

log = logging.getLogger("perdure.watchdog")


class Blocking:
    """Looks at one event loop, from a thread of somebody else's.

    Parameters:
        host: the activities that run there.
        warn_after: seconds without a sign of life.
    """

    def __init__(self, host: OnLoop, warn_after: float) -> None:
        self._host = host
        self._warn_after = warn_after
        self._asked_at = 0.0
        self._answered = True
        self._is_warned = False

    def look(self, now: float) -> None:
        """Ask, or see how long the answer has been due. `now` is of the monotonic clock."""
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
            pass  # it is closed, and there is nothing left to look at

    def _answer(self) -> None:
        self._answered = True

    def _warn(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._host.thread_id)
        attempt = _attempt_at(frame)
        stack = "".join(traceback.format_stack(frame)[-8:]) if frame is not None else ""
        if attempt is not None:
            log.warning(
                "activity %r of instance %s has blocked the event loop for %.1f s: nothing else on it goes on. Wait "
                "with asyncio's functions, or make the activity `def`, so that it runs on a thread:\n%s",
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
    """The attempt whose body the stack is in."""
    while frame is not None:
        if frame.f_code is OnLoop._run.__code__:
            attempt = frame.f_locals.get("attempt")
            return attempt if isinstance(attempt, Attempt) else None
        frame = frame.f_back
    return None


__all__ = ["Blocking"]
