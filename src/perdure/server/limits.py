"""Connections: how long a client may take, and how much it may send before it has asked for anything.

A server that reads as slowly as it is sent to is filled by clients that send a byte a minute, and one that gathers
whatever comes is filled by a single header without an end. uvicorn leaves both to a proxy in front; here is none.
So a connection is always in one part of a message, and each part has its bounds: the head a time and a size, the
body a pace, and the answer a time in which the client goes on reading. The clock stands still while it is the
server that does not read. Among connections that have asked for nothing yet, the oldest makes room when there
are too many: a client that is about to ask needs milliseconds, one that only holds the line loses it.
A server that stops gives connections without a request a moment more, for a request that is on its way: it is
answered, as the connection's last.

What follows a body (trailers) is read and dropped. It would otherwise become part of the headers, and a proxy that
takes `X-Forwarded-For` or a key out of the headers does not look there.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio import TimerHandle


@dataclass(frozen=True)
class ClientTimeouts:
    """What one connection may take. Times are seconds.

    Parameters:
        head: until all headers of a request are there, from its first byte; of a new connection, from the beginning.
        head_bytes: request line and headers while they arrive.
        body: without a byte of a body; and the time that any body has before `rate` counts.
        rate: bytes a second at which a body has to come.
        reading: without the client taking anything of an answer that is too large to be kept for it.
        unread: bytes of a body that are still taken when the answer has been given.
        crowd: connections whose head is not complete, of all clients together.
        parting: for a request to arrive, once the server stops.
    """

    head: float = 10.0
    head_bytes: int = 64 * 1024
    body: float = 15.0
    rate: int = 1_024
    reading: float = 30.0
    unread: int = 1024 * 1024
    crowd: int = 256
    parting: float = 1.0


@dataclass(frozen=True)
class ConnectionFactory:
    """Makes the connections of one server."""

    patience: ClientTimeouts = field(default_factory=ClientTimeouts)
    waiting: OrderedDict[Connection, None] = field(default_factory=OrderedDict)

    def __call__(self, **given: Any) -> Connection:
        return Connection(self, **given)


class Connection(HttpToolsProtocol):
    """One connection, with the bounds of its door."""

    def __init__(self, door: ConnectionFactory, **given: Any) -> None:
        self._door = door
        self._part: Literal["head", "body", "answer"] = "head"
        self._began = self._last = 0.0
        self._parts = self._size = self._content = self._unread = 0
        self._due: TimerHandle | None = None
        self._stalled: TimerHandle | None = None
        self._is_parting = False
        super().__init__(**given)

    # ------------------------------------------------------------------------------------------ what arrives

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self._parts
        super().data_received(data)
        if self._part == "answer":
            self._go_on_keeping()
            return
        if self._parts == before:
            self._size += len(data)
        self._last = self.loop.time()
        trouble = self._excess()
        if trouble:
            self._refuse(*trouble)
        elif self._due is None:
            self._watch()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter("head")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._part == "head":
            self._content += len(name) + len(value)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self._is_parting:
            self.cycle.keep_alive = False
        self._enter("body")

    def on_body(self, body: bytes) -> None:
        self._content += len(body)
        if self.cycle.response_complete:
            self._unread += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._enter("answer")
        super().on_message_complete()

    def _enter(self, part: Literal["head", "body", "answer"]) -> None:
        self._part, self._size, self._content, self._unread = part, 0, 0, 0
        self._parts += 1
        self._unwatch()

    def _go_on_keeping(self) -> None:
        """What came was no request: the time that an idle connection is kept goes on."""
        idle = self.cycle.response_complete and not self.pipeline
        if idle and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _excess(self) -> tuple[int, str] | None:
        """What is too much of the part that is arriving."""
        patience = self._door.patience
        if self._part == "head" and max(self._size, self._content) > patience.head_bytes:
            return 431, "Request Header Fields Too Large"
        # The lengths of chunks, what is written beside them, and trailers: none of it is of any use.
        wrapping = self._size - self._content
        if self._part == "body" and (
            self._unread > patience.unread or wrapping > patience.head_bytes + 8 * self._content
        ):
            return 413, "Content Too Large"
        return None

    # ------------------------------------------------------------------------------------------- how long

    def _watch(self) -> None:
        """Begin to count the time of the part that is arriving."""
        patience = self._door.patience
        self._began = self._last = self.loop.time()
        if self._part == "body":
            self._due = self.loop.call_later(patience.body, self._look)
            return
        self._due = self.loop.call_later(patience.head, self._look)
        waiting = self._door.waiting
        waiting[self] = None
        if len(waiting) > patience.crowd:
            waiting.popitem(last=False)[0].transport.abort()

    def _unwatch(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
            self._door.waiting.pop(self, None)

    def _look(self) -> None:
        """The time is over, unless there was more of it by now."""
        self._due = None
        self._door.waiting.pop(self, None)
        if self.flow.read_paused:
            self._watch()
            return
        patience = self._door.patience
        deadline = min(self._began + self._size / patience.rate, self._last) + patience.body
        if self._part == "body" and self.loop.time() < deadline:
            self._due = self.loop.call_at(deadline, self._look)
            return
        self._refuse(408, "Request Timeout")

    def _refuse(self, status: int, title: str) -> None:
        """Say so if it can still be said, and hang up."""
        self._unwatch()
        if self.transport.is_closing():
            return
        if self._is_answerable():
            self.transport.write(
                f"HTTP/1.1 {status} {title}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        self.transport.close()

    def _is_answerable(self) -> bool:
        """Whether the client has asked, and nothing else is being said on this connection."""
        if self._part == "head":
            return self._parts > 0 and (self.cycle is None or self.cycle.response_complete)
        return not self.cycle.response_started and not self.pipeline

    # ------------------------------------------------------------------------------- clients that do not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self._door.patience.reading, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    # ----------------------------------------------------------------------------------------- a server that stops

    def shutdown(self) -> None:
        """The server stops. uvicorn hangs up where nobody is being answered, whatever is on its way."""
        self._is_parting = True
        if self._is_idle():
            self.loop.call_later(self._door.patience.parting, self._part_for_good)
        else:
            self.cycle.keep_alive = False

    def _part_for_good(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _unsupported_upgrade_warning(self) -> None:
        """No other protocol is spoken here, and nothing that is sent in one is read."""
        self.cycle.keep_alive = False


__all__ = ["Connection", "ConnectionFactory", "ClientTimeouts"]
