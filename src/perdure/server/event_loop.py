"""The event loop of a server, which can be made before the server, for applications that need one when they load."""

from __future__ import annotations

import asyncio
import atexit
from typing import TYPE_CHECKING, Any, Final

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable

_EARLY: Final[list[asyncio.AbstractEventLoop]] = []


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The factory of the server's event loop: the early loop if there is one, else a loop of uvicorn's choice."""
    if _EARLY:
        loop = _EARLY.pop()
        return lambda: loop
    return _factory()


def early_loop() -> asyncio.AbstractEventLoop:
    """The event loop that this process will serve with. What a loading application makes in it stays usable."""
    if not _EARLY:
        loop = (_factory() or asyncio.new_event_loop)()
        atexit.register(loop.close)  # of commands that load an application and serve nothing
        _EARLY.append(loop)
    return _EARLY[0]


def _factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvicorn prefers uvloop, if it is installed."""
    return uvicorn.Config(_unused, log_config=None).get_loop_factory()


async def _unused(*_: Any) -> None:
    """A placeholder application for a configuration that only chooses the event loop."""


__all__ = ["early_loop", "loop_factory"]
