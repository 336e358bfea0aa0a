"""What listens to an engine's telemetry, by its settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol

from perdure.engine.clock import Clock, SystemClock
from perdure.engine.cluster.membership import default_name
from perdure.engine.core.telemetry import SILENCE, Telemetry, together
from perdure.engine.engine import Settings
from perdure.telemetry.setup import AZURE_MONITOR, MODES, Pipeline, set_up
from perdure.telemetry.tracking import Tracking


class Listener(Telemetry, Protocol):
    """A listener that keeps something back until it is closed."""

    def close(self) -> None:
        """Hand on what is left, and stop. Blocks."""


@asynccontextmanager
async def telling(settings: Settings, hub: str, app: str, clock: Clock | None) -> AsyncIterator[Telemetry]:
    """What an engine tells its telemetry to in the block. At the end every listener has handed on everything.

    Parameters:
        settings: the engine's settings.
        hub: the name of the hub.
        app: the name of the application.
        clock: the engine's clock; by default the system's.
    """
    pipeline = _pipeline(settings, app)
    listeners = _listeners(settings, hub, app, (clock or SystemClock()).now, pipeline)
    try:
        yield together(listeners) if listeners else SILENCE
    finally:
        for listener in listeners:
            await asyncio.to_thread(listener.close)
        if pipeline is not None:
            await asyncio.to_thread(pipeline.flush)


def _pipeline(settings: Settings, app: str) -> Pipeline | None:
    """The exporters of this process, if the engine's settings ask perdure to set them up."""
    mode = settings.telemetry.mode
    return set_up(mode, app, settings.belonging.worker_name or default_name()) if mode in MODES else None


def _listeners(
    settings: Settings, hub: str, app: str, now: Callable[[], int], pipeline: Pipeline | None
) -> list[Listener]:
    found: list[Listener] = []
    if settings.tracking.events:
        found.append(Tracking(hub, app, now, replays=settings.tracking.replays))
    if pipeline is not None and pipeline.mode == AZURE_MONITOR:
        from perdure.telemetry.ended_events import EndedEvents

        found.append(EndedEvents(hub, pipeline.loggers))
    return found


__all__ = ["Listener", "telling"]
