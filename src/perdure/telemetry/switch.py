"""Whether telemetry is on: then, and only then, OpenTelemetry is imported.

A program that has set a provider has imported OpenTelemetry before. So `auto` looks at what is imported, and imports
nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from perdure.engine.cluster.membership import default_name
from perdure.engine.engine import Settings
from perdure.errors import needing
from perdure.model.recorded import read
from perdure.store.port import Store

if TYPE_CHECKING:
    from perdure.engine.core.tracing import Recorded
    from perdure.telemetry.tracing import Tracer


def is_on(mode: str) -> bool:
    """Whether this value of the setting `telemetry` switches OpenTelemetry on, in this process and now."""
    if mode == "auto":
        return _has_provider("opentelemetry.trace", "get_tracer_provider", "ProxyTracerProvider")
    return mode != "off"


def has_meters(mode: str) -> bool:
    """Whether this value of the setting `telemetry` gives OpenTelemetry the metrics, in this process and now."""
    if mode == "auto":
        return _has_provider("opentelemetry.metrics", "get_meter_provider", "_ProxyMeterProvider")
    return mode != "off"


def _has_provider(module: str, getter: str, proxy: str) -> bool:
    found: Any = sys.modules.get(module)
    return found is not None and type(getattr(found, getter)()).__name__ != proxy


def tracer_for(settings: Settings, store: Store, hub: str) -> Tracer | None:
    """The started tracer of an engine with these settings; None if telemetry is off. Raises ExtraMissing."""
    if not is_on(settings.telemetry.mode):
        return None
    with needing("telemetry", f"telemetry={settings.telemetry.mode}"):
        from perdure.telemetry.tracing import Tracer

    def history_of(instance_no: int, execution_id: str) -> Recorded:
        try:
            stored = store.history_of(instance_no, int(execution_id.rpartition("-")[2]))
            return read(stored) if stored is not None else ()
        finally:
            store.close_reader()  # this thread seldom reads

    worker = settings.belonging.worker_name or default_name()
    tracer = Tracer(hub, worker, history_of, messages=settings.telemetry.messages)
    tracer.start()
    return tracer


__all__ = ["has_meters", "is_on", "tracer_for"]
