"""The tracer of a worker: what the engine asks, answered with OpenTelemetry.

It is made when telemetry is on, and only then is OpenTelemetry imported. `propagation` has the contexts, `sampling`
the decision, `bodies` the live spans, and `exporting` the thread that makes the others.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context as ContextVariables
from functools import partial
from typing import Any, Final, TypeVar

from msgspec.structs import replace
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context

from perdure.engine.activities.asyncio_host import invocation_here
from perdure.engine.core.telemetry import Body, Durable
from perdure.engine.core.tracing import CodeHere, calling
from perdure.model.durations import moment, stamp
from perdure.model.messages import ActivityResult, EntityOperation, Message, RaiseEvent, Start
from perdure.model.span_ids import span_id_of, trace_id_of
from perdure.model.trace_context import TraceContext, is_sampled, trace_begun, trace_in
from perdure.replay.settle import Invocation
from perdure.telemetry import in_processes, propagation, sampling
from perdure.telemetry.bodies import ON_LOOP, Bodies, parent_of
from perdure.telemetry.exporting import LIVE, Exporter
from perdure.telemetry.reading import Histories
from perdure.telemetry.spans import Attribute, entity_name, versioned
from perdure.triggers.names import FIRING

M = TypeVar("M", bound=Message)
log = logging.getLogger("perdure.telemetry")


class Tracer:
    """Traces one engine. It implements the engine's ports for traces and for telemetry.

    Parameters:
        hub, worker: the names of the hub and of this worker, for the attributes.
        histories: reads the history of an execution that was begun before this worker started.
        messages: whether spans contain the text of errors.
    """

    follows_bodies = True
    carry_out = staticmethod(in_processes.carry_out)
    headers_out = staticmethod(propagation.headers_out)

    def __init__(self, hub: str, worker: str, histories: Histories, *, messages: bool = True) -> None:
        self.exporter = Exporter(hub, histories, messages=messages)
        self._bodies = Bodies(self.exporter, worker, messages=messages)
        self._messages = messages
        self._told: set[str] = set()

    def start(self) -> None:
        """Start the thread that exports."""
        self.exporter.start()

    async def close(self) -> None:
        """Export what waits, and flush the program's providers."""
        self._bodies.close()
        await self.exporter.close()

    def dropped(self) -> int:
        """How many parts of traces were dropped, because too many waited for the exporter."""
        return self.exporter.dropped

    # ------------------------------------------------------------------------------- clients' messages

    def sending(self, message: M) -> tuple[M, Any]:
        """The PRODUCER span of a start, an event or a signal, from the accept until it is durable."""
        described = _SPANS.get(type(message))
        if described is None:
            return message, None
        try:
            return self._sending(message, *described(message))
        except Exception as error:  # of a processor or a sampler: the message must reach the hub
            self._tell(error)
            return message, None

    def _sending(self, message: Any, name: str, attributes: dict[str, Attribute]) -> tuple[Any, Any]:
        carried = trace_in(message.trace)
        strange = propagation.strange_trace()
        links = [otel.Link(propagation.span_context_of(strange))] if strange is not None else []
        within = propagation.context_of(carried) if carried is not None else propagation.known_context()
        found, span = self._begun_span(name, within, attributes, links)
        if found is None or (span is None and isinstance(message, RaiseEvent)):
            return message, None  # the trace of an event is a link: to a span that was exported
        return replace(message, trace=found.text()), span

    def _begun_span(
        self, name: str, within: Context | None, attributes: dict[str, Attribute], links: list[otel.Link]
    ) -> tuple[TraceContext | None, Any]:
        """The trace of a span, and the span, if the sampler wants it."""
        kind = otel.SpanKind.PRODUCER
        decision = sampling.decision(name, kind, within, attributes, links)
        if decision is None:
            span = otel.get_tracer(LIVE).start_span(name, within, kind, attributes, links)
            return propagation.trace_of_span(span), span if span.is_recording() else None
        if not decision.is_sampled:
            return decision.trace, None
        span = self.exporter.tracers.start(decision.trace, name, within, kind, decision.attributes, links)
        return decision.trace, span

    def sent(self, span: Any, error: BaseException | None) -> None:
        """The message of a span is durable, or was rejected."""
        if error is not None:
            told = f"{type(error).__name__}: {error}" if self._messages else type(error).__name__
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(otel.Status(otel.StatusCode.ERROR, told))
        self.exporter.end(span, time.time_ns())

    def incoming(self, headers: Mapping[str, str], *, is_trusted: bool) -> AbstractContextManager[None]:
        """The block in which a request is handled."""
        return propagation.incoming(headers, is_trusted=is_trusted)

    # ---------------------------------------------------------------------------------- on the loop

    def begins(self, name: str, instance_id: str, execution_id: str, trace: str, *, is_child: bool) -> str:
        """A new trace where no caller began one: for the run of a schedule, and for what an entity starts."""
        is_run = name == FIRING
        if (trace or is_child) and not is_run:
            return trace
        sampled = False
        try:
            sampled = sampling.decides(trace_id_of(instance_id, execution_id), name)
        except Exception as error:
            self._tell(error)
        return trace_begun(instance_id, execution_id, sampled=sampled, caller=trace)

    def variables(self, here: Callable[[], CodeHere | None]) -> ContextVariables:
        """The context variables of orchestrators and entities."""
        found = ContextVariables()
        found.run(_attach, propagation.PresentSpan(partial(_code_span, here)))
        return found

    @contextmanager
    def for_bodies(self) -> Iterator[None]:
        """The block whose context bodies inherit: there the span of the body that runs is current."""
        token = _attach(propagation.PresentSpan(_body_span))
        try:
            yield
        finally:
            otel_context.detach(token)

    def operates(self, message: EntityOperation) -> str:
        """The trace with the span of an entity's operation, by an id of its own."""
        caller = calling(message)
        return "" if caller is None else caller._replace(span_id=secrets.randbits(64) or 1).text()

    def resumes(self, trace: str) -> None:
        """Make the span that a trace names current in the present context."""
        in_processes.enter(trace)

    def committed(self, durable: Durable) -> None:
        """Hand over what ended with a batch."""
        parts = durable.released.traced
        if parts:
            self.exporter.hand_over(parts)

    # -------------------------------------------------------------------------------------- bodies

    def begun(self, attempt: Body) -> None:
        """The body of an attempt begins."""
        if attempt.where == ON_LOOP and not is_sampled(attempt.invocation.trace):
            return  # `for_bodies` has the span
        self._quietly(self._bodies.begun, attempt)

    def ended(self, attempt: Body, result: ActivityResult) -> None:
        """The body has returned."""
        self._quietly(self._bodies.ended, attempt, result)

    def travels(self, invocation: Invocation) -> str:
        """The trace that goes with an invocation to another process."""
        return self._bodies.travels(invocation)

    def _quietly(self, action: Callable[..., None], *given: Any) -> None:
        """Call an action that runs code of the program: a processor of spans can raise."""
        try:
            action(*given)
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        kind = type(error).__name__
        if kind not in self._told:
            self._told.add(kind)
            log.exception(
                "a span could not be made; further errors of this kind are not logged", exc_info=error
            )


