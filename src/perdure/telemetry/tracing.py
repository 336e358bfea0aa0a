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
from typing import Any, TypeVar

from msgspec.structs import replace
from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.context import Context

from perdure.engine.core.telemetry import Body, Durable
from perdure.engine.core.tracing import calling
from perdure.model.durations import moment, stamp
from perdure.model.messages import ActivityResult, EntityOperation, Message, RaiseEvent, Start
from perdure.model.span_ids import span_id_of, trace_id_of
from perdure.model.trace_context import TraceContext, trace_begun, trace_in
from perdure.replay.settle import Invocation
from perdure.telemetry import in_processes, propagation, sampling
from perdure.telemetry.bodies import Bodies
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

    def sending(self, message: M) -> AbstractContextManager[M]:
        """The PRODUCER span of a start, an event or a signal, from the accept until it is durable."""
        match message:
            case Start():
                name = versioned(message.name, message.version)
                return self._sending(message, f"create_orchestration:{name}", _of_start(message))
            case RaiseEvent():
                return self._sending(message, f"orchestration_event:{message.name}", _of_event(message))
            case EntityOperation():
                name = f"entity:{_entity_name(message)}:{message.operation}"
                return self._sending(message, name, _of_operation(message))
            case _:
                return _Unchanged(message)

    @contextmanager
    def _sending(self, message: Any, name: str, attributes: dict[str, Attribute]) -> Iterator[Any]:
        carried = trace_in(message.trace)
        strange = propagation.strange_trace()
        links = [otel.Link(propagation.span_context_of(strange))] if strange is not None else []
        within = propagation.context_of(carried) if carried is not None else None
        span = self._started(name, within, attributes, links)
        found = propagation.trace_of_span(span)
        try:
            yield replace(message, trace=found.text()) if found is not None else message
        except BaseException as error:
            told = f"{type(error).__name__}: {error}" if self._messages else type(error).__name__
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(otel.Status(otel.StatusCode.ERROR, told))
            raise
        finally:
            if span.is_recording():
                self.exporter.end(span, time.time_ns())

    def _started(self, name: str, *given: Any) -> otel.Span:
        """A started PRODUCER span. A processor or a sampler that raises must not keep the message from the hub."""
        within, attributes, links = given
        try:
            return otel.get_tracer(LIVE).start_span(name, within, otel.SpanKind.PRODUCER, attributes, links)
        except Exception as error:
            self._tell(error)
            return otel.INVALID_SPAN

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

    def enters(
        self, instance_id: str, execution_id: str, trace: str, is_live: Callable[[], bool] | None
    ) -> None:
        """Make the span of the execution current for its code. It records nothing."""
        span_id = span_id_of(instance_id, execution_id)
        found = trace_in(trace) or TraceContext(trace_id_of(instance_id, execution_id), span_id, 0)
        live = propagation.span_context_of(found._replace(span_id=span_id), is_remote=False)
        otel_context.attach(otel.set_span_in_context(propagation.CodeSpan(live, is_live), Context()))

    def operates(self, message: EntityOperation) -> str:
        """The trace with the span of an entity's operation, by an id of its own; "" without a trace."""
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


class _Unchanged:
    """A block for a message that has no span."""

    __slots__ = ("_message",)

    def __init__(self, message: Any) -> None:
        self._message = message

    def __enter__(self) -> Any:
        return self._message

    def __exit__(self, *_: object) -> None:
        pass


def _of_start(message: Start) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {
        "durabletask.type": "orchestration",
        "durabletask.task.name": message.name,
        "durabletask.task.instance_id": message.instance_id,
    }
    if message.version:
        attributes["durabletask.task.version"] = message.version
    if message.visible_at:
        attributes["durabletask.task.scheduled_time"] = stamp(moment(message.visible_at))
    return attributes


def _of_event(message: RaiseEvent) -> dict[str, Attribute]:
    return {
        "durabletask.type": "event",
        "durabletask.task.name": message.name,
        "durabletask.event.target_instance_id": message.instance_id,
    }


def _of_operation(message: EntityOperation) -> dict[str, Attribute]:
    attributes: dict[str, Attribute] = {
        "durabletask.type": "entity",
        "durabletask.task.name": _entity_name(message),
        "durabletask.task.operation": message.operation,
        "durabletask.event.target_instance_id": message.instance_id,
    }
    if message.visible_at:
        attributes["durabletask.task.scheduled_time"] = stamp(moment(message.visible_at))
    return attributes


def _entity_name(message: EntityOperation) -> str:
    return entity_name(message.instance_id)


__all__ = ["Tracer"]
