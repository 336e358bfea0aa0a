"""The sampler's decision: once for a tree of orchestrations, where the tree begins.

A client's start asks the sampler when it begins the span of the start. An execution that begins without a client,
such as the run of a schedule, asks here. The decision travels in the field `trace`: sub-orchestrations, activities
and entities follow it and ask no more. The sampler is the provider's own, through its public attribute.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from opentelemetry import trace as otel
from opentelemetry.context import Context

from perdure.model.trace_context import SAMPLED, TraceContext

_NOBODY: Final = Context()
_WITHOUT_SPANS: Final = (otel.ProxyTracerProvider, otel.NoOpTracerProvider)


def has_provider() -> bool:
    """Whether the program has set a tracer provider, so that spans go anywhere."""
    return not isinstance(otel.get_tracer_provider(), _WITHOUT_SPANS)


def decides(trace_id: int, name: str) -> bool:
    """Whether the sampler of the provider samples a trace with this id and this root.

    A provider without a sampler decides when its spans end, and samples here. Raises what the sampler raises.
    """
    if not has_provider():
        return False
    sampler: Any = getattr(otel.get_tracer_provider(), "sampler", None)
    if sampler is None:
        return True
    found = sampler.should_sample(_NOBODY, trace_id, name, otel.SpanKind.SERVER, {}, ())
    return bool(found.decision.is_sampled())


class Decision(NamedTuple):
    """What the sampler of the provider says of a span that a client's message begins, and the ids of the span."""

    is_sampled: bool
    trace: TraceContext
    attributes: Any


def decision(
    name: str, kind: otel.SpanKind, within: Context | None, attributes: Any, links: Any
) -> Decision | None:
    """Ask the sampler. None if the provider has no sampler or chooses its own ids: it must begin the span itself.

    A span that is not sampled costs this question and no more: the SDK's own way takes three times as long.
    """
    provider: Any = otel.get_tracer_provider()
    sampler, ids = getattr(provider, "sampler", None), getattr(provider, "id_generator", None)
    if sampler is None or ids is None:
        return None
    parent = otel.get_current_span(within).get_span_context()
    trace_id = parent.trace_id if parent.is_valid else ids.generate_trace_id()
    found = sampler.should_sample(within, trace_id, name, kind, attributes, links)
    state = found.trace_state.to_header() if found.trace_state else ""
    sampled = found.decision.is_sampled()
    trace = TraceContext(trace_id, ids.generate_span_id(), SAMPLED if sampled else 0, state)
    return Decision(sampled, trace, found.attributes)


def always_on() -> Any:
    """The SDK's sampler that samples everything, for spans of trees whose decision was made; None without an SDK."""
    try:
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError:
        return None
    return ALWAYS_ON


__all__ = ["Decision", "always_on", "decides", "decision", "has_provider"]
