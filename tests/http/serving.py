"""An application behind a real server, on a thread of its own."""

import asyncio
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

from perdure.server.forced_exit import LastResort
from perdure.server.limits import ClientTimeouts, ConnectionFactory
from perdure.server.uvicorn_server import UvicornServer


@dataclass(frozen=True)
class Served:
    """A server at work."""

    address: str
    server: UvicornServer

    def stop(self) -> None:
        """Have it stop; when it does, it has looked."""
        self.server.should_exit = True


@contextmanager
def serving(application: Any, door: ConnectionFactory) -> Iterator[Served]:
    """Serve an ASGI application on loopback while the block runs."""
    http: Any = door
    config = uvicorn.Config(
        application,
        http=http,
        ws="none",
        timeout_keep_alive=1,
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    ready = threading.Event()
    server = UvicornServer(config, ready.set, LastResort(math.inf))
    listener = socket.create_server(("127.0.0.1", 0))

    async def serve() -> None:
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])
        await server.main_loop()
        await server.shutdown([listener])

    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    try:
        yield Served(f"http://localhost:{port}", server)
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def served(application: Any, door: ConnectionFactory | None = None) -> Iterator[str]:
    """The same; gives the address alone."""
    with serving(application, door or ConnectionFactory(ClientTimeouts(parting=0.0))) as one:
        yield one.address
