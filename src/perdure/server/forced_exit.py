"""Ends a process that does not stop in time.

An orderly stop answers the open requests, commits the current batch and closes the store. All of that runs on the
event loop, which an activity can block. At the end the interpreter waits for threads, which an activity can keep
busy. So a separate thread watches the clock from the signal on and ends the process at the deadline. No accepted work
is lost: the next start recovers, as after a crash.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Final

from perdure.engine.upkeep.watchdog import stack_of

STOP_WITHIN: Final = 10.0  # seconds beyond `drain` that an orderly stop can take
CODE: Final = 1  # the exit code after a forced exit

log = logging.getLogger("perdure")


class LastResort:
    """Ends this process `drain` plus `STOP_WITHIN` seconds after `begin`, if it is still running."""

    def __init__(self, drain: float) -> None:
        self._seconds = drain + STOP_WITHIN
        self._begun = False

    def begin(self) -> None:
        """Start the countdown. Safe to call from a signal handler. A second call does nothing."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._count, name="perdure-last-resort", daemon=True).start()

    def _count(self) -> None:
        time.sleep(self._seconds)
        main = threading.main_thread().ident or 0
        log.error(
            "the process has not stopped within %g s and is ended now. Unfinished work runs again at the next start. "
            "An activity probably blocks the stop. The main thread is here:\n%s",
            self._seconds,
            stack_of(main),
        )
        logging.shutdown()
        sys.stderr.flush()
        os._exit(CODE)


__all__ = ["LastResort"]
