"""The metrics for OpenTelemetry: observable counters and gauges that read what perdure has counted.

OpenTelemetry's own counters cost microseconds an event. So perdure counts by itself, and a collection reads the
counts. The instruments of a provider are made once, and add up the engines of this process.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry import metrics as otel

from perdure.telemetry.counting import Buckets, Labels
from perdure.telemetry.metrics import METRICS, Metric, Metrics, Reading

SCOPE: Final = "perdure"


class _Instruments:
    """The instruments of one provider, and the engines that they read."""

    def __init__(self, provider: otel.MeterProvider) -> None:
        self.provider = provider
        self.engines: list[Metrics] = []
        meter = provider.get_meter(SCOPE)
        make: dict[str, Callable[..., Any]] = {
            "counter": meter.create_observable_counter,
            "gauge": meter.create_observable_gauge,
        }
        for metric in METRICS:
            if metric.kind in make:
                make[metric.kind](metric.name, [self._observer(metric)], metric.unit, metric.says)

    def _observer(self, metric: Metric) -> Callable[[otel.CallbackOptions], list[otel.Observation]]:
        def observe(_: otel.CallbackOptions) -> list[otel.Observation]:
            summed: dict[Labels, float] = {}
            for engine in list(self.engines):
                for labels, value in _series_of(engine, metric):
                    summed[labels] = value if metric.is_of_hub else summed.get(labels, 0) + value
            return [
                otel.Observation(value, dict(zip(metric.labels, labels, strict=True)))
                for labels, value in summed.items()
            ]

        return observe


class _Present:
    """The instruments of the present provider."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.instruments: _Instruments | None = None


_present: Final = _Present()


def observe(metrics: Metrics) -> Callable[[], None]:
    """Let OpenTelemetry's present provider read the metrics of an engine; returns what ends that."""
    with _present.lock:
        provider = otel.get_meter_provider()
        if _present.instruments is None or _present.instruments.provider is not provider:
            _present.instruments = _Instruments(provider)
        engines = _present.instruments.engines
        engines.append(metrics)
    return lambda: engines.remove(metrics)


def _series_of(engine: Metrics, metric: Metric) -> Iterable[tuple[Labels, float]]:
    for reading in _readings_of(engine, metric):
        if reading.metric is metric:
            for labels, value in reading.series.items():
                if not isinstance(value, Buckets):
                    yield labels, value


def _readings_of(engine: Metrics, metric: Metric) -> Iterable[Reading]:
    if metric.kind == "counter":
        return engine.counted()
    return engine.gauges() if engine.is_open else ()


__all__ = ["observe"]
