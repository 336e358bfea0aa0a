"""The channel between an engine and its executors' workers: a local socket, one connection per worker.

The engine listens while it has executors. A worker asks before it starts an attempt (`begin`, answered with go
or stop), sends heartbeats, and reports the end; the engine sends cancellations. All messages are JSON of a few
dozen bytes. The card that travels with each attempt has the address and a key that admits to this channel only.
A dead worker leaves no lock behind, which is why this is not a shared queue.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from typing import Literal, Protocol
from weakref import WeakValueDictionary

import msgspec

from perdure.engine.activities.runner import Attempt
from perdure.model.events import ABSENT

BEAT_EVERY = 0.1  # seconds between two sent heartbeats; the newest one in between is sent with the next
ANSWER_WITHIN = 30.0  # seconds that a worker waits for permission to begin

log = logging.getLogger("perdure.engine")


class Card(msgspec.Struct, frozen=True):
    """The engine's address, and the token of an attempt."""

    address: str
    key: bytes
    token: str
    hub: str = ""


class Said(msgspec.Struct, omit_defaults=True):
    """A message of a worker."""

    what: Literal["begin", "beat", "end"]
    token: str
    pid: int = 0
    progress: msgspec.Raw = ABSENT


class Told(msgspec.Struct, omit_defaults=True):
    """A message to a worker."""

    what: Literal["go", "stop", "cancel"]
    token: str
    reason: str = ""


_said = msgspec.json.Decoder(Said)
_here: WeakValueDictionary[str, ExecutorChannel] = WeakValueDictionary()


def channel_here(address: str) -> ExecutorChannel | None:
    """The channel with this address, if its engine is in this process."""
    return _here.get(address)


class ChildPeer(Protocol):
    """A worker that runs attempts, as the channel sees it."""

    def send(self, told: Told) -> None: ...


class ExecutorChannel:
    """The engine's end of the channel."""

    def __init__(self, begin: Callable[[Attempt, int], None], gone: Callable[[Attempt], None]) -> None:
        """`begin` is called with an attempt and the process that starts it, `gone` when that process has ended."""
        self._begin = begin
        self._gone = gone
        self._key = secrets.token_bytes(16)
        self._listener = Listener(backlog=64, authkey=self._key)
        address = self._listener.address
        self.address = address if isinstance(address, str) else f"{address[0]}:{address[1]}"
        self._attempts: dict[str, Attempt] = {}
        self._workers: dict[str, ChildPeer] = {}
        self._count = 0
        self._closed = False
        self._lock = threading.Lock()  # orders permission to begin and its revocation
        _here[self.address] = self
        threading.Thread(target=self._accept, name="perdure-line", daemon=True).start()

    def card(self, attempt: Attempt) -> tuple[str, bytes]:
        """A token for one try of an attempt, and its card."""
        self._count += 1
        token = f"{attempt.invocation.execution_id}.{attempt.invocation.task_id}.{self._count}"
        self._attempts[token] = attempt
        return token, msgspec.json.encode(Card(self.address, self._key, token, attempt.runner.hub))

    def forget(self, token: str) -> None:
        """Forget a try that has ended."""
        self._attempts.pop(token, None)
        self._workers.pop(token, None)

    def revoke(self, token: str) -> bool:
        """Revoke a try; returns whether it had not begun and never will."""
        with self._lock:
            attempt = self._attempts.get(token)
            if attempt is None or attempt.begun:
                return False
            self.forget(token)
            return True

    def cancel(self, token: str, reason: str) -> None:
        """Send a cancellation to the worker that runs the try, if any."""
        worker = self._workers.get(token)
        if worker is not None:
            worker.send(Told("cancel", token, reason))

    def close(self) -> None:
        self._closed = True
        _here.pop(self.address, None)
        self._knock()
        self._listener.close()

    def _knock(self) -> None:
        """Wake the accepting thread with an empty connection, without waiting for an answer, because it may
        have ended.
        """
        address = self._listener.address
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        with socket.socket(family) as knocking, suppress(OSError):
            knocking.settimeout(1.0)
            knocking.connect(address)

    def hear(self, said: Said, worker: ChildPeer) -> None:
        """Handle a message of a worker."""
        match said.what:
            case "begin":
                worker.send(Told("go" if self._may_begin(said, worker) else "stop", said.token))
            case "beat":
                attempt = self._attempts.get(said.token)
                if attempt is not None:
                    attempt.beat(bytes(said.progress) or None)
            case _:
                self._workers.pop(said.token, None)

    def _may_begin(self, said: Said, worker: ChildPeer) -> bool:
        with self._lock:
            attempt = self._attempts.get(said.token)
            if attempt is None:
                return False
            self._workers[said.token] = worker
            if attempt.settled:  # checked after the worker is registered: a later settlement finds the worker
                return False
            self._begin(attempt, said.pid)
            return True

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.accept()
            except Exception as error:  # a peer without the key, or a worker that died during the handshake
                if not self._closed:
                    log.debug("a worker could not be admitted: %s", error)
                    time.sleep(0.01)
                continue
            threading.Thread(
                target=self._listen, args=(connection,), name="perdure-line", daemon=True
            ).start()

    def _listen(self, connection: Connection) -> None:
        with connection:
            worker = _Remote(connection)
            try:
                while not self._closed:
                    self.hear(_said.decode(connection.recv_bytes()), worker)
            except (EOFError, OSError):
                pass  # the worker is gone; its executor reports the end of its attempt
            for token in [token for token, other in self._workers.copy().items() if other is worker]:
                attempt = self._attempts.get(token)
                if attempt is not None:
                    self._gone(attempt)


class _Remote:
    """A worker in another process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, told: Told) -> None:
        try:
            with self._lock:
                self._connection.send_bytes(msgspec.json.encode(told))
        except OSError:
            pass  # the worker is gone


__all__ = ["Card", "ExecutorChannel", "Said", "Told", "channel_here"]
