"""The end of a process that code keeps from ending.

A stop is orderly: requests are answered, the engine commits what it has in hand and closes its store. All of that
runs on the event loop, which an activity may block, and at the end the interpreter waits for threads, which an
activity may keep busy. So a thread of its own looks at the clock from the signal on, and ends the process when it is
too late. Nothing that was accepted is lost by that: the next start recovers, as after a crash.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Final

from perdure.engine.upkeep.watchdog import stack_of

STOP_WITHIN: Final = 10.0  # seconds beyond `drain` that an orderly stop may take
CODE: Final = 1  # how the process ends when it took longer

log = logging.getLogger("perdure")


class LastResort:
    """Ends this process `drain` seconds and a few more after `begin`, if it is still there."""

    def __init__(self, drain: float) -> None:
        self._seconds = drain + STOP_WITHIN
        self._begun = False

    def begin(self) -> None:
        """Count from now on. From a signal handler; the second call does nothing."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._count, name="perdure-last-resort", daemon=True).start()

    def _count(self) -> None:
        time.sleep(self._seconds)
        main = threading.main_thread().ident or 0
        log.error(
            "the process has not stopped within %g s, and is ended: what it was doing runs again at the next start. "
            "Its main thread is here:\n%s",
            self._seconds,
            stack_of(main),
        )
        logging.shutdown()
        sys.stderr.flush()
        os._exit(CODE)


__all__ = ["LastResort"]
