"""The metrics in the text of Prometheus, or of OpenMetrics with exemplars. `prometheus_client` writes it.

Names follow OpenTelemetry's mapping: `perdure.instance.duration` in seconds is `perdure_instance_duration_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from perdure.errors import needing
from perdure.telemetry.counting import Buckets
from perdure.telemetry.metrics import METRICS, Metric, Value

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

    from perdure.telemetry.metrics import Reading

EXTRA: Final = "telemetry"
_UNITS: Final = {"s": "seconds", "By": "bytes"}


@dataclass(frozen=True)
class Page:
    """A page for Prometheus, and its content type."""

    content: bytes
    content_type: str


def page(workers: Iterable[tuple[str, Sequence[Reading]]], accept: str = "") -> Page:
    """The metrics of these workers, in the format that the header `accept` asks for.

    Raises ExtraMissing without the extra `telemetry`.
    """
    with needing(EXTRA, "/metrics"):
        from prometheus_client.exposition import choose_encoder
        from prometheus_client.registry import CollectorRegistry
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(workers))
    return Page(encode(registry), content_type)


class _Collector:
    """The readings of workers as families of prometheus_client."""

    def __init__(self, workers: Iterable[tuple[str, Sequence[Reading]]]) -> None:
        self._workers = list(workers)

    def describe(self) -> Iterable[Family]:
        return ()

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            family = _family(metric)
            for worker, readings in self._workers:
                for reading in readings:
                    if reading.metric.name != metric.name:
                        continue
                    for labels, value in reading.series.items():
                        _add(family, labels if metric.is_of_hub else (*labels, worker), value)
                if metric.is_of_hub and family.samples:
                    break  # every worker reads the same
            yield family


def name_of(metric: Metric) -> str:
    """The name for Prometheus, without the suffix `_total` of a counter."""
    unit = _UNITS.get(metric.unit, "")
    return metric.name.replace(".", "_") + (f"_{unit}" if unit else "")


def labels_of(metric: Metric) -> list[str]:
    """The names of the labels for Prometheus."""
    labels = [label.replace(".", "_") for label in metric.labels]
    return labels if metric.is_of_hub else [*labels, "worker"]


def _family(metric: Metric) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    kind = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    unit = _UNITS.get(metric.unit, "")
    return kind[metric.kind](name_of(metric), metric.says, labels=labels_of(metric), unit=unit)


def _add(family: Any, labels: tuple[str, ...], value: Value) -> None:
    if isinstance(value, Buckets):
        family.add_metric(labels, buckets=_cumulated(value), sum_value=value.total)
    else:
        family.add_metric(labels, value)


def _cumulated(buckets: Buckets) -> list[tuple[str, float, Any]]:
    """The buckets as Prometheus counts: each includes those below it."""
    from prometheus_client.samples import Exemplar
    from prometheus_client.utils import floatToGoString

    cumulated: list[tuple[str, float, Any]] = []
    total = 0
    limits = [*map(floatToGoString, buckets.bounds), "+Inf"]
    for place, (limit, count) in enumerate(zip(limits, list(buckets.counts), strict=True)):
        total += count
        slowest = buckets.slowest.get(place)
        exemplar = None
        if slowest is not None:
            exemplar = Exemplar({"trace_id": f"{slowest.trace_id:032x}"}, slowest.value, slowest.at / 1e6)
        cumulated.append((limit, total, exemplar))
    return cumulated


__all__ = ["Page", "labels_of", "name_of", "page"]
