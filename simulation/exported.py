"""What the processes of a world export: the spans of the rows whose commits they have seen.

Each process has an exporter's memory: the executions that it has read so far. A crash loses it, a takeover finds
none, and now and then an execution is forgotten, as when the memory is full; then its history is read again. A row
whose commit no process saw, because it died or could not know, exports nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.model import payload
from perdure.telemetry.spans import ExecutionSpans, Span, Subject

if TYPE_CHECKING:
    from perdure.model.records import Batch
    from simulation.ledger import Ledger, RunRecord
    from simulation.randomness import SeededRandomness
    from simulation.sometimes import Sometimes

FORGOTTEN = 0.1  # share of the rows before which the memory of an execution is lost

Execution = tuple[int, int]  # number of the instance, and of the execution
Brief = tuple[int, int, int, str, int, int | None]  # trace, id, parent, name, start, end


class Exported:
    """The spans that the processes of a world have exported."""

    def __init__(self, ledger: Ledger, chance: SeededRandomness, met: Sometimes) -> None:
        self.sent: dict[tuple[int, int], Brief] = {}  # by trace and id
        self.seen: dict[Execution, set[int]] = {}  # the rows whose commits were seen
        self._ledger = ledger
        self._chance = chance
        self._met = met
        self._memories: dict[tuple[str, int], dict[Execution, _Memory]] = {}

    def committed(self, process: tuple[str, int], batch: Batch) -> None:
        """A process knows that its batch is durable."""
        memories = self._memories.setdefault(process, {})
        for row in batch.history:
            run = self._ledger.runs[row.instance_no]
            if run.is_entity:
                continue
            key = (row.instance_no, row.execution_no)
            self.seen.setdefault(key, set()).add(row.episode)
            if self._chance.draw("forget", *key, row.episode) < FORGOTTEN:
                memories.pop(key, None)
            memory = memories.get(key)
            recorded = run.executions[row.execution_no].recorded
            if memory is None or memory.rows != row.episode:
                memory = memories[key] = _Memory(run, row.execution_no)
                for at, events in recorded[: row.episode]:
                    memory.read(at, events)
                self._met("spans of a history that was read again")
            for span in memory.read(*recorded[row.episode]):
                self._send(run, span)

    def _send(self, run: RunRecord, span: Span) -> None:
        brief = brief_of(span)
        before = self.sent.setdefault((span.trace_id, span.span_id), brief)
        if before is not brief:
            self._ledger.problem("spans", f"{run}: the span {brief} was exported twice, before as {before}")


class _Memory:
    """What an exporter remembers of one execution."""

    def __init__(self, run: RunRecord, number: int) -> None:
        self.rows = 0
        self._reader = ExecutionSpans(subject_of(run, number))

    def read(self, *row: object) -> list[Span]:
        self.rows += 1
        return self._reader.read(*row)  # type: ignore[arg-type]


def subject_of(run: RunRecord, number: int) -> Subject:
    """What an exporter knows of an execution beside its history."""
    row = run.row
    return Subject(
        instance_id=row.instance_id,
        execution_id=run.execution_id(number),
        name=row.name,
        version=row.version,
        parent=row.parent,
        tags=payload.decode(row.tags.encode()) if row.tags else {},
    )


def brief_of(span: Span) -> Brief:
    """What two exports of a span have in common."""
    return span.trace_id, span.span_id, span.parent_id, span.name, span.start, span.end
