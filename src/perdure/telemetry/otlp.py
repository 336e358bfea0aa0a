"""Spans in OTLP's JSON, the format in which OpenTelemetry collectors receive and keep them.

Ids are hexadecimal, times are nanoseconds in strings, kinds and statuses are numbers. A span that is still open gets
the time of the export as its end, and the attribute `perdure.open`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NotRequired, TypedDict

from perdure.model.trace_context import TraceContext
from perdure.telemetry.spans import Attribute, Moment, Span, SpanKind, SpanStatus
from perdure.version import __version__

SCOPE: Final = "perdure.history"
OPEN: Final = "perdure.open"
LEFT_OUT: Final = "perdure.left_out"
_KINDS: Final = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}
_STATUSES: Final = {SpanStatus.UNSET: 0, SpanStatus.OK: 1, SpanStatus.ERROR: 2}
_KIND_OF: Final = {number: kind for kind, number in _KINDS.items()}
_STATUS_OF: Final = {number: status for status, number in _STATUSES.items()}


class AttributeDocument(TypedDict):
    key: str
    value: dict[str, Any]


class MomentDocument(TypedDict):
    timeUnixNano: str
    name: str
    attributes: list[AttributeDocument]


class LinkDocument(TypedDict):
    traceId: str
    spanId: str
    traceState: NotRequired[str]


class StatusDocument(TypedDict):
    code: int
    message: NotRequired[str]


class SpanDocument(TypedDict):
    traceId: str
    spanId: str
    parentSpanId: NotRequired[str]
    name: str
    kind: int
    startTimeUnixNano: str
    endTimeUnixNano: str
    attributes: list[AttributeDocument]
    events: NotRequired[list[MomentDocument]]
    links: NotRequired[list[LinkDocument]]
    status: StatusDocument


class ScopeDocument(TypedDict):
    name: str
    version: str


class ScopeSpans(TypedDict):
    scope: ScopeDocument
    spans: list[SpanDocument]


class Resource(TypedDict):
    attributes: list[AttributeDocument]


class ResourceSpans(TypedDict):
    resource: Resource
    scopeSpans: list[ScopeSpans]


class TraceDocument(TypedDict):
    """The body of a request to `/v1/traces` of a collector."""

    resourceSpans: list[ResourceSpans]


def document_of(spans: Iterable[Span], service: str, now: int, *, left_out: int = 0) -> TraceDocument:
    """Spans as a document of OTLP.

    Parameters:
        service: the value of `service.name`.
        now: the time of the export in microseconds, the end of spans that are open.
        left_out: the number of instances that are missing because the tree is too large.
    """
    scope = ScopeSpans(
        scope=ScopeDocument(name=SCOPE, version=__version__), spans=[_span(span, now) for span in spans]
    )
    about: dict[str, Attribute] = {"service.name": service}
    if left_out:
        about[LEFT_OUT] = left_out
    resource = Resource(attributes=_attributes(about))
    return TraceDocument(resourceSpans=[ResourceSpans(resource=resource, scopeSpans=[scope])])


def spans_in(document: Mapping[str, Any]) -> list[Span]:
    """The spans of a document that `document_of` made."""
    return [
        _span_in(one)
        for resource in document.get("resourceSpans", ())
        for scope in resource.get("scopeSpans", ())
        for one in scope.get("spans", ())
    ]


def left_out_in(document: Mapping[str, Any]) -> int:
    """The number of instances that are missing in a document that `document_of` made."""
    return sum(
        int(_attributes_in(one["resource"]).get(LEFT_OUT, 0)) for one in document.get("resourceSpans", ())
    )


def _span(span: Span, now: int) -> SpanDocument:
    attributes = span.attributes if span.end is not None else span.attributes | {OPEN: True}
    end = max(now, span.start) if span.end is None else span.end
    document = SpanDocument(
        traceId=f"{span.trace_id:032x}",
        spanId=f"{span.span_id:016x}",
        name=span.name,
        kind=_KINDS[span.kind],
        startTimeUnixNano=_nanoseconds(span.start),
        endTimeUnixNano=_nanoseconds(end),
        attributes=_attributes(attributes),
        status=StatusDocument(code=_STATUSES[span.status]),
    )
    if span.parent_id:
        document["parentSpanId"] = f"{span.parent_id:016x}"
    if span.message:
        document["status"]["message"] = span.message
    if span.events:
        document["events"] = [
            MomentDocument(timeUnixNano=_nanoseconds(o.at), name=o.name, attributes=_attributes(o.attributes))
            for o in span.events
        ]
    if span.links:
        document["links"] = [_link(link) for link in span.links]
    return document


def _link(link: TraceContext) -> LinkDocument:
    document = LinkDocument(traceId=f"{link.trace_id:032x}", spanId=f"{link.span_id:016x}")
    if link.state:
        document["traceState"] = link.state
    return document


def _nanoseconds(at: int) -> str:
    return str(at * 1_000)


def _attributes(attributes: Mapping[str, Attribute]) -> list[AttributeDocument]:
    return [AttributeDocument(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: Attribute) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": value}


def _span_in(one: Mapping[str, Any]) -> Span:
    attributes = _attributes_in(one)
    is_open = attributes.pop(OPEN, False)
    return Span(
        trace_id=int(one["traceId"], 16),
        span_id=int(one["spanId"], 16),
        parent_id=int(one.get("parentSpanId") or "0", 16),
        name=one["name"],
        kind=_KIND_OF[one["kind"]],
        start=int(one["startTimeUnixNano"]) // 1_000,
        end=None if is_open else int(one["endTimeUnixNano"]) // 1_000,
        status=_STATUS_OF[one["status"]["code"]],
        message=one["status"].get("message", ""),
        attributes=attributes,
        links=tuple(
            TraceContext(int(link["traceId"], 16), int(link["spanId"], 16), state=link.get("traceState", ""))
            for link in one.get("links", ())
        ),
        events=tuple(
            Moment(int(event["timeUnixNano"]) // 1_000, event["name"], _attributes_in(event))
            for event in one.get("events", ())
        ),
    )


def _attributes_in(one: Mapping[str, Any]) -> dict[str, Attribute]:
    return {pair["key"]: _value_in(pair["value"]) for pair in one["attributes"]}


def _value_in(value: Mapping[str, Any]) -> Attribute:
    [(kind, found)] = value.items()
    return int(found) if kind == "intValue" else found


__all__ = ["OPEN", "TraceDocument", "document_of", "left_out_in", "spans_in"]
