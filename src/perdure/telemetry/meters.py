"""The metrics for OpenTelemetry: counters, gauges and histograms that read what perdure has counted.

OpenTelemetry's own counters cost microseconds an event. So perdure counts by itself, and a collection reads the
counts. The instruments of a provider are made once, and add up the engines of this process.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import metrics as otel

from perdure.telemetry.counting import Buckets, Labels
from perdure.telemetry.metrics import METRICS, Metric, Metrics, Reading

SCOPE: Final = "perdure"
MOST: Final = 2_000  # observations a second that histograms record


class Durations:
    """Records in OpenTelemetry's histograms what perdure's have counted since the last collection.

    OpenTelemetry has no histogram that it reads, and each record costs microseconds. So at most MOST observations a
    second are recorded, and of more every n-th. The value of each lies in its bucket, and their sum is about the
    true one.
    """

    def __init__(self, meter: otel.Meter, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._meter = meter
        self._monotonic = monotonic
        self._instruments: dict[str, otel.Histogram] = {}
        self._seen: WeakKeyDictionary[Metrics, dict[tuple[str, Labels], tuple[list[int], float]]] = (
            WeakKeyDictionary()
        )
        self._last = monotonic()

    def record(self, engines: Sequence[Metrics]) -> None:
        """Record what the engines have counted since the last call."""
        fresh = [(metric, labels, new) for engine in engines for metric, labels, new in self._new_in(engine)]
        now, seconds = self._monotonic(), self._monotonic() - self._last
        self._last = now
        step = math.ceil(sum(sum(new.counts) for _, _, new in fresh) / (MOST * max(seconds, 1.0))) or 1
        for metric, labels, new in fresh:
            histogram = self._instrument(metric, new.bounds)
            attributes = dict(zip(metric.labels, labels, strict=True))
            for value, count in zip(values_of(new), new.counts, strict=True):
                for _ in range(math.ceil(count / step)):
                    histogram.record(value, attributes)

    def _new_in(self, engine: Metrics) -> Iterator[tuple[Metric, Labels, Buckets]]:
        seen = self._seen.setdefault(engine, {})
        for reading in engine.counted():
            for labels, value in reading.series.items():
                if not isinstance(value, Buckets):
                    continue
                counts, total = list(value.counts), value.total
                before, total_before = seen.get((reading.metric.name, labels), ([0] * len(counts), 0.0))
                if counts != before:
                    seen[reading.metric.name, labels] = counts, total
                    new = [count - old for count, old in zip(counts, before, strict=True)]
                    yield reading.metric, labels, Buckets.of(new, total - total_before, {}, value.bounds)

    def _instrument(self, metric: Metric, bounds: Sequence[float]) -> otel.Histogram:
        found = self._instruments.get(metric.name)
        if found is None:
            found = self._instruments[metric.name] = self._meter.create_histogram(
                metric.name, metric.unit, metric.says, explicit_bucket_boundaries_advisory=bounds
            )
        return found


def values_of(buckets: Buckets) -> list[float]:
    """A value for each bucket, such that their sum is about the true one."""
    lows, highs = [0.0, *buckets.bounds], [*buckets.bounds, math.inf]
    middles = [(low + high) / 2 if high < math.inf else low for low, high in zip(lows, highs, strict=True)]
    sum_of_middles = sum(middle * count for middle, count in zip(middles, buckets.counts, strict=True))
    factor = buckets.total / sum_of_middles if sum_of_middles else 1.0
    return [
        min(max(middle * factor, math.nextafter(low, math.inf) if low else 0.0), high)
        for middle, low, high in zip(middles, lows, highs, strict=True)
    ]


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
        self._durations = Durations(meter)
        for number, metric in enumerate(one for one in METRICS if one.kind in make):
            observer = self._observer(metric, is_first=not number)
            make[metric.kind](metric.name, [observer], metric.unit, metric.says)

    def _observer(
        self, metric: Metric, *, is_first: bool
    ) -> Callable[[otel.CallbackOptions], list[otel.Observation]]:
        def observe(_: otel.CallbackOptions) -> list[otel.Observation]:
            if is_first:  # of this collection
                self._durations.record(list(self.engines))
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


__all__ = ["MOST", "Durations", "observe", "values_of"]
