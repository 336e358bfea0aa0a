"""The port for traces: what the engine asks of a tracer, and what it hands over for spans.

Without a tracer the engine checks for None and makes no call. With one, it asks where a trace begins or is passed on:
for a client's message, for an execution that begins, for code before it runs. It hands over the episodes of sampled
executions and the operations of entities with the batch that commits them, as references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import msgspec

from perdure.failure import Failure
from perdure.model.events import HistoryEvent
from perdure.model.messages import EntityOperation, Message
from perdure.model.span_ids import span_id_of
from perdure.model.trace_context import TraceContext, is_sampled, trace_in, trace_of

if TYPE_CHECKING:
    from perdure.engine.core.instance import Instance
    from perdure.replay.settle import Invocation

M = TypeVar("M", bound=Message)
Recorded = Sequence[tuple[int, Sequence[HistoryEvent]]]


class TracedEpisode(msgspec.Struct, frozen=True):
    """Events that a batch adds to the history of a sampled execution.

    `number` is the number of the episode, and `before` the history before it, if the engine has just read it.
    """

    instance: Instance
    execution_id: str
    trace: str
    number: int
    at: int
    events: Sequence[HistoryEvent]
    before: Recorded | None = None


class TracedOperation(msgspec.Struct, frozen=True):
    """An operation of an entity that ran on the loop's thread: from `at` (microseconds), for `seconds`.

    `trace` names its span.
    """

    entity: str
    message: EntityOperation
    trace: str
    at: int
    seconds: float
    failure: Failure | None


Traced = TracedEpisode | TracedOperation


class CodeHere(NamedTuple):
    """The execution whose code runs on the loop's thread. While it repeats its history it is not live."""

    instance_id: str
    execution_id: str
    trace: str
    is_live: bool


class Tracing(Protocol):
    """The tracer of a worker. It raises nothing."""

    def sending(self, message: M) -> tuple[M, Any]:
        """A client's message is accepted: the message with its trace, and its span; None without one."""

    def sent(self, span: Any, error: BaseException | None) -> None:
        """The message of a span is durable, or was rejected with an error."""

    def incoming(self, headers: Mapping[str, str], *, is_trusted: bool) -> AbstractContextManager[None]:
        """The block in which a request with these headers is handled. A trace that is not trusted becomes a link."""

    def begins(self, name: str, instance_id: str, execution_id: str, trace: str, *, is_child: bool) -> str:
        """The trace of an execution that begins, from the trace of its start. On the loop's thread."""

    def variables(self, here: Callable[[], CodeHere | None]) -> Context:
        """The context variables of orchestrators and entities: the current span is that of the code which runs.

        While an execution repeats its history, its span counts as not sampled.
        """

    def operates(self, message: EntityOperation) -> str:
        """The trace with the span of an entity's operation, before the operation runs."""

    def resumes(self, trace: str) -> None:
        """Make the span that a trace names current in the present context."""

    @property
    def carry_out(self) -> Callable[[str, bytes, bytes], bytes]:
        """The engine's `carry_out` for other processes, which makes the trace of the invocation current first."""

    def travels(self, invocation: Invocation) -> str:
        """The trace that goes with an invocation to another process."""


def traced(into: list[Traced], instance: Instance, number: int, events: Sequence[HistoryEvent]) -> None:
    """Hand over an episode, if its execution is sampled. Call it only with a tracer."""
    trace, before = instance.trace, instance.relived
    if not trace and instance.stored is not None:  # its code is not in memory
        try:
            before = instance.recorded()
        except msgspec.MsgspecError:
            return
        trace = trace_of(before)
    instance.relived = None
    if is_sampled(trace) and instance.entity_state is None:
        into.append(
            TracedEpisode(instance, instance.execution_id, trace, number, instance.last_at, events, before)
        )


def calling(message: EntityOperation) -> TraceContext | None:
    """The span that called or signalled an entity; None for an operation without a trace.

    The trace of an orchestration names no call: the id of the call's span follows from history.
    """
    found, caller = trace_in(message.trace), message.caller
    if found is None or caller is None or caller.task_id < 0:
        return found
    return found._replace(span_id=span_id_of(caller.instance_id, caller.execution_id, caller.task_id))


def begin_trace(tracing: Tracing, instance: Instance, trace: str) -> str:
    """The trace of a new execution, from that of its start."""
    is_child = instance.parent is not None
    return tracing.begins(
        instance.name, instance.instance_id, instance.execution_id, trace, is_child=is_child
    )


def relive_trace(instance: Instance, recorded: Recorded) -> None:
    """Note the trace of an execution before its code repeats this history."""
    instance.trace = trace_of(recorded)
    if is_sampled(instance.trace):
        instance.relived = list(recorded)


__all__ = [
    "Recorded",
    "Traced",
    "TracedEpisode",
    "TracedOperation",
    "Tracing",
    "CodeHere",
    "begin_trace",
    "calling",
    "relive_trace",
    "traced",
]
