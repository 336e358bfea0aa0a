"""Connections with limits on the time a client takes and the bytes it sends.

Clients that send a byte a minute can use up a server's connections, and a single header without an end can use up its
memory. uvicorn leaves both to a proxy in front, but perdure often runs without one. So a connection is always in one
part of a message, and each part has its limits: a time and a size for the head, a pace for the body, and a time in
which the client has to continue reading the response. The clock stops while the server itself does not read. If too
many connections have not sent a request yet, the oldest is closed: a client that is about to send a request needs
milliseconds, and a client that only keeps the connection open loses it. A server that stops waits a moment for a
request that is already on its way. It answers that request and closes the connection.

Trailers, the fields after a body, are read and dropped. Otherwise they become part of the headers, and a proxy that
removes `X-Forwarded-For` or a key from the headers does not look at trailers.
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
    """The limits of one connection. Times are in seconds.

    Parameters:
        head: the time until all headers of a request have arrived, from its first byte, or from the start of a new
            connection.
        head_bytes: the size of the request line and the headers.
        body: the longest pause within a body, and the time before `rate` applies.
        rate: the slowest pace of a body, in bytes a second.
        reading: the longest time in which the client reads nothing of a response that does not fit into the buffers.
        unread: the bytes of a body that are still read after the response.
        crowd: the number of connections whose head is not complete, of all clients together.
        parting: the time for a request to arrive after the server has begun to stop.
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
    """One connection, with the limits of its factory."""

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
        """Restart the keep-alive timeout after bytes that are not a request."""
        idle = self.cycle.response_complete and not self.pipeline
        if idle and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _excess(self) -> tuple[int, str] | None:
        """The status and title of the error if the current part exceeds a limit, else None."""
        patience = self._door.patience
        if self._part == "head" and max(self._size, self._content) > patience.head_bytes:
            return 431, "Request Header Fields Too Large"
        # Chunk sizes, chunk extensions and trailers: overhead that carries no content.
        wrapping = self._size - self._content
        if self._part == "body" and (
            self._unread > patience.unread or wrapping > patience.head_bytes + 8 * self._content
        ):
            return 413, "Content Too Large"
        return None

    # ------------------------------------------------------------------------------------------- how long

    def _watch(self) -> None:
        """Start the clock of the current part."""
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
        """Refuse the request if its time is over. A body that arrived fast enough gets more time."""
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
        """Send the error if the client can still get it, and close the connection."""
        self._unwatch()
        if self.transport.is_closing():
            return
        if self._is_answerable():
            self.transport.write(
                f"HTTP/1.1 {status} {title}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
            )
        self.transport.close()

    def _is_answerable(self) -> bool:
        """Whether the client waits for a response and no other response is being sent."""
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
        """Close the connection after the current request. uvicorn closes idle connections without waiting."""
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
        """Refuse to upgrade to another protocol: close the connection after the response."""
        self.cycle.keep_alive = False


__all__ = ["Connection", "ConnectionFactory", "ClientTimeouts"]
