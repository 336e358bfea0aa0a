"""The span of an entity's operation that ran on the loop's thread, and how a failure ends a span."""

from __future__ import annotations

from typing import Any

from perdure.engine.core.tracing import TracedOperation, calling
from perdure.failure import Failure
from perdure.model.trace_context import trace_in
from perdure.telemetry.spans import Attribute, Moment, Span, SpanKind, SpanStatus, entity_name


def operation_span(part: TracedOperation, *, messages: bool) -> Span:
    """The SERVER span of an operation that ran on the loop's thread."""
    message, parent, own = part.message, calling(part.message), trace_in(part.trace)
    assert parent is not None and own is not None
    name = entity_name(part.entity)
    end = part.at + int(part.seconds * 1e6)
    return Span(
        trace_id=own.trace_id,
        span_id=own.span_id,
        parent_id=parent.span_id,
        name=f"entity:{name}:{message.operation}",
        kind=SpanKind.SERVER,
        start=part.at,
        end=end,
        attributes={
            "durabletask.type": "entity",
            "durabletask.task.name": name,
            "durabletask.task.operation": message.operation,
            "durabletask.task.instance_id": part.entity,
            "durabletask.task.status": "Failed" if part.failure is not None else "Completed",
        },
        **outcome_of(part.failure, end, messages=messages),
    )


def exception_in(failure: Failure, *, messages: bool) -> dict[str, Attribute]:
    """A failure as the attributes of OpenTelemetry's event for exceptions."""
    attributes: dict[str, Attribute] = {"exception.type": failure.type}
    if messages:
        attributes["exception.message"] = failure.message
    return attributes


def outcome_of(failure: Failure | None, at: int, *, messages: bool) -> dict[str, Any]:
    if failure is None:
        return {"status": SpanStatus.OK}
    return {
        "status": SpanStatus.ERROR,
        "message": str(failure) if messages else "",
        "events": (Moment(at, "exception", exception_in(failure, messages=messages)),),
    }


__all__ = ["exception_in", "operation_span", "outcome_of"]
