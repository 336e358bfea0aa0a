"""The watchdog: user code runs on the loop's thread, so another thread measures how long.

`Marker` runs the code and records the instance; that costs a few attribute stores. It also runs code that is
closed, which may do as much as any. The watchdog's thread sees when the same turn takes too long: it logs after
a second, and after ten it raises `Interrupted` in the loop's thread, which parks the instance with the place in
the code. Code that swallows the exception is interrupted again until it ends (`interrupting`). A call into C
that never returns cannot be interrupted. For that case, and for code that kills the process, the running
instance is recorded in a small file that outlives the process (`crash_file`). The audit hook reports files,
sockets and subprocesses that orchestrator code opens. It sees no more than those: reading the clock, sleeping
or random numbers raise no audit event in Python.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from perdure.engine.core.instance import Instance
from perdure.engine.core.ports import Running
from perdure.engine.interrupting import CutShort, Interruptions, put_away
from perdure.engine.upkeep.crash_file import StrikeFile
from perdure.errors import Interrupted
from perdure.model.events import LoopHeld

if TYPE_CHECKING:
    from perdure.replay.decide import Execution

T = TypeVar("T")
WARN_AFTER = 1.0  # seconds
TRACE_AFTER: Final = 2.0  # seconds
INTERRUPT_AFTER = 10.0  # seconds
GRACE: Final = 1.0  # seconds after which an ignored interruption is repeated
INSISTENCE: Final = 100  # repetitions in a row
CLOSINGS: Final = 10  # interruptions after which closing code is abandoned

log = logging.getLogger("perdure.watchdog")


class Marker(Running):
    """The user code that runs on the loop's thread now."""

    __slots__ = (
        "_interruptions",
        "_lock",
        "_long_since",
        "_long_turn",
        "_place",
        "_strikes",
        "aside_for",
        "disarm",
        "instance_id",
        "interrupting",
        "is_aside",
        "is_ending",
        "thread_id",
        "turn",
    )

    def __init__(self, strikes: StrikeFile | None = None) -> None:
        self.instance_id = ""
        self.turn = 0
        self.thread_id = 0
        self.interrupting = False
        self.is_ending = False
        self.is_aside = False  # the engine works in the middle of the code
        self.aside_for = 0.0  # seconds that it has done so, in all
        self.disarm: Callable[[], object] = bool
        self._interruptions: Interruptions | None = None
        super().__init__()
        self._long_turn = -1  # a long turn, its start, and its place in the code
        self._long_since = 0.0
        self._place = ""
        self._strikes = strikes
        self._lock = threading.Lock()

    def on_this_thread(self) -> None:
        """Declare the calling thread the one that runs user code."""
        self.thread_id = threading.get_ident()
        self._interruptions = Interruptions(self.thread_id)
        self.disarm = self._interruptions.disarm

    def run(self, instance: Instance, code: Callable[..., T], *given: Any) -> T:
        error: BaseException | None = None
        try:
            self.turn += 1
            self.instance_id = instance.instance_id
            if self._strikes is not None:
                self._strikes.enter(instance.instance_id)
            value = code(*given)
            self.instance_id = ""  # in this order: see `interrupt`
            if not self.interrupting:
                if self.turn == self._long_turn:
                    lasted = time.monotonic() - self._long_since
                    self.notice = LoopHeld(milliseconds=int(lasted * 1_000), place=self._place)
                strikes = self._strikes
                if strikes is not None:
                    strikes.leave()
                    if strikes.strikes:
                        strikes.forgive(instance.instance_id)
                return value
        except BaseException as raised:
            self.instance_id = ""
            error = raised
        interrupted = self.interrupting or isinstance(error, Interrupted)
        while interrupted:  # one interruption may still be pending and arrive anywhere here
            try:
                self.disarm()
                self._call_off()
                break
            except Interrupted:
                self.disarm()
        if self._strikes is not None:
            self._returned(instance, self._strikes)
        if interrupted:
            error = None  # its traceback keeps the code's objects alive
            if self.is_ending:
                raise CutShort
            raise Interrupted(f"it blocked the engine for too long{self._place}")
        assert error is not None
        raise error

    def aside(self, work: Callable[[], None]) -> None:
        """Run engine work within the code's turn: the code is neither interrupted nor charged for its time.

        An interruption announced earlier comes first, and no other is raised while `is_aside` is set.
        """
        since = time.monotonic()
        strikes = self._strikes if self.instance_id else None
        try:
            self.is_aside = True  # in this order: see `interrupt`
            if self.interrupting:
                return
            if strikes is not None:
                strikes.leave()
            work()
            if strikes is not None:
                strikes.enter(self.instance_id)
        finally:
            self.aside_for += time.monotonic() - since
            self.is_aside = False

    def close(self, instance: Instance, execution: Execution) -> None:
        if execution.is_spent:
            execution.close()
            return
        for _ in range(CLOSINGS):
            try:
                self.run(instance, put_away, execution)
                return
            except (CutShort, Interrupted) as stopped:
                log.error(
                    "the code of instance %s did not end when it was closed: %s",
                    instance.instance_id,
                    stopped or "the engine stops",
                )

    def interrupt(self, turn: int, *, insist: bool = False) -> bool:
        """Raise Interrupted in the loop's thread, if that turn is still running.

        It announces the interruption before it checks the turn, and the turn ends before the loop checks for an
        announcement. So no interruption is pending without the loop knowing.
        """
        interruptions = self._interruptions
        with self._lock:
            self.interrupting = True
            if self.turn != turn or not self.instance_id or self.is_aside or interruptions is None:
                self.interrupting = False
                return False
            frame = sys._current_frames().get(self.thread_id)
            self._place = _place_in(frame)
            if insist:
                interruptions.insist(_user_code(frame))
            else:
                interruptions.ask()
            return True

    def mark_long(self, turn: int, since: float) -> None:
        """Record that this turn has been running since `since`, for an event on its instance. From the
        watchdog's thread.
        """
        self._place, self._long_since = _place_in(sys._current_frames().get(self.thread_id)), since
        self._long_turn = turn

    @property
    def is_marked(self) -> bool:
        return self._long_turn == self.turn

    def _call_off(self) -> None:
        """The code has returned: withdraw interruptions that would hit the engine."""
        with self._lock:
            self.disarm()
            self.interrupting = False
            if self._interruptions is not None:
                self._interruptions.calm()

    def _returned(self, instance: Instance, strikes: StrikeFile) -> None:
        strikes.leave()
        if strikes.strikes:
            strikes.forgive(instance.instance_id)


