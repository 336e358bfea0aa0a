"""OpenTelemetry's side of the metrics: what a collection of the application's own provider reads."""

from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import metrics as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import perdure as df
from perdure.telemetry import meters
from perdure.telemetry.counting import Buckets
from perdure.telemetry.metrics import METRICS
from perdure.testing import environment


class Provided:
    """A provider whose metrics are read in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def read(self) -> dict[str, list[Any]]:
        """The points of each metric."""
        data = self.reader.get_metrics_data()
        scopes = [scope for one in data.resource_metrics for scope in one.scope_metrics] if data else []
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}


@pytest.fixture
def provided(monkeypatch: pytest.MonkeyPatch) -> Provided:
    found = Provided()
    monkeypatch.setattr(otel, "get_meter_provider", lambda: found.provider)
    return found


def office() -> df.App:
    app = df.App("office")

    @app.activity
    async def assess(claim: int) -> int:
        return claim

    @app.orchestrator
    async def claim(context: df.OrchestrationContext):
        await context.create_timer(60)
        return await context.call_activity(assess, 1)

    return app


async def test_a_collection_reads_what_perdure_has_counted(provided: Provided):
    app = office()
    async with environment(app) as env:  # `auto`: the application has set a provider
        await env.run("claim")
        await env.run("claim")
        found = provided.read()
    [ended] = [point for point in found["perdure.instance.ended"] if point.value]
    assert (ended.value, dict(ended.attributes)) == (
        2,
        {"orchestrator": "claim", "status": "Completed", "error.type": ""},
    )
    [lifetime] = found["perdure.instance.duration"]
    assert (lifetime.count, dict(lifetime.attributes)) == (
        2,
        {"orchestrator": "claim", "status": "Completed"},
    )
    assert lifetime.sum == pytest.approx(120, rel=0.01)
    assert set(found) <= {metric.name for metric in METRICS}
    assert {point.value for point in found["perdure.activity.running"]} == {0}
    assert provided.read()["perdure.instance.duration"][0].count == 2  # counted once


async def test_the_engines_of_a_process_add_up_and_one_that_has_ended_is_not_asked(provided: Provided):
    async with environment(office()) as one, environment(office()) as other:
        await one.run("claim")
        await other.run("claim")
        points = provided.read()["perdure.instance.started"]
    assert sum(point.value for point in points) == 2
    assert not provided.read().get("perdure.warm.instances")


def test_of_too_many_observations_every_nth_is_recorded():
    provided = Provided()
    now = [0.0]
    durations = meters.Durations(provided.provider.get_meter("perdure"), lambda: now[0])
    buckets = Buckets((0.01, 0.1))
    for _ in range(meters.MOST * 10):
        buckets.add(0.05)
    metric = next(metric for metric in METRICS if metric.name == "perdure.commit.duration")
    engine = SimpleEngine(metric, buckets)
    now[0] = 2.0
    durations.record([engine])
    [point] = provided.read()["perdure.commit.duration"]
    assert point.count == meters.MOST * 2
    assert point.sum / point.count == pytest.approx(0.05)
    assert list(point.bucket_counts) == [0, meters.MOST * 2, 0]


class SimpleEngine(SimpleNamespace):
    """Metrics of one series."""

    __hash__ = object.__hash__

    def __init__(self, metric: Any, buckets: Buckets) -> None:
        super().__init__()
        self._reading = SimpleNamespace(metric=metric, series={("sqlite",): buckets})

    def counted(self) -> list[Any]:
        return [self._reading]


@pytest.mark.parametrize(
    "seconds", [[0.02, 0.03], [0.002, 0.05], [0.5, 0.7], [0.0], [0.009, 0.011, 5.0, 0.1], [0.01, 0.1]]
)
def test_the_value_of_each_bucket_lies_in_it(seconds: list[float]):
    buckets = Buckets((0.01, 0.1))
    for value in seconds:
        buckets.add(value)
    again = Buckets((0.01, 0.1))
    for value, count in zip(meters.values_of(buckets), buckets.counts, strict=True):
        for _ in range(count):
            again.add(value)
    assert again.counts == buckets.counts
