"""Spans of bodies: the SERVER span of an activity or an entity's operation, and the CLIENT span of an HTTP call.

On the event loop and on threads the span is live: it is the current span of the user's code, which can add to it.
A body on an executor runs in another process, perhaps on another machine, with an exporter or without one. There the
trace is current, and the worker makes the span when the body has returned, with the id that the process has seen.
An attempt that runs twice after a crash shows twice, because it ran twice.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from opentelemetry import context as otel_context
from opentelemetry import trace as otel

from perdure.engine.core.telemetry import Body
from perdure.model.activity_names import entity_of
from perdure.model.http_calls import HTTP_ACTIVITY, HttpRequest
from perdure.model.messages import ActivityResult
from perdure.model.span_ids import span_id_of
from perdure.model.trace_context import TraceContext, trace_in
from perdure.replay.settle import Invocation
from perdure.telemetry.exporting import KINDS, STATUSES, Exporter
from perdure.telemetry.operations import exception_in, outcome_of
from perdure.telemetry.propagation import context_of
from perdure.telemetry.spans import Attribute, Span, SpanKind, SpanStatus

TRAVELLING: Final = 100_000
"""The most bodies on executors whose spans' ids are kept."""
ON_LOOP: Final = "event loop"
IN_PROCESS: Final = (ON_LOOP, "thread")
"""The hosts whose bodies run in this process."""
_requests: Final = msgspec.json.Decoder(HttpRequest)


class _Open:
    """A body that runs: its live span and the token of its context, or the parent of the span made at its end."""

    __slots__ = ("began", "parent", "span", "token")

    def __init__(self, parent: TraceContext, span: otel.Span | None = None, token: Any = None) -> None:
        self.parent = parent
        self.span = span
        self.token = token
        self.began = time.time_ns()


