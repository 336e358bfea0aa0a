"""An application behind a real server, on a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from perdure.http.connections import Door


@contextmanager
def served(application: Any, door: Door | None = None) -> Iterator[str]:
    """Serve an ASGI application on loopback while the block runs; gives its address."""
    http: Any = door or Door()
    config = uvicorn.Config(
        application,
        port=0,
        http=http,
        ws="none",
        timeout_keep_alive=1,
        log_config=None,
        access_log=False,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    ready = threading.Event()

    async def serve() -> None:
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup()
        ready.set()
        await server.main_loop()
        await server.shutdown()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
