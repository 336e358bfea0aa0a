"""The supervisor of several processes that serve one application.

The supervisor runs none of the application's code, so an application cannot block it. It binds the listening socket
and all children accept from it, so replacing a child loses no connection. The first child starts alone, because an
error in one affects all. The others start when it is ready. A child that dies later is restarted, after a pause that
grows with its deaths in a row. To stop a child, the supervisor asks it to stop, waits for its drain and a little
longer, and then kills it.
On SIGHUP the supervisor replaces the children one after the other. It waits until a replacement is ready before it
replaces the next child. If a replacement does not become ready, the remaining children are not replaced.
Signals, reports of children and due times are collected between two looks. A look goes through the children and acts
on the state of each.
"""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.server.child import (
    VARIABLE,
    Count,
    Counted,
    Gather,
    Gathered,
    ReadyReport,
    described,
    from_child,
    line_of,
)
from perdure.server.lease_keeper import is_at_work
from perdure.telemetry.merging import Place, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from perdure.server.lease_keeper import LeaseKeeper

STEADY: Final = 10.0  # a child that lived this many seconds begins a new row of deaths
PAUSES: Final = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before a child is restarted, by its deaths in a row."""
ALLOWANCE: Final = 8.0  # seconds that a child has to stop, in addition to its drain
_TICK: Final = 0.5
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_COUNTED_WITHIN: Final = 2.0  # seconds in which children answer; of one that does not, the last answer counts


class ChildState(Enum):
    """The state of a child."""

    DOWN = "down"
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(frozen=True)
class Launch:
    """How to start a child: its arguments, given its name, and its environment."""

    arguments: Callable[[str], Sequence[str]]
    environment: Mapping[str, str]
    listener: socket.socket | None = None


@dataclass
class Child:
    """One of the workers, and its current process."""

    state: ChildState = ChildState.DOWN
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    heard: bytes = b""
    unsent: bytes = b""
    place: Place = field(default_factory=Place)
    drain: float = 0.0
    since: float = 0.0  # when the process started
    at: float = 0.0  # DOWN: when to start it, LEAVING: when to kill it
    deaths: int = 0  # in a row

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0


@dataclass
class Gathering:
    """A child's question for the counts of all, until the others have answered or the time is over."""

    asker: Child
    number: int
    missing: list[Child]
    until: float


