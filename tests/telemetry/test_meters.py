"""OpenTelemetry's side of the metrics: what a collection of the application's own provider reads."""

from typing import Any

import pytest
from opentelemetry import metrics as otel
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import perdure as df
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
    assert set(found) <= {metric.name for metric in METRICS}
    assert {point.value for point in found["perdure.activity.running"]} == {0}


async def test_the_engines_of_a_process_add_up_and_one_that_has_ended_is_not_asked(provided: Provided):
    async with environment(office()) as one, environment(office()) as other:
        await one.run("claim")
        await other.run("claim")
        points = provided.read()["perdure.instance.started"]
    assert sum(point.value for point in points) == 2
    assert not provided.read().get("perdure.warm.instances")
