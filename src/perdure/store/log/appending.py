"""Appending: one record, certainly at the end, or certainly not.

A request without an answer is repeated until the log answers: the same record, under the same condition. At most
one of the requests can ever succeed. If the log says that its head has moved, the record at this position tells
whose it is.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from perdure.errors import FenceLost, StoreError
from perdure.store.log.port import Moved, Trimmed, Unknown

if TYPE_CHECKING:
    from perdure.store.log.port import Head, Log

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 2.0
T = TypeVar("T")


class Patience:
    """How long to repeat requests, and on whose clock."""

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.seconds, self.clock, self.sleep = seconds, clock, sleep
        self._random = random.Random(0)  # spreads the requests of several engines; nothing depends on it

    def asked(self, request: Callable[[], T], where: str) -> T:
        """The answer of a request. Raises StoreError if there is none in this time."""
        until, pause = self.clock() + self.seconds, _FIRST_PAUSE
        while True:
            try:
                return request()
            except Unknown as error:
                if self.clock() >= until:
                    raise StoreError(f"{where} does not answer: {error}") from error
                self.sleep(max(error.retry_after, pause * self._random.uniform(0.5, 1.0)))
                pause = min(_LONGEST_PAUSE, pause * 2)


class Appender:
    """The end of the log as one engine sees it. Commits and renewals of the lease come from two threads."""

    def __init__(self, log: Log, where: str, patience: Patience) -> None:
        self.log, self.where, self.patience = log, where, patience
        self._lock = threading.RLock()
        self._written = -1e9  # when this engine wrote the head, by its own clock
        self.position = -1  # of the next record, while this engine holds the hub

    def head(self) -> Head:
        with self._lock:
            return self.patience.asked(self.log.head, self.where)

    def begin(self, at: int, record: bytes, holder: bytes) -> None:
        """Append the record of an epoch. Raises Moved if the head is not as it was judged: look at it again."""
        with self._lock:
            self.patience.asked(lambda: self._append(at, record, holder), self.where)
            self._hold(at + 1)

    def append(self, at: int, record: bytes) -> None:
        """Append a record. Raises FenceLost: certainly not appended. Raises StoreError: unknown."""
        with self._lock:
            self.patience.asked(lambda: self._insist(at, record), self.where)
            self._hold(at + 1)

    def _hold(self, position: int) -> None:
        self.position, self._written = position, self.patience.clock()

    def _insist(self, at: int, record: bytes) -> None:
        while True:
            try:
                return self._append(at, record, None)
            except Moved:
                if self.log.head().end != at:
                    raise self._fenced(at) from None
                # only a renewal of this engine without an answer has changed the head

    def _append(self, at: int, record: bytes, holder: bytes | None) -> None:
        try:
            self.log.append(at, record, holder)
        except Moved:
            if not self._has(at, record):
                raise
            self.log.head()  # an earlier request has succeeded: go on from its head

    def _has(self, at: int, record: bytes) -> bool:
        try:
            found, _ = self.log.read(at)
        except (
            Trimmed
        ):  # the log has gone far beyond it: nothing shows whether an earlier request had succeeded
            raise StoreError(f"another engine has taken {self.where}, and record {at} was deleted") from None
        return bool(found) and found[0].content == record

    def _fenced(self, at: int) -> FenceLost:
        return FenceLost(f"another engine has taken {self.where}: record {at} is not of this engine")

    def renew(self, holder: bytes, every: float) -> None:
        """Write the head, if this engine holds the hub and has not written it for `every` seconds.

        Does nothing during a commit, which writes it too. Without an answer, the next call repeats it.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self.position >= 0 and self.patience.clock() - self._written >= every:
                self._touch(holder)
        finally:
            self._lock.release()

    def _touch(self, holder: bytes) -> None:
        with suppress(Unknown):
            try:
                self.log.touch(self.position, holder)
                self._written = self.patience.clock()
            except Moved:
                if self.log.head().end != self.position:
                    self.position = -1  # the next commit finds it out

    def due(self) -> None:
        """Let the next renewal write the head at once, because the holder has another address."""
        self._written = -1e9

    def leave(self) -> None:
        """Give up the hub at once, if it is held and the log answers."""
        with self._lock:
            at, self.position = self.position, -1
            if at >= 0:
                with suppress(Moved, Unknown):  # else the lease runs out
                    self.log.touch(at, b"")
            self.log.close()


__all__ = ["Appender", "Patience"]
