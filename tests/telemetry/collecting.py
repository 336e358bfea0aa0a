"""An SDK for one test: a provider that collects spans, in place of the program's global one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from perdure.telemetry import exporting


class Collected:
    """The spans that a provider exported, after the engine has stopped."""

    def __init__(self, provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
        self.provider = provider
        self._exporter = exporter

    def all(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str, kind: str = "") -> list[ReadableSpan]:
        """The spans of this name, and of this kind if one is given, in the order of their starts."""
        found = [s for s in self.all() if s.name == name and kind in ("", s.kind.name)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def one(self, name: str, kind: str = "") -> ReadableSpan:
        [found] = self.named(name, kind)
        return found

    def parent_of(self, span: ReadableSpan) -> ReadableSpan | None:
        """The parent, which must have been exported; None for a root."""
        if span.parent is None:
            return None
        [found] = [s for s in self.all() if id_of(s) == span.parent.span_id]
        assert found.context.trace_id == span.context.trace_id
        return found

    def path_of(self, span: ReadableSpan) -> list[str]:
        """The kinds and names from the root to this span."""
        parent = self.parent_of(span)
        own = f"{span.kind.name} {span.name}"
        return [own] if parent is None else [*self.path_of(parent), own]


def id_of(span: ReadableSpan) -> int:
    return span.context.span_id


def provider_with(*exporters: SpanExporter, **options: Any) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False, **options)
    for exporter in exporters:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def use(monkeypatch: pytest.MonkeyPatch, provider: trace.TracerProvider) -> None:
    """Make a provider the program's, for one test: the API lets it be set only once in a process.

    A stop waits for the exporter for longer than usual, because a slow machine must lose no span.
    """
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(exporting, "FLUSH_SECONDS", 60.0)


@contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Iterator[Collected]:
    exporter = InMemorySpanExporter()
    provider = provider_with(exporter, **options)
    use(monkeypatch, provider)
    yield Collected(provider, exporter)
    provider.shutdown()