def _attach(span: otel.Span) -> Any:
    return otel_context.attach(otel.set_span_in_context(span, Context()))


def _code_span(here: Callable[[], CodeHere | None]) -> TraceContext | None:
    """The span of the execution whose code runs, not sampled while it repeats its history."""
    code = here()
    if code is None:
        return None
    span_id = span_id_of(code.instance_id, code.execution_id)
    found = trace_in(code.trace)
    if found is None:
        return TraceContext(trace_id_of(code.instance_id, code.execution_id), span_id, 0)
    return found._replace(span_id=span_id, flags=found.flags if code.is_live else 0)


def _body_span() -> TraceContext | None:
    """The span that waits for the body of the present task, of a trace that is not sampled."""
    invocation = invocation_here()
    return parent_of(invocation) if invocation is not None else None


Described = tuple[str, dict[str, Attribute]]


def _of_start(message: Start) -> Described:
    attributes: dict[str, Attribute] = {
        "durabletask.type": "orchestration",
        "durabletask.task.name": message.name,
        "durabletask.task.instance_id": message.instance_id,
    }
    if message.version:
        attributes["durabletask.task.version"] = message.version
    if message.visible_at:
        attributes["durabletask.task.scheduled_time"] = stamp(moment(message.visible_at))
    return f"create_orchestration:{versioned(message.name, message.version)}", attributes


def _of_event(message: RaiseEvent) -> Described:
    return f"orchestration_event:{message.name}", {
        "durabletask.type": "event",
        "durabletask.task.name": message.name,
        "durabletask.event.target_instance_id": message.instance_id,
    }


def _of_operation(message: EntityOperation) -> Described:
    name = entity_name(message.instance_id)
    attributes: dict[str, Attribute] = {
        "durabletask.type": "entity",
        "durabletask.task.name": name,
        "durabletask.task.operation": message.operation,
        "durabletask.event.target_instance_id": message.instance_id,
    }
    if message.visible_at:
        attributes["durabletask.task.scheduled_time"] = stamp(moment(message.visible_at))
    return f"entity:{name}:{message.operation}", attributes


_SPANS: Final[dict[type, Callable[[Any], Described]]] = {
    Start: _of_start,
    RaiseEvent: _of_event,
    EntityOperation: _of_operation,
}
"""The spans of clients' messages: name and attributes."""


__all__ = ["Tracer"]
