"""Supervision: several processes serve one application, and one more sees to them.

The supervisor runs none of the application's code, so nothing an application does can hold it up. It has bound the
listening socket, and all children accept from it: a child that is being replaced loses nobody a connection. The first
child starts alone, since what is wrong with one is wrong with all; the others when it is ready. One that dies later
is started again, the later the sooner it died. A child is asked to stop, has its drain and a little more, and is
killed.
At SIGHUP each is replaced in turn, the next one when the one before is ready; if one does not get that far, the rest
stay as they are.
Whatever happens is an event between two looks around: a signal, a word from a child, a time that has come. A look
goes through the children and does what their state asks for.
"""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.server.child import VARIABLE, ReadyReport, described
from perdure.server.lease_keeper import is_at_work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from perdure.server.lease_keeper import LeaseKeeper

STEADY: Final = 10.0  # seconds of life after which a death is a first one again
PAUSES: Final = (
    0.2,
    1.0,
    2.0,
    5.0,
    10.0,
    30.0,
)  # seconds before a child is started again, by its deaths in a row
ALLOWANCE: Final = 8.0  # seconds that a child has to stop, besides its drain
_TICK: Final = 0.5
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_reports = msgspec.json.Decoder(ReadyReport)


class ChildState(Enum):
    """Where a child is."""

    DOWN = "down"
    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(frozen=True)
class Launch:
    """How a child is started: the arguments and variables of the one that is to bear this name."""

    arguments: Callable[[str], Sequence[str]]
    environment: Mapping[str, str]
    listener: socket.socket | None = None


@dataclass
class Child:
    """A place among the workers, and the process that has it now."""

    state: ChildState = ChildState.DOWN
    name: str = ""
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    heard: bytes = b""
    drain: float = 0.0
    since: float = 0.0  # when the process was started
    at: float = 0.0  # DOWN: when to start, LEAVING: when to kill
    deaths: int = 0  # in a row

    @property
    def pid(self) -> int:
        return self.process.pid if self.process is not None else 0


class Supervisor:
    """For the main thread.

    Parameters:
        launch: how children are started.
        name: what their names begin with.
        count: how many there are to be.
        say, announce: tell people something, and of the first report of a child that is ready.
        oversee: makes what keeps their leases, given a function that tells who is at work.
    """

    def __init__(
        self,
        launch: Launch,
        name: str,
        count: int,
        *,
        say: Callable[[str], object],
        announce: Callable[[ReadyReport], object],
        oversee: Callable[[Callable[[], list[str]]], LeaseKeeper | None],
    ) -> None:
        self._launch = launch
        self._name = name
        self._count = count
        self._say = say
        self._announce = announce
        self._oversight = oversee(self.at_work)
        self._children = [Child()]
        self._number = 0  # of the child that was started last
        self._has_served = False
        self._stopping = False
        self._code: int | None = None
        self._to_replace: list[Child] = []
        self._replacing: tuple[Child, str] | None = None  # a child, and the name it had
        self._came: list[int] = []  # signals
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Keep the children until told to stop; returns the exit code."""
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
        """The names of those whose leases are to be prolonged. From any thread."""
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
        """Signals wake the selector, and are taken up between two looks."""
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
        for key, _ in self._selector.select(_TICK):
            if isinstance(key.data, Child):
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
            self._say("at once")
            self._kill_all()
            return
        self._stopping = True
        self._give_up_replacing()
        self._say("stopping: workers hand over, and finish what they can. A second signal stops them at once")
        for child in self._children:
            self._dismiss(child)

    def _told_to_replace(self) -> None:
        if self._stopping or not self._has_served:
            return
        self._say("replacing the workers, one after the other")
        self._to_replace = list(self._children)

    def _hear(self, child: Child) -> None:
        line = child.line
        assert line is not None
        try:
            said = line.recv(65_536)
        except OSError:
            said = b""
        child.heard += said
        if not said:  # it has closed its end; that it has ended is seen otherwise
            self._selector.unregister(line)
            line.close()
            child.line = None
        elif b"\n" in child.heard and child.state is ChildState.STARTING:
            self._is_ready(child, _reports.decode(child.heard.partition(b"\n")[0]))

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
                        self._say(f"worker {child.name} has not stopped in time, and is killed")
                        self._kill(child)
                case ChildState.STARTING | ChildState.SERVING:
                    pass
        self._go_on_replacing(now)

    def _start(self, child: Child, now: float) -> None:
        self._number += 1
        ours, theirs = socket.socketpair()
        listener = self._launch.listener
        child.name, child.since, child.state = f"{self._name}/{self._number}", now, ChildState.STARTING
        child.line, child.heard = ours, b""
        self._selector.register(ours, selectors.EVENT_READ, child)
        with theirs:
            child.process = subprocess.Popen(
                self._launch.arguments(child.name),
                env={**self._launch.environment, VARIABLE: described(listener, theirs, self._number)},
                pass_fds=[one.fileno() for one in (listener, theirs) if one is not None],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # what a terminal sends is for the supervisor
            )

    def _ended(self, child: Child, code: int, now: float) -> None:
        was, pid = child.state, child.pid
        self._forget(child)
        if self._oversight is not None and self._has_served:
            self._oversight.ended(child.name)
        if was is ChildState.LEAVING:
            child.at = now
            return
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        if not self._has_served and not self._stopping:
            self._say(
                f"worker {child.name} {how} before it was ready, and so would the others: none is started"
            )
            self._code = code if code > 0 else 1
            return
        if self._replacing is not None and self._replacing[0] is child:
            self._give_up_replacing()
            self._say("the others are not replaced: they go on as they are")
        child.deaths = 1 if now - child.since >= STEADY else child.deaths + 1
        pause = PAUSES[min(child.deaths, len(PAUSES)) - 1]
        child.at = now + pause
        self._say(f"worker {child.name} (pid {pid}) {how}; another is started in {pause:g} s")

    def _forget(self, child: Child) -> None:
        if child.line is not None:
            self._selector.unregister(child.line)
            child.line.close()
        child.line, child.process, child.state = None, None, ChildState.DOWN

    def _go_on_replacing(self, now: float) -> None:
        """The next one is dismissed when the one before has a successor that is ready."""
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
        """Ask it to stop."""
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