class Bodies:
    """The spans of the bodies that run on this worker."""

    def __init__(self, exporter: Exporter, worker: str, *, messages: bool = True) -> None:
        self._exporter = exporter
        self._worker = worker
        self._messages = messages
        self._open: dict[Body, _Open] = {}
        self._travelling: dict[tuple[str, int], int] = {}
        """The ids of spans that other processes know, by execution and task."""
        self._gate = threading.Lock()

    def begun(self, attempt: Body) -> None:
        """A body begins. Its span becomes current, if the body runs in this process."""
        invocation = attempt.invocation
        parent = parent_of(invocation)
        if parent is None:
            return
        if attempt.where not in IN_PROCESS:
            if parent.is_sampled:
                self._open[attempt] = _Open(parent)
            return
        within = context_of(parent)
        span = otel.get_current_span(within)
        if parent.is_sampled:
            name, kind = _named(invocation)
            span = self._exporter.tracers.live().start_span(
                name, within, KINDS[kind], self._attributes(invocation, attempt.where)
            )
        token = otel_context.attach(otel.set_span_in_context(span))
        self._open[attempt] = _Open(parent, span, token)

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        """The body has returned. On the event loop the context is the one before; a thread's context is gone."""
        found = self._open.pop(attempt, None)
        if found is None:
            return
        if found.token is not None and attempt.where == ON_LOOP:
            otel_context.detach(found.token)
        if found.span is None:
            self._exporter.make(self._elsewhere(attempt, found, result))
        elif found.span.is_recording():
            self._settle(found.span, result, attempt.invocation)
            self._exporter.end(found.span, time.time_ns())

    def travels(self, invocation: Invocation) -> str:
        """The trace for a body in another process: its current span is the SERVER span, by its id."""
        parent = parent_of(invocation)
        if parent is None or not parent.is_sampled:
            return "" if parent is None else parent.text()
        span_id = secrets.randbits(64) or 1
        with self._gate:
            self._travelling[invocation.execution_id, invocation.task_id] = span_id
            if len(self._travelling) > TRAVELLING:  # some are cancelled before they begin
                del self._travelling[next(iter(self._travelling))]
        return parent._replace(span_id=span_id).text()

    def close(self) -> None:
        """End the spans of bodies that have not returned: the worker stops without them."""
        for attempt in list(self._open):
            found = self._open.pop(attempt, None)
            if found is not None and found.span is not None and found.span.is_recording():
                found.span.set_attribute("durabletask.task.status", "Interrupted")
                self._exporter.end(found.span, time.time_ns())

    def _attributes(self, invocation: Invocation, where: str) -> dict[str, Attribute]:
        if invocation.name == HTTP_ACTIVITY:
            return _of_request(invocation)
        entity = entity_of(invocation.name)
        attributes: dict[str, Attribute] = {
            "durabletask.type": "entity" if entity else "activity",
            "durabletask.task.name": entity or invocation.name,
            "durabletask.task.instance_id": invocation.instance_id,
            "durabletask.task.execution_id": invocation.execution_id,
            "durabletask.task.task_id": invocation.task_id,
            "perdure.attempt": invocation.attempt,
            "perdure.worker": self._worker,
            "perdure.host": where,
        }
        if entity:
            attributes["durabletask.task.operation"] = _operation_in(invocation)
        return attributes

    def _settle(self, span: otel.Span, result: ActivityResult, invocation: Invocation) -> None:
        failure = result.failure
        if invocation.name == HTTP_ACTIVITY:
            if failure is None:
                status = int(msgspec.json.decode(result.result)["statusCode"])
                span.set_attribute("http.response.status_code", status)
                if status >= 400:
                    span.set_attribute("error.type", str(status))
                    span.set_status(otel.Status(otel.StatusCode.ERROR))
        else:
            span.set_attribute("durabletask.task.status", "Failed" if failure is not None else "Completed")
        if failure is not None:
            span.set_attribute("error.type", failure.type)
            span.add_event("exception", exception_in(failure, messages=self._messages))
            told = str(failure) if self._messages else None
            span.set_status(otel.Status(STATUSES[SpanStatus.ERROR], told))

    def _elsewhere(self, attempt: Body, found: _Open, result: ActivityResult) -> Span:
        invocation, failure = attempt.invocation, result.failure
        end = time.time_ns() // 1_000
        name, kind = _named(invocation)
        attributes = self._attributes(invocation, attempt.where)
        attributes["durabletask.task.status"] = "Failed" if failure is not None else "Completed"
        return Span(
            trace_id=found.parent.trace_id,
            span_id=self._travelling.pop((invocation.execution_id, invocation.task_id), 0)
            or secrets.randbits(64)
            or 1,
            parent_id=found.parent.span_id,
            name=name,
            kind=kind,
            start=found.began // 1_000,
            end=end,
            attributes=attributes,
            **outcome_of(failure, end, messages=self._messages),
        )


def parent_of(invocation: Invocation) -> TraceContext | None:
    """The CLIENT span that waits for a body; None for an execution without a trace.

    The trace of an entity's operation names the span of its caller itself.
    """
    found = trace_in(invocation.trace)
    if found is None or entity_of(invocation.name):
        return found
    ids = invocation.instance_id, invocation.execution_id
    task = span_id_of(*ids, invocation.task_id, invocation.endings)
    return found._replace(span_id=task)


def _named(invocation: Invocation) -> tuple[str, SpanKind]:
    if invocation.name == HTTP_ACTIVITY:
        return f"http:{_requests.decode(invocation.input).method}", SpanKind.CLIENT
    entity = entity_of(invocation.name)
    if entity:
        return f"entity:{entity}:{_operation_in(invocation)}", SpanKind.SERVER
    return f"activity:{invocation.name}", SpanKind.SERVER


def _operation_in(invocation: Invocation) -> str:
    return str(msgspec.json.decode(invocation.input)["operation"])


def _of_request(invocation: Invocation) -> dict[str, Attribute]:
    """An HTTP request by OpenTelemetry's conventions, without what can contain a secret: user, query and fragment."""
    request = _requests.decode(invocation.input)
    parts = urlsplit(request.uri)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    place = shown if parts.port is None else f"{shown}:{parts.port}"
    return {
        "http.request.method": request.method,
        "server.address": host,
        "server.port": port,
        "url.full": f"{parts.scheme}://{place}{parts.path}",
        "url.scheme": parts.scheme,
        "http.request.resend_count": max(invocation.attempt - 1, 0),
    }


__all__ = ["ON_LOOP", "Bodies", "parent_of"]
