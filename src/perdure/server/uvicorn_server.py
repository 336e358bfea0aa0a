"""Uvicorn, adapted to perdure's start and stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import uvicorn

from perdure.server.accept import Listener
from perdure.server.limits import ConnectionFactory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from starlette.types import ASGIApp

    from perdure.server.forced_exit import LastResort

GRACE = 3  # seconds for open requests when the server stops


class UvicornServer(uvicorn.Server):
    """A uvicorn server that announces when it listens and does not raise a signal again after it has handled it.

    The original raises the signal again, which kills the process before the engine has closed its store.
    """

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], last_resort: LastResort) -> None:
        super().__init__(config)
        self._announce = announce
        self._last_resort = last_resort

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        listeners = [Listener(sock, self._connection) for sock in sockets or ()]
        self.servers = cast("list[asyncio.Server]", listeners)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting and finish the accepted connections. Other processes, if any, accept new ones."""
        for listener in self.servers:
            listener.close()
            await listener.wait_closed()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._last_resort.begin()
        super().handle_exit(sig, frame)

    def _connection(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def config_of(application: ASGIApp) -> uvicorn.Config:
    """Uvicorn's configuration for an application."""
    config = uvicorn.Config(
        application,
        lifespan="off",
        http=cast("type[asyncio.Protocol]", ConnectionFactory()),
        ws="none",
        proxy_headers=False,  # perdure.http.proxies reads them, of listed proxies only
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    # A request must not see the context variables of the request before it on the same connection. Set as an
    # attribute, because older versions of uvicorn do not take the argument.
    config.reset_contextvars = True
    return config


__all__ = ["GRACE", "UvicornServer", "config_of"]
