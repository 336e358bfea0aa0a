"""Accepts connections from a listening socket.

uvloop accepts one connection in each turn of the event loop. If many clients connect at once, or each request opens
its own connection, batches stay small and the last of sixty requests waits for a second. So perdure accepts several
connections in one turn. It does not accept all of them, because several processes can share the socket and each of
them has to get some. An accepted socket becomes a connection even if the server stops in the same moment. The event
loops' own servers drop it then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 16  # connections accepted in one turn
BACKLOG: Final = 2_048  # connections that the kernel queues
_PAUSE: Final = 1.0  # seconds to wait for free descriptors
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("perdure.http")


class Listener:
    """Accepts connections until it is closed. Uvicorn closes it as it closes the servers of event loops.

    Parameters:
        sock: a bound socket, which other processes can share. The caller closes it.
        connection: makes the protocol of one connection.
    """

    def __init__(self, sock: socket.socket, connection: Callable[[], asyncio.Protocol]) -> None:
        self._sock, self._connection = sock, connection
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[object]] = set()
        self._again: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._begin()

    def close(self) -> None:
        """Stop accepting connections."""
        self._loop.remove_reader(self._sock.fileno())
        if self._again is not None:
            self._again.cancel()

    async def wait_closed(self) -> None:
        """Return when every accepted socket has its connection."""
        if self._arriving:
            await asyncio.wait(self._arriving)

    def _begin(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                peer, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                log.error(
                    "cannot accept connections: %s. The server tries again in %g s", error.strerror, _PAUSE
                )
                self.close()
                self._again = self._loop.call_later(_PAUSE, self._begin)
                return
            self._let_in(peer)

    def _let_in(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        # A response is two writes. Without this, the second waits for the acknowledgement of the first.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arriving = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, peer))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arrived)

    def _arrived(self, arriving: asyncio.Task[object]) -> None:
        self._arriving.discard(arriving)
        if not arriving.cancelled() and arriving.exception() is not None:
            log.debug("a connection closed before it was served: %s", arriving.exception())


__all__ = ["Listener"]
