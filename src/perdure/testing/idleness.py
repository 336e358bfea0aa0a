"""Idleness: fails waits that can never end, because nothing more can happen in the environment.

The engine of an environment is idle when no message is queued, no activity runs and no timer is left. Then only
the test itself can act: another of its tasks, or a thread. If every task of the test's event loop waits for
this engine or for another task, the waits fail at once. Otherwise they fail when the engine has been idle for
IDLE_AFTER.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from perdure.engine.engine import Engine

if TYPE_CHECKING:
    from perdure.engine.client.client import Client
    from perdure.model.instances import OrchestrationStatus
    from perdure.testing.clock import SkippingWaiter

IDLE_AFTER: Final = 10.0  # real seconds
_ACTING: Final = frozenset({"sleep", "to_thread"})  # asyncio's coroutines that wait for more than a task
_OURS: Final = (
    "perdure-",
    "asyncio_",
    "AnyIO worker",
    "ThreadPoolExecutor",
)  # threads that never act by themselves


class NothingCanHappen(TimeoutError):
    """The wait can never end: the environment is idle, and has no timer left."""


class Idleness:
    """Watches the waits of one environment, on its event loop."""

    def __init__(self, client: Client, waiter: SkippingWaiter) -> None:
        self._client = client
        self._waiter = waiter
        self._telling: set[asyncio.Task[None]] = set()
        engine = client.gateway
        assert isinstance(engine, Engine)
        self._engine = engine

    def look(self, moment: int) -> None:
        """Called when the engine is idle; `moment` changes as soon as it has work."""
        if not self._engine.endless or not self._is_still(moment):
            return
        if _others_may_act():
            asyncio.get_running_loop().call_later(IDLE_AFTER, self._tell, moment)
        else:
            self._tell(moment)

    def _is_still(self, moment: int) -> bool:
        return self._waiter.moment == moment and self._engine.loop.inbox.empty()

    def _tell(self, moment: int) -> None:
        if self._is_still(moment):
            task = asyncio.get_running_loop().create_task(self._fail_waits(moment))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _fail_waits(self, moment: int) -> None:
        for future, instance_id in list(self._engine.endless.items()):
            status = await self._client.get_status(instance_id)
            if not self._is_still(moment):
                return
            if status is not None and not status.is_finished and not future.done():
                future.set_exception(
                    NothingCanHappen(
                        f"instance {instance_id!r} will never finish: nothing more can happen in this "
                        f"environment. It is {status.runtime_status.value}: {_why(status)}. Raise the event "
                        "that it waits for, register the missing function, or wait with a timeout"
                    )
                )


def _why(status: OrchestrationStatus) -> str:
    told = [status.waiting_for, "" if status.reason in status.waiting_for else status.reason]
    return "; ".join(filter(None, told)) or "it waits for nothing known"


def _others_may_act() -> bool:
    """Whether a task or a thread of the test may still act."""
    threads = (thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    return not all(name.startswith(_OURS) for name in threads) or any(map(_may_act, asyncio.all_tasks()))


def _may_act(task: asyncio.Task[Any]) -> bool:
    awaited = getattr(task, "_fut_waiter", None)
    if (
        task.get_name() == "perdure-host"
        or isinstance(awaited, asyncio.Task)
        or hasattr(awaited, "_children")
    ):
        return False
    *_, innermost = _coroutines(task.get_coro())
    code = getattr(innermost, "cr_code", None)
    if code is None:
        return True
    if code is Engine.finished.__code__:
        return False
    return PurePath(code.co_filename).parent.name != "asyncio" or code.co_name in _ACTING


def _coroutines(coroutine: Any) -> Iterator[Any]:
    while isinstance(coroutine, Coroutine):
        yield coroutine
        coroutine = getattr(coroutine, "cr_await", None)


__all__ = ["Idleness", "NothingCanHappen"]
