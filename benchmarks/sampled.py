"""Providers for `benchmarks.telemetry`: spans to nowhere, to a sink that speaks OTLP, and to a counter."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, SamplingResult, TraceIdRatioBased

RATIOS: Final = {"no tree sampled": 0.0, "all trees sampled": 1.0, "all, sent by OTLP": 1.0}
OF_ONE_TREE: Final = 8  # spans: the start, the orchestration, and two for each of three activities


class Counting(SpanExporter):
    """Counts the spans of each trace."""

    def __init__(self) -> None:
        self.traces: Counter[int] = Counter()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.traces.update(span.context.trace_id for span in spans if span.context is not None)
        return SpanExportResult.SUCCESS


class Noting(TraceIdRatioBased):
    """Notes which traces it samples."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.sampled: set[int] = set()

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *rest: Any, **more: Any
    ) -> SamplingResult:
        found = super().should_sample(parent_context, trace_id, name, *rest, **more)
        if found.decision is Decision.RECORD_AND_SAMPLE:
            self.sampled.add(trace_id)
        return found


def provide(mode: str, sink: str) -> None:
    """Set the provider of this process."""
    exporter = OTLPSpanExporter(f"{sink}/v1/traces") if "OTLP" in mode else Counting()
    _set(ParentBased(TraceIdRatioBased(RATIOS[mode])), exporter)


def _set(sampler: Any, exporter: SpanExporter) -> None:
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


@contextmanager
def sink() -> Iterator[str]:
    """A server that takes everything, on a thread. Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Losses:
    """How many spans get lost on the way to an exporter, of a tenth of all trees."""

    def __init__(self) -> None:
        self._sampler, self._exporter = Noting(0.1), Counting()
        _set(ParentBased(self._sampler), self._exporter)

    async def pace(self, one: Callable[[str], Awaitable[object]], rate: int, seconds: float) -> float:
        """Run `rate` workflows a second; returns the rate that was reached."""
        began, running = time.perf_counter(), []
        total = int(rate * seconds)
        for number in range(total):
            due = began + number / rate
            if due > time.perf_counter():
                await asyncio.sleep(due - time.perf_counter())
            running.append(asyncio.ensure_future(one(str(number))))
        await asyncio.gather(*running)
        return total / (time.perf_counter() - began)

    def found(self) -> dict[str, int]:
        """The sampled trees, their spans, and those that did not arrive. After the engine has stopped."""
        wanted = len(self._sampler.sampled) * OF_ONE_TREE
        arrived = sum(self._exporter.traces[trace_id] for trace_id in self._sampler.sampled)
        return {"trees": len(self._sampler.sampled), "spans": arrived, "lost": wanted - arrived}


__all__ = ["RATIOS", "Losses", "provide", "sink"]
