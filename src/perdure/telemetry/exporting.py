"""From a commit to the exporter: a bounded queue, and a thread that makes the spans.

The loop hands over references after the commit and goes on. The thread reads each episode into the spans that it
ends, makes them with the ids that history implies, and passes them to the program's own provider. An exporter that
hangs, raises or is slow stops this thread only: then the queue fills, and what does not fit is dropped and counted.

OpenTelemetry's API cannot give a span its id. The SDK's tracer has a public attribute for that, `id_generator`. A
tracer of our own scope gets one that returns the ids that this thread wants; other tracers keep theirs. A provider
without this attribute chooses ids of its own, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from queue import SimpleQueue
from typing import Any, Final

from opentelemetry import metrics as otel_metrics
from opentelemetry import trace as otel
from opentelemetry.context import Context

from perdure.engine.core.tracing import Traced, TracedEpisode, TracedOperation
from perdure.model.trace_context import SAMPLED, TraceContext
from perdure.telemetry.operations import operation_span
from perdure.telemetry.propagation import span_context_of
from perdure.telemetry.reading import Histories, Readers
from perdure.telemetry.sampling import always_on
from perdure.telemetry.spans import Span, SpanKind, SpanStatus

LIMIT: Final = 10_000
"""The most parts that wait for the thread; further ones are dropped."""
GATHER_SECONDS: Final = 0.02
"""How long the thread waits for more to do, once it has caught up."""
FLUSH_SECONDS: Final = 5.0
"""How long a stop waits for the exporters."""
HISTORY: Final = "perdure.history"
LIVE: Final = "perdure"
KINDS: Final = {kind: otel.SpanKind[kind.name] for kind in SpanKind}
STATUSES: Final = {status: otel.StatusCode[status.name] for status in SpanStatus}

log = logging.getLogger("perdure.telemetry")


class ChosenIds:
    """An id generator that returns the ids which its thread has chosen."""

    def __init__(self) -> None:
        self._here = threading.local()

    def choose(self, trace_id: int, span_id: int) -> None:
        self._here.ids = trace_id, span_id

    def generate_trace_id(self) -> int:
        return int(self._here.ids[0])

    def generate_span_id(self) -> int:
        return int(self._here.ids[1])

    def is_trace_id_random(self) -> bool:
        return False


_CHOSEN: Final = ChosenIds()


class Tracers:
    """The tracers of the present provider. Both sample everything: the tree's decision was made before."""

    def __init__(self) -> None:
        self._provider: Any = None
        self._history: otel.Tracer | None = None
        self._live: otel.Tracer | None = None
        self._has_told = False

    def history(self) -> otel.Tracer:
        """For spans with chosen ids, on the exporting thread."""
        self._look()
        assert self._history is not None
        return self._history

    def start(
        self,
        trace: TraceContext,
        name: str,
        within: Context | None,
        kind: otel.SpanKind,
        attributes: Any,
        links: Sequence[otel.Link],
    ) -> otel.Span:
        """Start a span with chosen ids, on any thread."""
        self._look()
        assert self._history is not None
        _CHOSEN.choose(trace.trace_id, trace.span_id)
        return self._history.start_span(name, within, kind, attributes, links)

    def live(self) -> otel.Tracer:
        """For spans of bodies that run now, with the provider's own ids."""
        self._look()
        assert self._live is not None
        return self._live

    def _look(self) -> None:
        provider = otel.get_tracer_provider()
        if provider is self._provider:
            return
        own = version("perdure")
        self._history = _sampling_all(provider.get_tracer(HISTORY, own))
        self._live = _sampling_all(provider.get_tracer(f"{LIVE}.bodies", own))
        if hasattr(self._history, "id_generator"):
            self._history.id_generator = _CHOSEN
        elif not self._has_told and not isinstance(provider, otel.ProxyTracerProvider):
            self._has_told = True
            log.warning(
                "the tracer provider %s chooses the ids of spans itself: a trace that is exported again, such as by "
                "`perdure trace`, has other ids",
                type(provider).__qualname__,
            )
        self._provider = provider


def _sampling_all(tracer: Any) -> Any:
    everything = always_on()
    if everything is not None and hasattr(tracer, "sampler"):
        tracer.sampler = everything
    return tracer


