"""What passes between a body that runs and the engine: it says how far it is, and is told when to stop.

Everything here may be called from any thread and costs next to nothing. It lives in memory only: after a
restart the body runs again and speaks for itself.
"""

from __future__ import annotations

import threading
import time

_GATE = threading.Lock()  # taken only where an Event is first asked for, and where a body is cancelled


class AttemptSignals:
    """The two ways of one running body. `heard_at` is in seconds of the monotonic clock."""

    __slots__ = ("_event", "heard_at", "is_cancelled", "progress", "reason")

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.progress: bytes | None = None
        self.is_cancelled = False
        self.reason = ""
        self._event: threading.Event | None = None

    def beat(self, progress: bytes | None) -> None:
        """It is alive; `progress` is what it says of itself, as JSON, None for nothing new."""
        if progress is not None:
            self.progress = progress
        self.heard_at = time.monotonic()

    def cancel(self, reason: str) -> None:
        """Nobody wants its result any more. The first reason counts."""
        with _GATE:
            if self.is_cancelled:
                return
            self.reason = reason
            self.is_cancelled = True
            event = self._event
        if event is not None:
            event.set()

    def event(self) -> threading.Event:
        """Set once it is cancelled: for bodies that wait."""
        with _GATE:
            if self._event is None:
                self._event = threading.Event()
                if self.is_cancelled:
                    self._event.set()
            return self._event
