"""How the engine's tests put an application together from functions."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from perdure import App, Settings


def app_with(
    orchestrator: Callable[..., Any],
    *activities: Callable[..., Any],
    events: Mapping[str, Any] | None = None,
    settings: Settings | None = None,
) -> App:
    """An application with one orchestrator named `main`, and activities under their own names."""
    app = App("claims", settings=settings)
    app.orchestrator(name="main", events=events)(orchestrator)
    for activity in activities:
        app.activity(activity)
    return app


async def until(condition: Callable[[], object], turns: int = 2_000_000) -> None:
    """Give the threads time until the condition holds. No clock: the test's own time-out is the limit."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never came to hold")