class Supervisor:
    """Starts, restarts, replaces and stops the children. Runs on the main thread.

    Parameters:
        launch: how to start children.
        name: the prefix of their names.
        count: the number of children.
        say: prints a message.
        announce: prints the report of the first child that is ready.
        place: the name of this supervisor in metrics, which stays the same over its restarts.
        oversee: makes the `LeaseKeeper`, given a function that returns the names of the running workers.
    """

    def __init__(
        self,
        launch: Launch,
        name: str,
        count: int,
        *,
        say: Callable[[str], object],
        announce: Callable[[ReadyReport], object],
        place: str = "",
        oversee: Callable[[Callable[[], list[str]]], LeaseKeeper | None],
    ) -> None:
        self._launch = launch
        self._name = name
        self._place = place or name
        self._count = count
        self._say = say
        self._announce = announce
        self._oversight = oversee(self.at_work)
        self._children = [Child()]
        self._number = 0  # of the last child started
        self._has_served = False
        self._stopping = False
        self._code: int | None = None
        self._to_replace: list[Child] = []
        self._replacing: tuple[Child, str] | None = None  # a child, and the name it had
        self._came: list[int] = []  # signals
        self._gathering: dict[int, Gathering] = {}
        self._questions = 0
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Supervise the children until a signal stops them. Returns the exit code."""
        with self._hearing():
            if self._oversight is not None:
                self._oversight.start()
            try:
                while not self._is_over():
                    self._look(time.monotonic())
                    self._wait()
            finally:
                self._kill_all()
                if self._oversight is not None:
                    self._oversight.stop()
        return self._code or 0

    def at_work(self) -> list[str]:
        """The names of the workers whose leases the supervisor renews. Safe to call from any thread."""
        registered = (ChildState.SERVING, ChildState.LEAVING)
        return [
            one.name
            for one in list(self._children)
            if one.state in registered and one.pid and is_at_work(one.pid)
        ]

    def _is_over(self) -> bool:
        is_empty = all(one.state is ChildState.DOWN for one in self._children)
        return is_empty and (self._stopping or self._code is not None)

    # ---------------------------------------------------------------------------------------------- events

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """Let signals wake the selector, to be handled between two looks."""
        reading, writing = socket.socketpair()
        for end in (reading, writing):
            end.setblocking(False)
        self._selector.register(reading, selectors.EVENT_READ)
        before = {sign: signal.signal(sign, lambda came, _: self._came.append(came)) for sign in _SIGNALS}
        woken = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for sign, handler in before.items():
                signal.signal(sign, handler)
            self._selector.close()
            reading.close()
            writing.close()

    def _wait(self) -> None:
        for key, mask in self._selector.select(_TICK):
            if isinstance(key.data, Child):
                if mask & selectors.EVENT_WRITE:
                    self._send(key.data)
                if mask & selectors.EVENT_READ:
                    self._hear(key.data)
            else:
                with suppress(BlockingIOError):
                    while key.fileobj.recv(4_096):  # type: ignore[union-attr]
                        pass
        came, self._came = self._came, []
        for sign in came:
            if sign in (signal.SIGTERM, signal.SIGINT):
                self._told_to_stop()
            elif sign == signal.SIGHUP:
                self._told_to_replace()

    def _told_to_stop(self) -> None:
        if self._stopping:
            self._say("stopping at once")
            self._kill_all()
            return
        self._stopping = True
        self._give_up_replacing()
        self._say(
            "stopping: workers hand over and finish running activities. A second signal stops them at once"
        )
        for child in self._children:
            self._dismiss(child)

    def _told_to_replace(self) -> None:
        if self._stopping or not self._has_served:
            return
        self._say("replacing the workers one after the other")
        self._to_replace = list(self._children)

    def _hear(self, child: Child) -> None:
        line = child.line
        assert line is not None
        try:
            said = line.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        child.heard += said
        if not said:  # the child closed its end; `_look` notices when its process ends
            self._selector.unregister(line)
            line.close()
            child.line = None
        *lines, child.heard = child.heard.split(b"\n")
        for one in lines:
            self._is_told(child, one)

    def _is_told(self, child: Child, line: bytes) -> None:
        try:
            message = from_child.decode(line)
        except msgspec.MsgspecError:  # of another version, after an upgrade
            return
        match message:
            case ReadyReport() as report:
                if child.state is ChildState.STARTING:
                    self._is_ready(child, report)
            case Counted(number, snapshot):
                child.place.last = snapshot
                self._has_counted(child, number)
            case Gather(number, snapshot):
                child.place.last = snapshot
                self._gather(child, number)

    # ------------------------------------------------------------------------------------------- counts

    def _gather(self, asker: Child, number: int) -> None:
        """Ask the other children what they have counted."""
        self._questions += 1
        others = [one for one in self._children if one is not asker and one.state is ChildState.SERVING]
        until = time.monotonic() + _COUNTED_WITHIN
        self._gathering[self._questions] = Gathering(asker, number, others, until)
        for one in others:
            self._tell(one, line_of(Count(self._questions)))
        self._look_at_gatherings(time.monotonic())

    def _has_counted(self, child: Child, question: int) -> None:
        found = self._gathering.get(question)
        if found is not None and child in found.missing:
            found.missing.remove(child)
            self._look_at_gatherings(time.monotonic())

    def _look_at_gatherings(self, now: float) -> None:
        """Answer the questions that all children have answered, or that have waited long enough."""
        for question, one in list(self._gathering.items()):
            one.missing = [child for child in one.missing if child.line is not None]
            if not one.missing or now >= one.until:
                del self._gathering[question]
                places = {
                    f"{self._place}/{number}": child.place for number, child in enumerate(self._children, 1)
                }
                self._tell(one.asker, line_of(Gathered(one.number, together(places))))

    def _tell(self, child: Child, line: bytes) -> None:
        """Send to a child, as fast as it reads."""
        if child.line is not None:
            child.unsent += line
            self._send(child)

    def _send(self, child: Child) -> None:
        line = child.line
        if line is None:
            return
        try:
            while child.unsent:
                child.unsent = child.unsent[line.send(child.unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # it is gone, which `_hear` notices
            child.unsent = b""
        waits = selectors.EVENT_WRITE if child.unsent else 0
        self._selector.modify(line, selectors.EVENT_READ | waits, child)

    # ------------------------------------------------------------------------------------------- readiness

    def _is_ready(self, child: Child, report: ReadyReport) -> None:
        child.state, child.drain = ChildState.SERVING, report.drain
        if self._oversight is not None:
            self._oversight.lease = report.lease
        if not self._has_served:
            self._has_served = True
            self._announce(report)
            self._children += [Child() for _ in range(self._count - 1)]
        self._say(f"worker {child.name} serves (pid {child.pid})")

    # ------------------------------------------------------------------------------------------- looking

    def _look(self, now: float) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                self._ended(child, child.process.returncode, now)
            match child.state:
                case ChildState.DOWN:
                    if now >= child.at and not self._stopping and self._code is None:
                        self._start(child, now)
                case ChildState.LEAVING:
                    if now >= child.at:
                        self._say(f"worker {child.name} has not stopped in time and is killed")
                        self._kill(child)
                case ChildState.STARTING | ChildState.SERVING:
                    pass
        self._go_on_replacing(now)
        self._look_at_gatherings(now)

    def _start(self, child: Child, now: float) -> None:
        self._number += 1
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        listener = self._launch.listener
        child.name, child.since, child.state = f"{self._name}/{self._number}", now, ChildState.STARTING
        child.line, child.heard, child.unsent = ours, b"", b""
        self._selector.register(ours, selectors.EVENT_READ, child)
        with theirs:
            child.process = subprocess.Popen(
                self._launch.arguments(child.name),
                env={**self._launch.environment, VARIABLE: described(listener, theirs, self._number)},
                pass_fds=[one.fileno() for one in (listener, theirs) if one is not None],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that a terminal's signals go to the supervisor only
            )

    def _ended(self, child: Child, code: int, now: float) -> None:
        was, pid = child.state, child.pid
        while child.line is not None and self._has_said_more(child):
            self._hear(child)
        child.place.ended()
        self._forget(child)
        if self._oversight is not None and self._has_served:
            self._oversight.ended(child.name)
        if was is ChildState.LEAVING:
            child.at = now
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if not self._has_served and not self._stopping:
            self._say(
                f"worker {child.name} {how} before it was ready. The other workers are not started, because they "
                "would fail in the same way"
            )
            self._code = code if code > 0 else 1
            return
        if self._replacing is not None and self._replacing[0] is child:
            self._give_up_replacing()
            self._say("the other workers are not replaced and keep running")
        child.deaths = 1 if now - child.since >= STEADY else child.deaths + 1
        pause = PAUSES[min(child.deaths, len(PAUSES)) - 1]
        child.at = now + pause
        self._say(f"worker {child.name} (pid {pid}) {how}. It is restarted in {pause:g} s")

    def _has_said_more(self, child: Child) -> bool:
        """Whether a child that has ended said something that is not heard yet, such as its last counts."""
        assert child.line is not None
        try:
            return bool(child.line.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _forget(self, child: Child) -> None:
        if child.line is not None:
            self._selector.unregister(child.line)
            child.line.close()
        child.line, child.process, child.state = None, None, ChildState.DOWN

    def _go_on_replacing(self, now: float) -> None:
        """Stop the next child when the replacement of the one before is ready."""
        if self._replacing is not None:
            child, before = self._replacing
            if child.state is not ChildState.SERVING or child.name == before:
                return
            self._replacing = None
        if self._to_replace:
            child = self._to_replace.pop(0)
            self._replacing = child, child.name
            self._dismiss(child)
            child.at = child.at if child.state is ChildState.LEAVING else now

    def _give_up_replacing(self) -> None:
        self._to_replace, self._replacing = [], None

    # ------------------------------------------------------------------------------------------- stopping

    def _dismiss(self, child: Child) -> None:
        """Ask a child to stop."""
        if child.process is None or child.state is ChildState.LEAVING:
            return
        child.state, child.at = ChildState.LEAVING, time.monotonic() + child.drain + ALLOWANCE
        child.process.terminate()

    def _kill(self, child: Child) -> None:
        if child.process is not None:
            child.process.kill()
            child.process.wait()

    def _kill_all(self) -> None:
        for child in self._children:
            self._kill(child)


__all__ = ["Child", "Launch", "ChildState", "Supervisor"]
