"""What listens to an engine's telemetry, by its settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Protocol

from perdure.engine.clock import Clock, SystemClock
from perdure.engine.cluster.membership import default_name
from perdure.engine.core.telemetry import Telemetry, together
from perdure.engine.engine import Settings
from perdure.engine.functions.registry import Registry
from perdure.errors import needing
from perdure.store.port import Store, shared
from perdure.telemetry.metrics import Metrics
from perdure.telemetry.setup import AZURE_MONITOR, MODES, Pipeline, set_up
from perdure.telemetry.switch import has_meters
from perdure.telemetry.tracking import Tracking


class Listener(Telemetry, Protocol):
    """A listener that keeps something back until it is closed."""

    def close(self) -> None:
        """Hand on what is left, and stop. Blocks."""


@asynccontextmanager
async def telling(
    settings: Settings, hub: str, app: str, clock: Clock | None, registry: Registry, store: Store
) -> AsyncIterator[Telemetry]:
    """What an engine tells its telemetry to in the block. At the end every listener has handed on everything.

    Parameters:
        settings: the engine's settings.
        hub: the name of the hub.
        app: the name of the application.
        clock: the engine's clock; by default the system's.
        registry: the engine's functions.
        store: the engine's store.
    """
    mode = settings.telemetry.mode
    pipeline = _pipeline(settings, app)
    listeners = _listeners(settings, hub, app, (clock or SystemClock()).now, pipeline)
    metrics = [Metrics(registry, kind_of(store))] if counts(mode) else []
    unobserved = [_observed(one, mode) for one in metrics if has_meters(mode)]
    try:
        yield together([*metrics, *listeners])
    finally:
        for listener in listeners:
            await asyncio.to_thread(listener.close)
        if pipeline is not None:
            await asyncio.to_thread(pipeline.flush)
        for end in unobserved:
            end()


def _observed(metrics: Metrics, mode: str) -> Callable[[], None]:
    """Let OpenTelemetry read the metrics; returns what ends that. Raises ExtraMissing."""
    with needing("telemetry", f"telemetry={mode}"):
        from perdure.telemetry.meters import observe
    return observe(metrics)


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


def counts(mode: str) -> bool:
    """Whether an engine with this value of the setting `telemetry` counts what it does. Imports nothing."""
    match mode:
        case "off":
            return False
        case "auto":
            return any(find_spec(package) is not None for package in ("prometheus_client", "opentelemetry"))
        case _:
            return True


def kind_of(store: Store) -> str:
    """The kind of a store, as metrics name it."""
    found = shared(store)
    if found is not None and found.place:
        return "postgresql"
    return "sqlite" if store.location else "memory"


__all__ = ["Listener", "counts", "kind_of", "telling"]