def _place_in(frame: FrameType | None) -> str:
    """The place in the code for a message: the innermost line outside the engine."""
    for one in _user_frames(frame):
        return f", in {one.f_code.co_name} ({one.f_code.co_filename}:{one.f_lineno})"
    return ""


def _user_code(frame: FrameType | None) -> list[CodeType]:
    return [one.f_code for one in _user_frames(frame)]


def _user_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames outside the engine in this turn, the innermost first."""
    while frame is not None and frame.f_code is not Marker.run.__code__:
        if not str(frame.f_globals.get("__name__", "")).startswith("perdure."):
            yield frame
        frame = frame.f_back


class Watchdog:
    """A thread that looks at the marker a few times a second."""

    def __init__(
        self,
        marker: Marker,
        *,
        warn_after: float = WARN_AFTER,
        after: float = INTERRUPT_AFTER,
        interrupts: bool = True,
        also: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.marker = marker
        self._also = also  # another check, a few times a second
        self._warn_after = warn_after
        self._after = after
        self._interrupts = interrupts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perdure-watchdog", daemon=True)
        self._seen = -1
        self._since = self._asked_at = self._aside_before = 0.0
        self._is_warned = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2)

    def held(self) -> tuple[str, float]:
        """The instance whose code occupies the loop's thread, and for how many seconds; "" when none does for
        long.
        """
        marker = self.marker
        turn, instance_id = marker.turn, marker.instance_id
        if not instance_id or turn != self._seen or marker.is_aside:
            return "", 0.0
        return instance_id, time.monotonic() - self._began()

    def end_turn(self) -> None:
        """Interrupt the running code at once, because the engine stops. From any thread."""
        self.marker.is_ending = True
        self._insist(self.marker.turn)

    def _watch(self) -> None:
        while not self._stop.wait(min(0.1, self._warn_after / 4)):
            marker = self.marker
            turn, instance_id = marker.turn, marker.instance_id
            now = time.monotonic()
            self._also(now)
            if not instance_id or turn != self._seen:
                self._since, self._asked_at, self._is_warned = now, 0.0, False
                self._aside_before = marker.aside_for
                self._seen = turn if instance_id else -1
            elif not marker.is_aside:
                self._look(turn, instance_id, now)

    def _began(self) -> float:
        """The start of the current turn, moved forward by the time of engine work within it."""
        return self._since + self.marker.aside_for - self._aside_before

    def _look(self, turn: int, instance_id: str, now: float) -> None:
        held = now - self._began()
        if held > self._warn_after and not self._is_warned:
            self._is_warned = True
            log.warning(
                "the orchestrator of instance %s has blocked the engine for %.1f s:\n%s",
                instance_id,
                held,
                stack_of(self.marker.thread_id),
            )
        if held > TRACE_AFTER and not self.marker.is_marked:
            self.marker.mark_long(turn, self._began())
        if not self._interrupts or held <= self._after:
            return
        if not self._asked_at:
            log.error("interrupting the code of instance %s after %.1f s", instance_id, held)
            self._asked_at = now
            self.marker.interrupt(turn)
        elif now - self._asked_at > min(GRACE, self._after):
            self._insist(turn)

    def _insist(self, turn: int) -> None:
        """Repeat the interruption until the turn ends or the attempts are used up."""
        marker = self.marker
        for number in range(INSISTENCE):
            if not marker.interrupt(turn, insist=not number % 2) or self._stop.wait(0.005):
                return


def stack_of(thread_id: int) -> str:
    """The current stack of a thread."""
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
    """Detach the marker, because an audit hook cannot be removed."""
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
        where = frame  # keep the last frame of the orchestrator, not of a library
        frame = frame.f_back
    if where is None:
        return
    place = (where.f_code.co_filename, where.f_lineno)
    if place in _reported:
        return
    _reported.add(place)
    log.warning(
        "orchestrator code of instance %s did I/O (%s %s) at %s:%d. The I/O repeats at every replay: move it "
        "into an activity",
        marker.instance_id,
        event,
        args[0] if args else "",
        *place,
    )
