"""W3C trace context, in and out: between the field `trace`, headers, and OpenTelemetry's current context.

A trace comes in with a request, a broker's message, or as the current span of the program's own code. It goes out
to the code of orchestrators, to bodies of activities on every host, and with `call_http`. A caller that shows no key
could switch tracing on with the sampled flag. Therefore its trace does not become the parent: it becomes a link.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Final, Literal

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context

from perdure.model.trace_context import SAMPLED, TraceContext, trace_in

Trust = Literal["keys", "all", "none"]
"""Whose `traceparent` becomes the parent: of callers with a key, of all, of none."""

MEMBERS: Final = 32
"""The most members of a tracestate."""
_MEMBER: Final = re.compile(
    r"(?:[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}|[a-z][a-z0-9_*/-]{0,255})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_STRANGE: Final[ContextVar[TraceContext | None]] = ContextVar("perdure_strange_trace", default=None)


class PresentSpan(otel.NonRecordingSpan):
    """A current span that is looked up when it is asked for: the one of the code that runs now.

    It records nothing. One object is current for all code of its kind, so code that does not ask costs nothing. Where
    nothing is found, the span is valid and not sampled: a sampler that follows the parent then samples nothing.
    """

    def __init__(self, look_up: Callable[[], TraceContext | None]) -> None:
        unknown = otel.SpanContext(secrets.randbits(128) or 1, secrets.randbits(64) or 1, False)
        super().__init__(unknown)
        self._look_up = look_up
        self._unknown = unknown

    @property
    def is_unknown(self) -> bool:
        """Whether no code of ours runs here, or its execution belongs to no trace."""
        return self._look_up() is None

    def get_span_context(self) -> otel.SpanContext:
        found = self._look_up()
        return self._unknown if found is None else span_context_of(found, is_remote=False)


def span_context_of(found: TraceContext, *, is_remote: bool = True) -> otel.SpanContext:
    """A trace as OpenTelemetry's context of a span."""
    state = _state_of(found.state) if found.state else None
    flags = otel.TraceFlags(found.flags & SAMPLED)
    return otel.SpanContext(found.trace_id, found.span_id, is_remote, flags, state)


@lru_cache(256)
def _state_of(text: str) -> otel.TraceState | None:
    """A tracestate; None for one that is not valid. The API would log each, and callers could fill the log."""
    members = [one.strip(" \t") for one in text.split(",")]
    keys = [one.partition("=")[0] for one in members if one]
    is_valid = len(keys) <= MEMBERS and len(set(keys)) == len(keys)
    if not is_valid or not all(_MEMBER.fullmatch(one) for one in members if one):
        return None
    return otel.TraceState.from_header([text])


def context_of(found: TraceContext, within: Context | None = None) -> Context:
    """A context whose current span is that of the trace."""
    return otel.set_span_in_context(otel.NonRecordingSpan(span_context_of(found)), within)


def trace_of_span(span: otel.Span) -> TraceContext | None:
    """The trace of a span; None if it has none, as without an SDK."""
    found = span.get_span_context()
    if not found.is_valid:
        return None
    state = found.trace_state.to_header() if found.trace_state else ""
    return TraceContext(found.trace_id, found.span_id, found.trace_flags & SAMPLED, state)


def known_context() -> Context | None:
    """The present context; an empty one where nobody knows the span, so that no two traces get its id."""
    span = otel.get_current_span()
    return Context() if isinstance(span, PresentSpan) and span.is_unknown else None


def current_trace() -> TraceContext | None:
    """The trace of the current span."""
    return trace_of_span(otel.get_current_span())


def strange_trace() -> TraceContext | None:
    """The trace of a caller that is not trusted, for a link."""
    return _STRANGE.get()


def headers_out() -> dict[str, str]:
    """The headers that carry the current trace; none without a trace."""
    found = current_trace()
    if found is None:
        return {}
    return {"traceparent": found.traceparent, **({"tracestate": found.state} if found.state else {})}


def trace_in_headers(headers: Mapping[str, str]) -> TraceContext | None:
    """The trace in the headers of a request or a message; None without a valid one."""
    parent, state = headers.get("traceparent", ""), headers.get("tracestate", "")
    return trace_in(f"{parent.strip()} {state.strip()}".strip()) if parent else None


@contextmanager
def incoming(headers: Mapping[str, str], *, is_trusted: bool) -> Iterator[None]:
    """Handle a request: a trusted trace is current in the block, another one is kept for links.

    Where the program's own instrumentation has begun a span for the request, this span stays current.
    """
    found = trace_in_headers(headers)
    if found is None or current_trace() is not None:
        yield
    elif is_trusted:
        token = otel_context.attach(context_of(found))
        try:
            yield
        finally:
            otel_context.detach(token)
    else:
        strange = _STRANGE.set(found)
        try:
            yield
        finally:
            _STRANGE.reset(strange)


__all__ = [
    "PresentSpan",
    "Trust",
    "context_of",
    "current_trace",
    "headers_out",
    "known_context",
    "incoming",
    "span_context_of",
    "strange_trace",
    "trace_in_headers",
    "trace_of_span",
]
