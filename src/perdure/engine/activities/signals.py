"""Signals between a running body and the engine: progress from the body, cancellation from the engine.

Every method may be called from any thread and costs almost nothing. Signals live in memory only: after a
restart the body runs again and reports again.
"""

from __future__ import annotations

import threading
import time

_GATE = threading.Lock()  # taken only for the first use of an Event, and for a cancellation


class AttemptSignals:
    """The signals of one running body. `heard_at` is in seconds of the monotonic clock."""

    __slots__ = ("_event", "heard_at", "is_cancelled", "progress", "reason")

    def __init__(self) -> None:
        self.heard_at = 0.0
        self.progress: bytes | None = None
        self.is_cancelled = False
        self.reason = ""
        self._event: threading.Event | None = None

    def beat(self, progress: bytes | None) -> None:
        """Record a heartbeat; `progress` is JSON, None for no change."""
        if progress is not None:
            self.progress = progress
        self.heard_at = time.monotonic()

    def cancel(self, reason: str) -> None:
        """Cancel the body, whose result is no longer wanted. The first reason counts."""
        with _GATE:
            if self.is_cancelled:
                return
            self.reason = reason
            self.is_cancelled = True
            event = self._event
        if event is not None:
            event.set()

    def event(self) -> threading.Event:
        """An event that is set on cancellation, for bodies that wait."""
        with _GATE:
            if self._event is None:
                self._event = threading.Event()
                if self.is_cancelled:
                    self._event.set()
            return self._event
