"""A child's side of supervision: the socket it accepts from, and the line to its supervisor.

The line is one socket. The child sends one report on it, when it can take work. The supervisor sends nothing. If the
line closes, the supervisor is gone, for whatever reason, and the child stops.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE: Final = "_PERDURE_SUPERVISED"
"""Set for children only: the descriptors of the listening socket (-1 for none) and of the line, and a number."""


class ReadyReport(msgspec.Struct, frozen=True):
    """The report of a child that is ready. Times are in seconds, from the settings of its application."""

    drain: float
    lease: float
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Tether:
    """A child's connection to its supervisor."""

    number: int
    listener: socket.socket | None
    line: socket.socket

    def tell(self, report: ReadyReport) -> None:
        """Report that this child is ready."""
        with suppress(OSError):  # the supervisor is gone, and `when_cut` is about to notice
            self.line.sendall(msgspec.json.encode(report) + b"\n")

    def when_cut(self, stop: Callable[[], object]) -> None:
        """Call `stop` on the running event loop when the supervisor is gone."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            loop.remove_reader(self.line)
            stop()

        loop.add_reader(self.line, look)


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


__all__ = ["VARIABLE", "ReadyReport", "Tether", "described", "tether"]
