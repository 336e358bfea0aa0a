"""Attempts that end by `sys.exit()` or by a cancellation of their own, run by the host that runs `async def`
bodies.

The pool decides when an attempt ends. The host decides about its result, so the body really runs, on an event
loop of its own and without waiting. A host that lets the exit out, or loses the attempt, gives no result: then
the instance never continues, and the checks at the end of a run find it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from perdure.engine.activities import Attempt, Runner
from perdure.engine.activities.asyncio_host import OnLoop
from perdure.engine.functions.registry import Activity, plan_of
from perdure.model.messages import ActivityResult
from perdure.replay.settle import Invocation

TURNS: Final = 50  # of the event loop; an attempt that ends at all has ended after a few


async def _exits() -> None:
    raise SystemExit(2)


async def _task_exits() -> None:
    await asyncio.create_task(_exits())


async def _cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


_BODIES: Final = {"exits": _exits, "task exits": _task_exits, "cancels itself": _cancels_itself}
_RUNNERS: Final = {end: Runner(plan_of(Activity("work", body), ()), {}) for end, body in _BODIES.items()}


def ended_abruptly(invocation: Invocation, end: str) -> ActivityResult | None:
    """The result of an attempt that ends so; None if it has none."""
    found: list[ActivityResult] = []

    async def run() -> None:
        host = OnLoop(
            asyncio.get_running_loop(),
            lambda _: None,
            lambda _: None,
            lambda _, result: found.append(result),
            1,
        )
        host.take([Attempt(_RUNNERS[end], invocation)])
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await host.close()

    try:
        asyncio.run(run())
    except SystemExit:
        return None
    return found[0] if found else None


__all__ = ["ended_abruptly"]
