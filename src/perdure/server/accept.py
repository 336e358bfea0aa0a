"""A listening socket, and the connections made of those who knock at it.

uvloop takes in one connection in each turn of the event loop. When many come at once, or each request comes on a
connection of its own, every turn then serves one more than the last, batches are small, and the last of sixty waits
for a second. So perdure accepts by itself, several in a turn. Not all of them: where several processes share
the socket, each is to get some. What it has accepted becomes a connection even when it stops in the same
moment; the event loops' own servers drop it then.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Final

AT_ONCE: Final = 16  # connections taken in, in one turn
BACKLOG: Final = 2_048  # that the kernel keeps for us
_PAUSE: Final = 1.0  # seconds until descriptors may be free again
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = logging.getLogger("perdure.http")


class Listener:
    """Accepts connections until it is stopped. Uvicorn closes it as it closes the servers of event loops.

    Parameters:
        sock: bound; it may be shared with other processes. Who has made it closes it.
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
        """Accept nobody any more."""
        self._loop.remove_reader(self._sock.fileno())
        if self._again is not None:
            self._again.cancel()

    async def wait_closed(self) -> None:
        """Return when all who were accepted have their connection."""
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
                log.error("nobody can be let in now: %s", error.strerror)
                self.close()
                self._again = self._loop.call_later(_PAUSE, self._begin)
                return
            self._let_in(peer)

    def _let_in(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        # An answer is two writes, and the second would wait for the receipt of the first.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arriving = self._loop.create_task(self._loop.connect_accepted_socket(self._connection, peer))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arrived)

    def _arrived(self, arriving: asyncio.Task[object]) -> None:
        self._arriving.discard(arriving)
        if not arriving.cancelled() and arriving.exception() is not None:
            log.debug("a connection was gone before it was served: %s", arriving.exception())


__all__ = ["Listener"]
