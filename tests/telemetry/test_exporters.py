"""Exporters that hang, raise or are slow, an SDK without exporters, and no SDK at all: the hub goes on."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler

import perdure as df
from perdure.testing import environment
from tests.telemetry.collecting import Collected, provider_with, use


def make_app(**options: Any) -> df.App:
    app = df.App("claims", **options)

    @app.activity
    async def on_loop(n: int) -> int:
        return n

    @app.activity
    def on_thread(n: int) -> int:
        return n

    @app.orchestrator
    async def main(context: df.OrchestrationContext, n: int) -> list[int]:
        return [await context.call_activity(on_loop, n), await context.call_activity(on_thread, n)]

    return app


async def complete(client: df.Client, count: int = 20) -> None:
    """Run some orchestrations to their ends."""
    ids = await asyncio.gather(*(client.start_new("main", None, n) for n in range(count)))
    for n, one in enumerate(ids):
        assert (await client.wait_for_completion(one, 60)).output == [n, n]


class Hanging(SpanExporter):
    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.goes_on.wait(60)
        return SpanExportResult.SUCCESS


class Raising(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        raise ConnectionError("no collector")


class Bad(SpanProcessor):
    """A processor that raises where the SDK does not catch it."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("on_start")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("on_end")


class Choosy(Sampler):
    def should_sample(self, *_: Any, **more: Any) -> Any:
        raise RuntimeError("no decision")

    def get_description(self) -> str:
        return "choosy"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    exporter = Hanging()
    yield exporter
    exporter.goes_on.set()


async def test_an_exporter_that_hangs_holds_up_nobody_and_what_does_not_fit_is_counted(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, provider_with(hanging))
    async with make_app().running(store="memory:") as client:
        exporter = client.gateway.tracing.exporter
        exporter.limit = 50
        exporter.flush_seconds = 0.1
        await complete(client, 40)
        assert exporter.dropped > 0
        assert client.gateway.health()["healthy"]
    assert "the exporter of spans did not finish" in caplog.text
    hanging.goes_on.set()
    exporter._thread.join(60)  # it would send the rest to the provider of the next test


