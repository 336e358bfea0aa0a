"""The watchdog: user code runs on the loop's thread, so somebody else has to look at the clock.

`Marker` says which instance's code is running; entering and leaving cost a few attribute stores. A thread of the
watchdog's own sees when the same turn goes on for too long: it logs after a second, and after ten raises
`Interrupted` in the loop's thread, which parks the instance with its stack. A call into C that never comes back
cannot be interrupted so. For that, and for code that kills the process, the running instance is noted in a small
file that outlives the process (`strikes`).
The audit hook reports files, sockets and subprocesses that orchestrator code opens. It sees those and no more:
reading the clock, sleeping or random numbers raise no audit event in Python.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Any

from perdure.engine.contract import Running
from perdure.engine.strikes import StrikeFile
from perdure.engine.warm import Instance
from perdure.errors import Interrupted

WARN_AFTER = 1.0  # seconds
INTERRUPT_AFTER = 10.0  # seconds

log = logging.getLogger("perdure.watchdog")


class Marker(Running):
    """What user code runs on the loop's thread right now."""

    __slots__ = ("_lock", "_strikes", "instance_id", "interrupting", "thread_id", "turn")

    def __init__(self, strikes: StrikeFile | None = None) -> None:
        self.instance_id = ""
        self.turn = 0
        self.thread_id = 0
        self.interrupting = False
        self._strikes = strikes
        self._lock = threading.Lock()

    def enter(self, instance: Instance) -> None:
        self.turn += 1
        self.instance_id = instance.instance_id
        if self._strikes is not None:
            self._strikes.enter(instance.instance_id)

    def leave(self) -> bool:
        if self._strikes is not None:
            self._strikes.leave()
            if self._strikes.strikes:
                self._strikes.forgive(self.instance_id)
        self.instance_id = ""
        if not self.interrupting:
            return False
        self._call_off()
        return True

    def interrupt(self, turn: int) -> bool:
        """Raise Interrupted in the loop's thread, if that turn is still on."""
        with self._lock:
            if self.turn != turn or not self.instance_id:
                return False
            self.interrupting = True
            _raise_in(self.thread_id, Interrupted)
            return True

    def _call_off(self) -> None:
        """The code came back by itself just now: what was aimed at it must not hit the engine."""
        with self._lock:
            _raise_in(self.thread_id, None)
            self.interrupting = False


def _raise_in(thread_id: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread_id), ctypes.py_object(error) if error is not None else None
    )


class Watchdog:
    """A thread that looks at the marker a few times a second."""

    def __init__(
        self, marker: Marker, *, warn_after: float = WARN_AFTER, after: float = INTERRUPT_AFTER
    ) -> None:
        self.marker = marker
        self._warn_after = warn_after
        self._after = after
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perdure-watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2)

    def _watch(self) -> None:
        seen, since, warned = -1, 0.0, False
        while not self._stop.wait(min(0.1, self._warn_after / 4)):
            marker = self.marker
            turn, instance_id = marker.turn, marker.instance_id
            now = time.monotonic()
            if not instance_id or turn != seen:
                seen, since, warned = turn if instance_id else -1, now, False
            elif now - since > self._after:
                log.error("interrupting the code of instance %s after %.1f s", instance_id, now - since)
                marker.interrupt(turn)
                since = now
            elif now - since > self._warn_after and not warned:
                warned = True
                log.warning(
                    "the orchestrator of instance %s has kept the loop to itself for %.1f s:\n%s",
                    instance_id,
                    now - since,
                    stack_of(marker.thread_id),
                )


def stack_of(thread_id: int) -> str:
    """Where a thread is right now."""
    frame = sys._current_frames().get(thread_id)
    return "".join(traceback.format_stack(frame)[-8:]) if frame is not None else ""


# ------------------------------------------------------------------------------------------ the audit hook

_WATCHED = (
    "open",
    "socket.connect",
    "socket.bind",
    "subprocess.Popen",
    "os.system",
    "os.fork",
    "sqlite3.connect",
)
_INNOCENT = frozenset(
    {"importlib", "linecache", "traceback", "tokenize", "inspect", "zoneinfo", "encodings", "logging"}
)
_markers: list[Marker] = []
_reported: set[tuple[str, int]] = set()
_installed = False


def audit(marker: Marker) -> None:
    """Report files, sockets and subprocesses that orchestrator code opens on this marker's thread."""
    global _installed
    _markers.append(marker)
    if not _installed:
        _installed = True
        sys.addaudithook(_hook)


def stop_audit(marker: Marker) -> None:
    """An audit hook cannot be removed; it can have nothing left to look at."""
    if marker in _markers:
        _markers.remove(marker)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _markers or event not in _WATCHED:
        return
    thread_id = threading.get_ident()
    for marker in _markers:
        if marker.instance_id and marker.thread_id == thread_id:
            _report(event, args, marker)


def _report(event: str, args: tuple[Any, ...], marker: Marker) -> None:
    frame: FrameType | None = sys._getframe(2)
    where: FrameType | None = None
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] in _INNOCENT or frame.f_code.co_filename.startswith("<frozen importlib"):
            return  # imports, tracebacks and log handlers open files, and may
        if name.startswith("perdure."):
            break
        where = frame  # the last one is the orchestrator's own: its line, not the library's
        frame = frame.f_back
    if where is None:
        return
    place = (where.f_code.co_filename, where.f_lineno)
    if place in _reported:
        return
    _reported.add(place)
    log.warning(
        "orchestrator code of instance %s did I/O (%s %s) at %s:%d. It will be done again at every replay: "
        "move it into an activity",
        marker.instance_id,
        event,
        args[0] if args else "",
        *place,
    )
