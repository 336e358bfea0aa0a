"""Callbacks of a batch: answers and work for event loops, which run on other threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from perdure.engine.core.envelope import Elsewhere

log = logging.getLogger("perdure.engine")


class CallbackBatch:
    """Collects the callbacks of one batch and wakes each event loop once for all of its own. Never raises."""

    __slots__ = ("_work",)

    def __init__(self) -> None:
        self._work: dict[asyncio.AbstractEventLoop, list[tuple[Callable[..., None], tuple[Any, ...]]]] = {}

    def add(self, event_loop: asyncio.AbstractEventLoop, action: Callable[..., None], *args: Any) -> None:
        """Schedule a call on the event loop."""
        work = self._work.get(event_loop)
        if work is None:
            work = self._work[event_loop] = []
        work.append((action, args))

    def answer(self, answers: Iterable[tuple[Any, Any]]) -> None:
        """Resolve futures, each on its own event loop, with a value or an exception."""
        for future, value in answers:
            if isinstance(future, Elsewhere):
                continue  # its row still exists, and is read again
            event_loop = future.get_loop()
            work = self._work.get(event_loop)
            if work is None:
                work = self._work[event_loop] = []
            work.append((_resolve, (future, value)))

    def flush(self) -> None:
        for event_loop, work in self._work.items():
            try:
                event_loop.call_soon_threadsafe(_perform, work)
            except RuntimeError:
                # Its host is gone: its clients have no event loop, and its activities run again after a
                # restart.
                log.debug("an event loop was closed before a batch could reach it")


def tell(answers: Iterable[tuple[Any, Any]]) -> None:
    """Resolve futures from any thread."""
    handover = CallbackBatch()
    handover.answer(answers)
    handover.flush()


def _perform(work: list[tuple[Callable[..., None], tuple[Any, ...]]]) -> None:
    for action, args in work:
        action(*args)


def _resolve(future: asyncio.Future[Any], value: Any) -> None:
    if future.done():
        return
    if isinstance(value, BaseException):
        future.set_exception(value)
    else:
        future.set_result(value)


__all__ = ["CallbackBatch", "tell"]