async def test_after_a_full_queue_the_spans_that_end_later_are_complete(
    hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ended meanwhile is lost to the exporter: another worker could have sent it. `perdure trace` has it."""
    kept = InMemorySpanExporter()
    use(monkeypatch, provider_with(hanging, kept))
    app = df.App("claims")

    @app.orchestrator
    async def steps(context: df.OrchestrationContext) -> None:
        for number in range(4):
            await context.wait_for_external_event(f"event {number}")

    async with environment(app) as env:
        instance_id = await env.client.start_new(steps)
        exporter = env.engine.tracing.exporter
        exporter.limit = 0  # nothing fits
        for number in range(3):
            await env.client.raise_event(instance_id, f"event {number}")
            await env.settled()
        assert exporter.dropped > 0
        exporter.limit = 1_000
        hanging.goes_on.set()
        await env.client.raise_event(instance_id, "event 3")
        await env.client.wait_for_completion(instance_id)
    names = [span.name for span in kept.get_finished_spans() if span.kind.name != "PRODUCER"]
    assert sorted(names) == ["orchestration:steps", "orchestration:steps:wait:event 3"]


@pytest.mark.parametrize("bad", ["exporter", "processor", "sampler"])
async def test_what_raises_in_an_exporter_reaches_no_caller(
    bad: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider = provider_with(Raising()) if bad == "exporter" else TracerProvider(shutdown_on_exit=False)
    if bad == "processor":
        provider.add_span_processor(Bad())
    elif bad == "sampler":
        provider = provider_with(sampler=Choosy())
    use(monkeypatch, provider)
    with caplog.at_level(logging.ERROR):
        async with make_app().running(store="memory:") as client:
            await complete(client)
    assert len([record for record in caplog.records if record.name.startswith("perdure")]) <= 3


async def test_a_slow_exporter_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    turn = threading.Event()

    class Slow(InMemorySpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            turn.wait(0.001)
            return kept.export(spans)

    use(monkeypatch, provider_with(Slow()))
    async with make_app().running(store="memory:") as client:
        await complete(client)
        assert client.gateway.tracing.exporter.dropped == 0
    assert len(kept.get_finished_spans()) == 20 * 6


async def test_an_sdk_without_exporters_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, TracerProvider(shutdown_on_exit=False))
    async with make_app().running(store="memory:") as client:
        await complete(client)


async def test_switched_on_without_a_provider_everything_works() -> None:
    async with make_app(telemetry="on").running(store="memory:") as client:
        assert client.gateway.tracing is not None
        await complete(client)


async def test_switched_off_a_provider_gets_nothing(collected: Collected) -> None:
    async with make_app(telemetry="off").running(store="memory:") as client:
        assert client.gateway.tracing is None
        await complete(client)
    assert collected.all() == []


async def test_the_environment_switches_it(collected: Collected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_TELEMETRY", "off")
    async with make_app().running(store="memory:") as client:
        await complete(client)
    assert collected.all() == []


async def test_a_provider_that_chooses_the_ids_itself_gets_one_trace_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = InMemorySpanExporter()
    inner = provider_with(kept)

    class ForeignTracer(trace.Tracer):
        def __init__(self, name: str) -> None:
            self._tracer = inner.get_tracer(name)

        def start_span(self, *given: Any, **options: Any) -> trace.Span:
            return self._tracer.start_span(*given, **options)

        def start_as_current_span(self, *given: Any, **options: Any) -> Any:
            return self._tracer.start_as_current_span(*given, **options)

    class Foreign(trace.TracerProvider):
        def get_tracer(self, instrumenting_module_name: str, *_: Any, **more: Any) -> trace.Tracer:
            return ForeignTracer(instrumenting_module_name)

    provider = Foreign()
    use(monkeypatch, provider)
    async with make_app().running(store="memory:") as client:
        await complete(client, 3)
    spans = kept.get_finished_spans()
    assert len(spans) == 3 * 6 and len({span.context.trace_id for span in spans}) == 3
    assert caplog.text.count("chooses the ids of spans itself") == 1


async def test_a_stop_flushes_spans_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(spans, schedule_delay_millis=3_600_000))
    use(monkeypatch, provider)
    flushed: list[int] = []

    class Meters(MeterProvider):
        def force_flush(self, timeout_millis: float = 30_000) -> bool:
            flushed.append(int(timeout_millis))
            return super().force_flush(timeout_millis)

    meters = Meters([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: meters)
    async with make_app().running(store="memory:") as client:
        await complete(client, 1)
        assert spans.get_finished_spans() == ()
    assert len(spans.get_finished_spans()) == 6
    assert flushed and 0 < flushed[0] <= 60_000


async def test_messages_of_errors_can_stay_out(collected: Collected) -> None:
    app = df.App("claims")

    @app.activity
    async def fails() -> None:
        raise ValueError("the account 4711 is closed")

    @app.orchestrator
    async def main(context: df.OrchestrationContext) -> None:
        await context.call_activity(fails)

    async with app.running(store="memory:", telemetry_messages=False) as client:
        await client.wait_for_completion(await client.start_new(main), 60)
    spans = collected.all()
    assert len([span for span in spans if span.status.status_code is trace.StatusCode.ERROR]) == 3
    assert not [span.name for span in spans if "4711" in span.to_json()]


PROGRAM = """
import asyncio, sys
import perdure as df
app = df.App("claims")

@app.activity
def body(n: int) -> int:
    return n + 1

@app.route("/start", methods=["POST"])
async def start(client: df.Client) -> object:
    return await client.start_new(main, None, 1)

@app.orchestrator
async def main(context: df.OrchestrationContext, n: int) -> int:
    return await context.call_activity(body, n)

async def run() -> int:
    async with app.running(store="memory:") as client:
        status = await client.wait_for_completion(await client.start_new(main, None, 1), 60)
        return status.output

assert asyncio.run(run()) == 2
from starlette.testclient import TestClient
with TestClient(app.asgi(store="memory:", access="open"), base_url="http://localhost") as http:
    sent = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}
    assert http.post("/api/start", headers=sent).status_code == 200
"""

WITHOUT = """
import sys
sys.modules.update(dict.fromkeys(("opentelemetry", "prometheus_client")))  # cannot be imported
"""


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_a_provider_nothing_of_opentelemetry_is_imported() -> None:
    told = run_python(PROGRAM + "print([m for m in sys.modules if m.partition('.')[0] == 'opentelemetry'])")
    assert told.strip() == "[]"


def test_without_the_package_everything_works_and_switching_it_on_names_the_extra() -> None:
    told = run_python(
        WITHOUT
        + PROGRAM
        + """
async def on() -> None:
    try:
        async with app.running(store="memory:", telemetry="on"):
            pass
    except df.PerdureError as error:
        print(error)

asyncio.run(on())
"""
    )
    assert "pip install 'perdure[telemetry]'" in told