class Exporter:
    """Makes spans on a thread of its own, from what the engine hands over.

    Parameters:
        hub: the name of the hub, for the attributes.
        messages: whether spans contain the text of errors.
        histories: reads an execution that the thread does not know.
    """

    def __init__(self, hub: str, histories: Histories, *, messages: bool = True) -> None:
        self.limit = LIMIT
        self.flush_seconds = FLUSH_SECONDS
        self.dropped = 0
        """The number of parts that did not fit into the queue, or whose spans could not be made."""
        self.tracers = Tracers()
        self._messages = messages
        self._jobs: SimpleQueue[tuple[Callable[[], None], int] | None] = SimpleQueue()
        self._waiting = 0
        self._closing = threading.Event()
        self._gate = threading.Lock()
        self._readers = Readers(hub, histories, messages=messages)
        self._has_failed = False
        self._last: tuple[tuple[int, int], Context] = (0, 0), Context()
        self._thread = threading.Thread(target=self._work, name="perdure-telemetry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # ------------------------------------------------------------------------------- from any thread

    def hand_over(self, parts: Sequence[Traced]) -> None:
        """Take what a commit has made true. Returns at once."""
        self._put(lambda: self._export(parts), len(parts))

    def end(self, span: otel.Span, at: int) -> None:
        """End a span that was started on another thread. `at` is in nanoseconds since 1970."""
        self._put(lambda: span.end(at), 1)

    def make(self, span: Span) -> None:
        """Make a span that has ended."""
        self._put(lambda: self._made(span), 1)

    def _put(self, job: Callable[[], None], parts: int) -> None:
        with self._gate:
            if self._waiting + parts > self.limit:
                self.dropped += parts
                return
            self._waiting += parts
        self._jobs.put((job, parts))

    async def close(self) -> None:
        """Make the spans that wait, and flush the providers of the program: spans and metrics."""
        seconds, done, loop = self.flush_seconds, asyncio.Event(), asyncio.get_running_loop()

        def flush() -> None:
            self._closing.set()
            self._jobs.put(None)
            if self._thread.ident is not None:
                self._thread.join()
            _flush(seconds)
            with suppress(RuntimeError):  # the wait was too long, and the event loop is closed
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=flush, name="perdure-flush", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), seconds)
        except TimeoutError:
            log.warning(
                "the exporter of spans did not finish within %g s: the engine stops, and %d parts are not exported",
                seconds,
                self._waiting,
            )

    # --------------------------------------------------------------------------------- on its thread

    def _work(self) -> None:
        while (found := self._jobs.get()) is not None:
            if self._jobs.empty():
                self._closing.wait(GATHER_SECONDS)  # several at once disturb the other threads less
            job, parts = found
            try:
                job()
            except Exception:
                self._failed(parts)
            with self._gate:
                self._waiting -= parts

    def _failed(self, parts: int) -> None:
        with self._gate:
            self.dropped += parts
        if not self._has_failed:
            self._has_failed = True
            log.exception("a span could not be exported; further failures are only counted")

    def _export(self, parts: Sequence[Traced]) -> None:
        for part in parts:
            try:
                match part:
                    case TracedEpisode():
                        for span in self._readers.ended_by(part):
                            self._made(span)
                    case TracedOperation():
                        self._made(operation_span(part, messages=self._messages))
            except Exception:
                self._failed(1)

    def _made(self, span: Span) -> None:
        """Make a span through the provider: start and end, with its ids."""
        assert span.end is not None
        made = self.tracers.history()
        _CHOSEN.choose(span.trace_id, span.span_id)
        started = made.start_span(
            span.name,
            self._within(span.trace_id, span.parent_id),
            KINDS[span.kind],
            span.attributes,
            [otel.Link(span_context_of(link)) for link in span.links],
            span.start * 1_000,
        )
        for moment in span.events:
            started.add_event(moment.name, moment.attributes, moment.at * 1_000)
        if span.status is not SpanStatus.UNSET:
            started.set_status(otel.Status(STATUSES[span.status], span.message or None))
        started.end(span.end * 1_000)

    def _within(self, trace_id: int, parent_id: int) -> Context:
        """The context with the parent of a span. Spans that follow each other often have the same."""
        if self._last[0] != (trace_id, parent_id):
            parent = otel.SpanContext(trace_id, parent_id, False, otel.TraceFlags(SAMPLED))
            within = otel.set_span_in_context(otel.NonRecordingSpan(parent), Context())
            self._last = (trace_id, parent_id), within if parent_id else Context()
        return self._last[1]


def _flush(seconds: float) -> None:
    """Flush what the program's providers hold back. A provider without `force_flush` holds nothing."""
    until = time.monotonic() + seconds
    for provider in (otel.get_tracer_provider(), otel_metrics.get_meter_provider()):
        flush = getattr(provider, "force_flush", None)
        if flush is None:
            continue
        try:
            flush(max(int((until - time.monotonic()) * 1_000), 1))
        except Exception:
            log.exception("a flush of %s failed", type(provider).__qualname__)


__all__ = ["Exporter", "Tracers"]
