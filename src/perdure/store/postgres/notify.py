"""Hints between workers: NOTIFY and LISTEN on their own thread and connection.

A hint announces a message in the inbox; a worker that misses it finds the message at the next poll. So nothing
here waits for the database, raises an error or guarantees delivery. It is never part of a commit: NOTIFY in a
transaction takes a server-wide lock at its end, and all workers would queue for it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import psycopg

from perdure.errors import StoreError
from perdure.store.postgres.binary import text
from perdure.store.postgres.connection import UPKEEP, connect
from perdure.store.postgres.pipeline import ready

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perdure.store.postgres.address import Address
    from perdure.store.postgres.pipeline import Wire

log = logging.getLogger("perdure.store")

_LOOK_AROUND: Final = 30.0  # seconds between checks of a silent connection
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0
_FAREWELL: Final = 2.0


def channel_of(schema: str, hub: str, incarnation: int) -> str:
    """The channel of an incarnation's hints."""
    return f"perdure_{sha256(f'{schema}/{hub}'.encode()).hexdigest()[:16]}_{incarnation}"


class Hints:
    """Sends and receives the hints of one store. For any thread."""

    def __init__(self, address: Address, hub: str) -> None:
        self._address = address
        self._hub = hub
        self._heard: Callable[[], None] | None = None
        self._own = 0  # the incarnation whose channel is listened to
        self._to_send: set[int] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._waker: socket.socket  # a write to it wakes the thread

    def send(self, incarnations: Iterable[int]) -> None:
        """Send hints to these incarnations soon."""
        with self._lock:
            self._to_send.update(incarnations)
            if self._to_send:
                self._wake()

    def listen(self, heard: Callable[[], None]) -> None:
        with self._lock:
            self._heard = heard
            self._wake()

    def become(self, incarnation: int) -> None:
        """Listen for this incarnation from now on, if there is a listener."""
        with self._lock:
            self._own = incarnation
            if self._heard is not None:
                self._wake()

    def stop(self) -> None:
        with self._lock:
            thread, ended, self._thread = self._thread, self._ended, None
            self._heard, self._to_send, self._own = None, set(), 0
            if thread is not None:
                ended.set()
                self._nudge()
        if thread is not None:
            thread.join(_FAREWELL)  # it may be in the middle of connecting, and then ends by itself

    def _wake(self) -> None:
        """Under the lock: wake the thread, or start it if there is work."""
        if self._thread is None:
            self._ended = threading.Event()
            woken, self._waker = socket.socketpair()
            woken.setblocking(False)
            self._waker.setblocking(False)
            arguments = (self._ended, woken, self._waker)
            self._thread = threading.Thread(
                target=self._run, args=arguments, name="perdure-hints", daemon=True
            )
            self._thread.start()
            return
        self._nudge()

    def _nudge(self) -> None:
        with suppress(OSError):  # it is already awake, or gone
            self._waker.send(b"x")

    # ------------------------------------------------------------------------------------------- its thread

    def _run(self, ended: threading.Event, woken: socket.socket, waker: socket.socket) -> None:
        pause = _FIRST_PAUSE
        with woken, waker:
            while not ended.is_set():
                began = time.monotonic()
                try:
                    wire = connect(self._address, UPKEEP)
                    try:
                        self._serve(wire, ended, woken)
                    finally:
                        wire.close()
                except (StoreError, psycopg.Error, OSError) as error:
                    log.info("notifications are interrupted, polling continues: %s", error)
                held = time.monotonic() - began > _LONGEST_PAUSE
                pause = _FIRST_PAUSE if held else min(2 * pause, _LONGEST_PAUSE)
                ended.wait(pause)

    def _serve(self, wire: Wire, ended: threading.Event, woken: socket.socket) -> None:
        """Serve until the stop, or until the connection breaks."""
        listening_for = 0
        while not ended.is_set():
            with self._lock:
                wanted = self._own if self._heard is not None else 0
                to_send, self._to_send = self._to_send, set()
            if wanted != listening_for:
                wire.text("unlisten *")
                if wanted:
                    wire.text(f"listen {channel_of(self._address.schema, self._hub, wanted)}")
                    self._tell()  # earlier hints were missed
                listening_for = wanted
            for incarnation in to_send:
                channel = channel_of(self._address.schema, self._hub, incarnation)
                wire.text("select pg_notify($1::text, '')", text(channel))
            if wire.notified():
                self._tell()
            if not ready([wire.socket, woken.fileno()], _LOOK_AROUND):
                wire.text("select 1")  # checks that the server is still there
            _drain(woken)

    def _tell(self) -> None:
        heard = self._heard
        if heard is not None:
            heard()


def _drain(woken: socket.socket) -> None:
    with suppress(BlockingIOError):
        while woken.recv(4_096):
            pass


__all__ = ["Hints", "channel_of"]
