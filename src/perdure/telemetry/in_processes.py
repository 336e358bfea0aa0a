"""An attempt of an activity in another process, within its trace.

The trace crosses in the invocation's JSON. The process needs nothing of OpenTelemetry: without its API the attempt
runs as without a trace.
"""

from __future__ import annotations

from contextvars import copy_context

import msgspec

from perdure.engine.activities.executors import child
from perdure.model.trace_context import trace_in


class _Traced(msgspec.Struct):
    trace: str = ""


_traces: msgspec.json.Decoder[_Traced] = msgspec.json.Decoder(_Traced)


def carry_out(place: str, invocation: bytes, card: bytes) -> bytes:
    """Run one attempt; see `perdure.engine.activities.executors.child`."""
    return copy_context().run(_carried_out, place, invocation, card)


def _carried_out(place: str, invocation: bytes, card: bytes) -> bytes:
    enter(_traces.decode(invocation).trace)
    return child.carry_out(place, invocation, card)


def enter(trace: str) -> None:
    """Make the span that a trace names current in the present context."""
    found = trace_in(trace)
    if found is None:
        return
    try:
        from opentelemetry import context as otel_context

        from perdure.telemetry.propagation import context_of
    except ImportError:
        return
    otel_context.attach(context_of(found))


__all__ = ["carry_out", "enter"]
