"""Sets OpenTelemetry's SDK up, for the values `otlp` and `azure-monitor` of the setting `telemetry`.

The SDK and the exporters read their own environment variables: `OTEL_*`, or `APPLICATIONINSIGHTS_CONNECTION_STRING`.
A process sets them up once, because OpenTelemetry's providers belong to the process. An engine that stops hands over
what it has told until then, and waits a limited time for the exporters.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from perdure.errors import SettingError, needing
from perdure.version import __version__

FLUSH_WITHIN: Final = 3.0  # seconds for the exporters at a stop; the tracer has waited for the spans before
OTLP: Final = "otlp"
AZURE_MONITOR: Final = "azure-monitor"
CONNECTION: Final = "APPLICATIONINSIGHTS_CONNECTION_STRING"
log = logging.getLogger("perdure.telemetry")


@dataclass(frozen=True)
class Exporters:
    """The exporters of one destination: for spans, metrics and log records."""

    spans: Any
    metrics: Any
    logs: Any


class Pipeline:
    """The providers of this process, with their exporters."""

    def __init__(self, mode: str, exporters: Exporters, app: str, worker: str) -> None:
        """Set the providers of this process. Raises SettingError if the program has set its own."""
        from opentelemetry import _logs, metrics, trace
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from perdure.telemetry.log_export import LogExport

        self.mode = mode
        resource = _resource(app, worker)
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            raise SettingError(
                f"telemetry is {mode}, but the application has set a tracer provider of its own. Use telemetry=on, "
                "which exports through the application's provider, or remove the provider from the application"
            )
        trace.set_tracer_provider(tracers)
        tracers.add_span_processor(BatchSpanProcessor(exporters.spans))
        readers = [PeriodicExportingMetricReader(exporters.metrics)]
        meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        loggers = LoggerProvider(resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(BatchLogRecordProcessor(exporters.logs))
        _logs.set_logger_provider(loggers)
        root = logging.getLogger()
        if not root.handlers and logging.lastResort is not None:
            root.addHandler(
                logging.lastResort
            )  # with a handler of ours, warnings would not be printed any more
        root.addHandler(LogExport(loggers))
        self.loggers: Any = loggers
        self._flushes: tuple[Callable[[], object], ...] = (
            tracers.force_flush,
            meters.force_flush,
            loggers.force_flush,
        )

    def flush(self) -> None:
        """Hand everything over to the exporters. Blocks, FLUSH_WITHIN seconds at most."""
        threads = [threading.Thread(target=partial(_quietly, flush), daemon=True) for flush in self._flushes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(FLUSH_WITHIN)
        if any(thread.is_alive() for thread in threads):
            log.warning(
                "the telemetry exporters did not take everything within %g seconds, and the rest is lost. Does the "
                "collector answer?",
                FLUSH_WITHIN,
            )


class _Present:
    """The pipeline of this process, once it is set up."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pipeline: Pipeline | None = None


_present: Final = _Present()


def set_up(mode: str, app: str, worker: str) -> Pipeline:
    """The providers of this process, set up by the first call.

    Parameters:
        mode: otlp or azure-monitor.
        app: the name of the application, as `service.name` unless the environment names another.
        worker: the name of this worker, as `service.instance.id`.

    Raises:
        ExtraMissing without the exporters. SettingError if the environment or the application contradicts.
    """
    with _present.lock:
        if _present.pipeline is None:
            _present.pipeline = Pipeline(mode, _EXPORTERS[mode](), app, worker)
        elif _present.pipeline.mode != mode:
            raise SettingError(
                f"telemetry is {mode}, but this process has set up {_present.pipeline.mode} for another engine. Give "
                "both engines the same value"
            )
        return _present.pipeline


def _otlp() -> Exporters:
    with needing("otlp", "telemetry=otlp"):
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    return Exporters(OTLPSpanExporter(), OTLPMetricExporter(), OTLPLogExporter())


def _azure_monitor() -> Exporters:
    with needing("azure-monitor", "telemetry=azure-monitor"):
        from perdure.telemetry import azure_monitor
    if not os.environ.get(CONNECTION, "").strip():
        raise SettingError(
            f"telemetry is azure-monitor, but the environment variable {CONNECTION} is not set. Copy the connection "
            "string from the overview page of the Application Insights resource"
        )
    try:
        return Exporters(*azure_monitor.exporters())
    except ValueError:  # its message may repeat a part of the connection string
        raise SettingError(
            f"the environment variable {CONNECTION} is not a connection string of Application Insights, which begins "
            "with InstrumentationKey= and a UUID. Copy it from the overview page of the resource"
        ) from None


_EXPORTERS: Final[dict[str, Callable[[], Exporters]]] = {OTLP: _otlp, AZURE_MONITOR: _azure_monitor}
MODES: Final = frozenset(_EXPORTERS)
"""The values of the setting `telemetry` for which perdure sets the SDK up."""


def _resource(app: str, worker: str) -> Any:
    """The resource of this process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` override the names."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    own = {"service.name": app, "service.instance.id": worker, "service.version": __version__}
    given = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in own.items() if name not in given})


def _quietly(flush: Callable[[], object]) -> None:
    try:
        flush()
    except Exception as error:
        log.warning(
            "a telemetry exporter failed at the stop (%s): what was left is lost", type(error).__name__
        )


__all__ = ["AZURE_MONITOR", "MODES", "OTLP", "Pipeline", "set_up"]
