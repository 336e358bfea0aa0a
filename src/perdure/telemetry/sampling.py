"""The sampler's decision: once for a tree of orchestrations, where the tree begins.

A client's start asks the sampler when it begins the span of the start. An execution that begins without a client,
such as the run of a schedule, asks here. The decision travels in the field `trace`: sub-orchestrations, activities
and entities follow it and ask no more. The sampler is the provider's own, through its public attribute.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import trace as otel
from opentelemetry.context import Context

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


def always_on() -> Any:
    """The SDK's sampler that samples everything, for spans of trees whose decision was made; None without an SDK."""
    try:
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
    except ImportError:
        return None
    return ALWAYS_ON


__all__ = ["always_on", "decides", "has_provider"]
