"""A child's side of supervision: the socket it accepts from, and the line to its supervisor.

The line is one socket, with a JSON document in each line of text. The child reports when it can take work. A child
that is asked for `/metrics` asks the supervisor, which asks the other children and answers with the counts of all. If
the line closes, the supervisor is gone, for whatever reason, and the child stops. After an upgrade the two can be of
different versions: each ignores what it does not understand.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.telemetry.merging import Snapshot, readings_of, snapshot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from perdure.telemetry.metrics import Metrics, Reading

VARIABLE: Final = "_PERDURE_SUPERVISED"
"""Set for children only: the descriptors of the listening socket (-1 for none) and of the line, and a number."""
ANSWERED_WITHIN: Final = (
    5.0  # seconds in which a supervisor answers; a child that waits longer shows its own counts
)


class ReadyReport(msgspec.Struct, frozen=True, tag="ready"):
    """The report of a child that is ready. Times are in seconds, from the settings of its application."""

    drain: float
    lease: float
    facts: list[tuple[str, str]]


class Counted(msgspec.Struct, frozen=True, tag="counted"):
    """What a child has counted so far. `number` is that of the question; 0 if nobody has asked."""

    number: int
    snapshot: Snapshot


class Gather(msgspec.Struct, frozen=True, tag="gather"):
    """A child asks for the counts of all children."""

    number: int
    snapshot: Snapshot


class Count(msgspec.Struct, frozen=True, tag="count"):
    """The supervisor asks a child what it has counted."""

    number: int


class Gathered(msgspec.Struct, frozen=True, tag="gathered"):
    """The supervisor's answer: the counts by the names of its places."""

    number: int
    snapshots: dict[str, Snapshot]


FromChild = ReadyReport | Counted | Gather
FromSupervisor = Count | Gathered
from_child = msgspec.json.Decoder(FromChild)
from_supervisor = msgspec.json.Decoder(FromSupervisor)


def line_of(message: FromChild | FromSupervisor) -> bytes:
    """A message as it goes over the line."""
    return msgspec.json.encode(message) + b"\n"


@dataclass
class Tether:
    """A child's connection to its supervisor. For the event loop's thread."""

    number: int
    listener: socket.socket | None
    line: socket.socket
    metrics: Metrics | None = None
    _heard: bytearray = field(default_factory=bytearray)
    _asked: dict[int, asyncio.Future[dict[str, Snapshot]]] = field(default_factory=dict)
    _questions: int = 0
    _sending: asyncio.Lock = field(default_factory=asyncio.Lock)
    _answers: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def is_first(self) -> bool:
        """Whether this is the first child, which alone logs what is the same for all."""
        return self.number == 1

    async def tell(self, message: FromChild) -> None:
        """Send a message to the supervisor."""
        with suppress(OSError):  # the supervisor is gone, and `listen` is about to notice
            async with self._sending:
                await asyncio.get_running_loop().sock_sendall(self.line, line_of(message))

    def listen(self, stop: Callable[[], object]) -> None:
        """Answer the supervisor's questions. Call `stop` on the running event loop when the supervisor is gone."""
        loop = asyncio.get_running_loop()
        self.line.setblocking(False)

        def look() -> None:
            try:
                heard = self.line.recv(65_536)
            except BlockingIOError:
                return
            except OSError:
                heard = b""
            if not heard:
                loop.remove_reader(self.line)
                stop()
                return
            self._hear(heard)

        loop.add_reader(self.line, look)

    def serve(self, metrics: Metrics | None) -> None:
        """Count and show these metrics, together with those of the other children."""
        if metrics is not None:
            self.metrics, metrics.gather = metrics, self.gather

    async def gather(self) -> list[tuple[str, list[Reading]]]:
        """The metrics of all children, by the supervisor's names of their places."""
        self._questions += 1
        number = self._questions
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        own = await self._snapshot(of_hub=True)
        try:
            async with asyncio.timeout(ANSWERED_WITHIN):
                await self.tell(Gather(number, own))
                snapshots = await answer
        except TimeoutError:
            snapshots = {self.metrics.worker if self.metrics is not None else "": own}
        finally:
            del self._asked[number]
        return [(name, readings_of(snapshot)) for name, snapshot in snapshots.items()]

    async def tell_last(self) -> None:
        """Send the last counts before this child ends."""
        if self.metrics is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.tell(Counted(0, snapshot_of(self.metrics.counted())))

    def _hear(self, heard: bytes) -> None:
        self._heard += heard
        while b"\n" in self._heard:
            line, _, rest = self._heard.partition(b"\n")
            self._heard = bytearray(rest)
            match _understood(bytes(line)):
                case None:
                    pass
                case Count(number):
                    task = asyncio.create_task(self._answer(number))
                    self._answers.add(task)
                    task.add_done_callback(self._answers.discard)
                case Gathered(number, snapshots):
                    answer = self._asked.get(number)
                    if answer is not None and not answer.done():
                        answer.set_result(snapshots)

    async def _answer(self, number: int) -> None:
        await self.tell(Counted(number, await self._snapshot(of_hub=False)))

    async def _snapshot(self, *, of_hub: bool) -> Snapshot:
        """The counts of this child. Only the child that was asked for `/metrics` reads the gauges of the hub."""
        metrics = self.metrics
        return (
            {}
            if metrics is None
            else await asyncio.to_thread(lambda: snapshot_of(metrics.read(of_hub=of_hub)))
        )


def _understood(line: bytes) -> FromSupervisor | None:
    try:
        found: FromSupervisor = from_supervisor.decode(line)
        return found
    except msgspec.MsgspecError:
        return None


def described(listener: socket.socket | None, line: socket.socket, number: int) -> str:
    """The value of the variable for a child."""
    return f"{-1 if listener is None else listener.fileno()},{line.fileno()},{number}"


def tether() -> Tether | None:
    """The connection to the supervisor that started this process, or None. Child processes do not inherit it."""
    given = os.environ.pop(VARIABLE, "")
    if not given:
        return None
    listening, line, number = map(int, given.split(","))
    for descriptor in filter(lambda one: one >= 0, (listening, line)):
        os.set_inheritable(descriptor, False)
    listener = None if listening < 0 else socket.socket(fileno=listening)
    return Tether(number, listener, socket.socket(fileno=line))


__all__ = [
    "VARIABLE",
    "Count",
    "Counted",
    "Gather",
    "Gathered",
    "ReadyReport",
    "Tether",
    "described",
    "from_child",
    "line_of",
    "tether",
]
