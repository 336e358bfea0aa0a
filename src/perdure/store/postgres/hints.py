"""Hints between workers: NOTIFY and LISTEN on a thread and a connection of their own.

A hint says that there is something in the inbox; who misses it finds it at the next poll. So nothing here waits
for the database, reports an error or promises anything. It is never part of a commit: NOTIFY in a transaction
takes a lock of the whole server's at its end, and all workers would queue for it.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import psycopg

from perdure.errors import StoreError
from perdure.store.postgres.arrays import text
from perdure.store.postgres.connection import UPKEEP, connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from perdure.store.postgres.address import Address
    from perdure.store.postgres.wire import Wire

log = logging.getLogger("perdure.store")

_LOOK_AROUND: Final = 30.0  # seconds between looks at a connection that says nothing
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0


def channel_of(schema: str, hub: str, incarnation: int) -> str:
    """Where hints for an incarnation are sent."""
    return f"perdure_{sha256(f'{schema}/{hub}'.encode()).hexdigest()[:16]}_{incarnation}"


class Hints:
    """Sends hints for one store and hears those for it. For any thread."""

    def __init__(self, address: Address, hub: str) -> None:
        self._address = address
        self._hub = hub
        self._heard: Callable[[], None] | None = None
        self._own = 0  # the incarnation that is listened for
        self._to_send: set[int] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake_read, self._wake_write = -1, -1
        self._stopping = False

    def send(self, incarnations: Iterable[int]) -> None:
        """Soon, to these."""
        with self._lock:
            self._to_send.update(incarnations)
            if self._to_send:
                self._wake()

    def listen(self, heard: Callable[[], None]) -> None:
        with self._lock:
            self._heard = heard
            self._wake()

    def become(self, incarnation: int) -> None:
        """Listen for this incarnation from now on, if there is anybody to tell."""
        with self._lock:
            self._own = incarnation
            if self._heard is not None:
                self._wake()

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping = True
            self._heard, self._to_send, self._own = None, set(), 0
            if thread is not None:
                os.write(self._wake_write, b"x")
        if thread is not None:
            thread.join()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _wake(self) -> None:
        """Under the lock: let the thread look, which is started when there is something to do."""
        if self._thread is None:
            self._stopping = False
            self._wake_read, self._wake_write = os.pipe()
            os.set_blocking(self._wake_read, False)
            os.set_blocking(self._wake_write, False)
            self._thread = threading.Thread(target=self._run, name="perdure-hints", daemon=True)
            self._thread.start()
            return
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            pass  # it has been told often enough

    # ------------------------------------------------------------------------------------------- its thread

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping:
            began = time.monotonic()
            try:
                wire = connect(self._address, UPKEEP)
                try:
                    self._serve(wire)
                finally:
                    wire.close()
            except (StoreError, psycopg.Error, OSError) as error:
                log.info("hints are not heard for a while, polling goes on: %s", error)
            if self._stopping:
                return
            pause = (
                _FIRST_PAUSE if time.monotonic() - began > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            )
            self._sleep(pause)

    def _serve(self, wire: Wire) -> None:
        """Until told to stop, or until the connection breaks."""
        listening_for = 0
        while not self._stopping:
            with self._lock:
                wanted = self._own if self._heard is not None else 0
                to_send, self._to_send = self._to_send, set()
            if wanted != listening_for:
                wire.text("unlisten *")
                if wanted:
                    wire.text(f"listen {channel_of(self._address.schema, self._hub, wanted)}")
                    self._tell()  # what was hinted at before this is not heard any more
                listening_for = wanted
            for incarnation in to_send:
                channel = channel_of(self._address.schema, self._hub, incarnation)
                wire.text("select pg_notify($1::text, '')", text(channel))
            if wire.notified():
                self._tell()
            self._wait(wire)

    def _tell(self) -> None:
        heard = self._heard
        if heard is not None:
            heard()

    def _wait(self, wire: Wire) -> None:
        poll = select.poll()
        poll.register(wire.socket, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        if not poll.poll(_LOOK_AROUND * 1_000):
            wire.text("select 1")  # find out whether the other side is still there
        self._drain()

    def _sleep(self, seconds: float) -> None:
        """A pause that only stopping cuts short."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if poll.poll(left * 1_000):
                self._drain()

    def _drain(self) -> None:
        try:
            while os.read(self._wake_read, 4_096):
                pass
        except BlockingIOError:
            pass


__all__ = ["Hints", "channel_of"]
