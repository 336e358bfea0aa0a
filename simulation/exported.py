"""What the processes of a world export: the spans of the episodes that they know to be durable.

Each process has a tracer and an exporter's memory, `perdure.telemetry.reading`, as shipped; only OpenTelemetry is
missing. A crash loses the memory, a takeover finds none, and it has room for a few executions only, so that histories
are read again all the time. An episode whose commit no process saw, because it died or could not know, exports
nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.engine.core.tracing import TracedEpisode, calling
from perdure.model import payload
from perdure.model.instances import execution_id_of
from perdure.model.trace_context import trace_begun
from perdure.telemetry.reading import Readers
from perdure.telemetry.spans import Span, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from perdure.engine.core.telemetry import Durable
    from perdure.engine.core.tracing import CodeHere, Recorded
    from perdure.model.messages import EntityOperation
    from perdure.replay.settle import Invocation
    from simulation.ledger import Ledger, RunRecord
    from simulation.randomness import SeededRandomness
    from simulation.sometimes import Sometimes

KEPT = 3  # executions in an exporter's memory
TRACED = 0.5  # share of the executions without a trace that begin one

Episode = tuple[int, str, int]  # number of the instance, id of the execution, number of the row
Brief = tuple[int, int, int, str, int, int | None]  # trace, id, parent, name, start, end

M = TypeVar("M")


class Exported:
    """The spans that the processes of a world have exported."""

    def __init__(self, ledger: Ledger, chance: SeededRandomness, met: Sometimes) -> None:
        self.sent: dict[tuple[int, int], tuple[Brief, Episode]] = {}  # by trace and id
        self.seen: set[Episode] = set()
        self.chance = chance
        self.met = met
        self._ledger = ledger

    def history(self, instance_no: int, execution_id: str) -> Recorded:
        """What the store has of an execution."""
        self.met("spans of a history that was read again")
        run = self._ledger.runs[instance_no]
        return run.executions[int(execution_id.rpartition("-")[2])].recorded

    def take(self, spans: list[Span], part: TracedEpisode) -> None:
        """Spans that a process has exported with one episode."""
        episode = (part.instance.no, part.execution_id, part.number)
        self.seen.add(episode)
        for span in spans:
            brief = brief_of(span)
            before = self.sent.setdefault((span.trace_id, span.span_id), (brief, episode))
            if before[0] is not brief:
                told = f"{part.instance.instance_id!r}: the span {brief} of {episode} was exported twice"
                self._ledger.problem("spans", f"{told}, before as {before}")


class SimulatedTracer:
    """The tracer of one process (`Tracing`), and its exporter (`Telemetry`). It makes no spans of bodies."""

    follows_bodies = False

    def __init__(self, exported: Exported) -> None:
        self._exported = exported
        self._readers = Readers("simulated", exported.history, most=KEPT)

    def committed(self, durable: Durable) -> None:
        for part in durable.released.traced:
            if isinstance(part, TracedEpisode):
                self._exported.take(self._readers.ended_by(part), part)

    def begun(self, attempt: Any) -> None:
        pass

    def ended(self, attempt: Any, result: Any) -> None:
        pass

    def begins(self, name: str, instance_id: str, execution_id: str, trace: str, *, is_child: bool) -> str:
        if trace or is_child or self._exported.chance.draw("traced", instance_id) < TRACED:
            return trace
        return trace_begun(instance_id, execution_id, sampled=True)

    def sending(self, message: M) -> tuple[M, Any]:
        return message, None

    def sent(self, span: Any, error: BaseException | None) -> None:
        pass

    def incoming(self, headers: Mapping[str, str], *, is_trusted: bool) -> AbstractContextManager[None]:
        return nullcontext()

    def variables(self, here: Callable[[], CodeHere | None]) -> Context:
        return Context()

    def operates(self, message: EntityOperation) -> str:
        found = calling(message)
        return "" if found is None else found.text()

    def resumes(self, trace: str) -> None:
        pass

    @property
    def carry_out(self) -> Callable[[str, bytes, bytes], bytes]:
        raise NotImplementedError("nothing is sent to other processes")

    def travels(self, invocation: Invocation) -> str:
        return invocation.trace


def subject_of(run: RunRecord, number: int) -> Subject:
    """What an exporter knows of an execution beside its history."""
    row = run.row
    return Subject(
        instance_id=row.instance_id,
        execution_id=execution_id_of(row.salt, number),
        name=row.name,
        version=row.version,
        parent=row.parent,
        tags=payload.decode(row.tags.encode()) if row.tags else {},
    )


def brief_of(span: Span) -> Brief:
    """What two exports of a span have in common."""
    return span.trace_id, span.span_id, span.parent_id, span.name, span.start, span.end
