"""The worker's end of the channel: one connection per process, shared by all attempts for an engine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from typing import Any

import msgspec

from perdure.engine.activities.executors.channel import Card, ExecutorChannel, Said, Told, channel_here
from perdure.engine.activities.signals import AttemptSignals
from perdure.model.events import ABSENT

BEAT_EVERY = 0.1  # seconds between two sent heartbeats; the newest one in between is sent with the next
ANSWER_WITHIN = 30.0  # seconds that a worker waits for permission to begin

_told = msgspec.json.Decoder(Told)
_cards = msgspec.json.Decoder(Card)


class ChildAttempt:
    """One try of an attempt, in the worker: asks whether to begin, sends heartbeats, receives its cancellation."""

    def __init__(self, link: ChildChannel, token: str) -> None:
        self.signals: AttemptSignals = _Sending(self)
        self._link = link
        self.token = token
        self._answered = threading.Event()
        self._wanted = False
        self._on_cancel: Callable[[], None] | None = None
        self._sent_at = 0.0
        self._unsent: bytes | None = None

    def __enter__(self) -> None:
        self._link.calls[self.token] = self

    def __exit__(self, *_: object) -> None:
        self._link.calls.pop(self.token, None)
        self._link.say(Said("end", self.token))

    def begin(self) -> bool:
        """Ask whether the result is still wanted. Without an answer the engine is gone."""
        self._link.say(Said("begin", self.token, os.getpid()))
        return self._answered.wait(ANSWER_WITHIN) and self._wanted

    def beat(self, progress: bytes | None) -> None:
        """Send a heartbeat, or keep it until the next one may be sent."""
        self._unsent = progress if progress is not None else self._unsent or b""
        if time.monotonic() - self._sent_at >= BEAT_EVERY:
            self.flush()

    def flush(self) -> None:
        """Send a kept heartbeat."""
        unsent, self._unsent = self._unsent, None
        if unsent is not None:
            self._sent_at = time.monotonic()
            self._link.say(Said("beat", self.token, progress=msgspec.Raw(unsent) if unsent else ABSENT))

    def on_cancel(self, action: Callable[[], None]) -> None:
        """Call `action` on cancellation; at once if the attempt is already cancelled."""
        self._on_cancel = action
        if self.signals.is_cancelled:
            action()

    def hear(self, told: Told) -> None:
        if told.what == "cancel":
            self.signals.cancel(told.reason)
            if self._on_cancel is not None:
                self._on_cancel()
        else:
            self._wanted = told.what == "go"
            self._answered.set()


class _Sending(AttemptSignals):
    """Signals that send their heartbeats over the channel."""

    __slots__ = ("_call",)

    def __init__(self, call: ChildAttempt) -> None:
        super().__init__()
        self._call = call

    def beat(self, progress: bytes | None) -> None:
        super().beat(progress)
        self._call.beat(progress)


class ChildChannel:
    """A worker process's connection to one engine, shared by all its attempts."""

    def __init__(self, say: Callable[[Said], None]) -> None:
        self.calls: dict[str, ChildAttempt] = {}
        self.say = say

    def hear(self, told: Told) -> None:
        call = self.calls.get(told.token)
        if call is not None:
            call.hear(told)

    send = hear  # for a channel in the same process, this object is the worker


class _Connected(ChildChannel):
    def __init__(self, card: Card) -> None:
        super().__init__(self._send)
        self._connection: Connection = Client(card.address, authkey=card.key)
        self._lock = threading.Lock()
        self.is_open = True
        threading.Thread(target=self._listen, name="perdure-line", daemon=True).start()

    def _send(self, said: Said) -> None:
        try:
            with self._lock:
                self._connection.send_bytes(msgspec.json.encode(said))
        except OSError:
            self._lost()

    def _listen(self) -> None:
        try:
            while True:
                if self._connection.poll(BEAT_EVERY if self.calls else None):
                    self.hear(_told.decode(self._connection.recv_bytes()))
                for call in list(self.calls.values()):
                    call.flush()
        except (EOFError, OSError):
            self._lost()

    def _lost(self) -> None:
        """Cancel all attempts, because the engine is gone."""
        self.is_open = False
        for call in list(self.calls.values()):
            call.hear(Told("stop", call.token))
            call.hear(Told("cancel", call.token, "the engine that asked for it is gone"))


_links: dict[str, Any] = {}
_linking = threading.Lock()


def hub_on(card: bytes) -> str:
    """The hub of the engine that wrote the card."""
    return _cards.decode(card).hub


def attempt_of(card: bytes) -> ChildAttempt | None:
    """The worker's end of the channel for one attempt; None if the engine cannot be reached."""
    found = _cards.decode(card)
    with _linking:
        link = _links.get(found.address)
        if link is None or not link.is_open:
            link = _links[found.address] = _link(found)
    return ChildAttempt(link, found.token) if link.is_open else None


class _Here(ChildChannel):
    """A connection to an engine in the same process, without a socket."""

    def __init__(self, line: ExecutorChannel) -> None:
        super().__init__(self._say)
        self._line = line

    @property
    def is_open(self) -> bool:
        return not self._line._closed

    def _say(self, said: Said) -> None:
        self._line.hear(said, self)


class _Nowhere(ChildChannel):
    is_open = False

    def __init__(self) -> None:
        super().__init__(lambda said: None)


def _link(card: Card) -> Any:
    line = channel_here(card.address)
    if line is not None:
        return _Here(line)
    try:
        return _Connected(card)
    except (OSError, EOFError, AuthenticationError):
        return _Nowhere()


__all__ = ["ChildAttempt", "attempt_of", "hub_on"]
