"""Spans: what processes exported as they committed, against what the histories imply.

It must be the spans of a run without crashes, evictions and takeovers: every history is lived again from its
arrivals, without any of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.model.instances import execution_id_of
from perdure.model.trace_context import is_sampled, trace_continued
from perdure.telemetry.spans import ExecutionSpans
from perdure.telemetry.trees import tree_of
from simulation.exported import Brief, Episode, brief_of, subject_of
from simulation.replay_checks import lived_again

if TYPE_CHECKING:
    from simulation.ledger import Past, RunRecord
    from simulation.world import World


def check_spans(world: World) -> None:
    """The exported spans are those of the same run without crashes, and belong to the traces of their trees."""
    wanted: dict[tuple[int, int], Brief] = {}
    known: set[Episode] = set()
    for run in world.ledger.orchestrations():
        for number, past in run.executions.items():
            execution = (run.row.instance_no, run.execution_id(number))
            known.update((*execution, episode) for episode in range(len(past.recorded)))
            if past.state.started is not None and is_sampled(past.state.started.trace):
                implied = _implied(world, run, number, past)
                wanted.update(
                    {brief[:2]: brief for brief, episode in implied if episode in world.exported.seen}
                )
                if number == run.row.execution_no and not run.purged:
                    _check_tree(world, run, {brief for brief, _ in implied})
            _check_trace(world, run, number, past)
    # The last row of an execution that continued as new may never have been written.
    sent = {key: brief for key, (brief, episode) in world.exported.sent.items() if episode in known}
    for key in wanted.keys() | sent.keys():
        if wanted.get(key) != sent.get(key):
            found, expected = sent.get(key), wanted.get(key)
            world.ledger.problem("spans", f"exported {found}, and without crashes {expected}")


def _implied(world: World, run: RunRecord, number: int, past: Past) -> list[tuple[Brief, Episode]]:
    """The spans of an execution, each with the row that ends it."""
    reader = ExecutionSpans(subject_of(run, number))
    execution = (run.row.instance_no, run.execution_id(number))
    return [
        (brief_of(span), (*execution, episode))
        for episode, (at, events) in enumerate(lived_again(world, run, number, past.recorded))
        for span in reader.read(at, events)
    ]


def _check_tree(world: World, run: RunRecord, implied: set[Brief]) -> None:
    """`perdure trace` finds the same, and no more."""
    tree = tree_of(world.backend.store, run.row.instance_id, "simulated")
    execution_id = run.execution_id(run.row.execution_no)
    found = {
        brief_of(span)
        for span in tree.spans
        if span.attributes["durabletask.task.execution_id"] == execution_id
        and span.attributes["durabletask.task.instance_id"] == run.row.instance_id
    }
    if found != implied:
        world.ledger.problem("spans", f"{run}: traced {found - implied}, without crashes {implied - found}")


def _check_trace(world: World, run: RunRecord, number: int, past: Past) -> None:
    """An execution has the trace of its caller, or the one that continues that of the execution before."""
    started = past.state.started
    if started is None:
        return
    before = run.executions.get(number - 1)
    expected: str | None = None
    if number > 1 and before is not None and before.state.started is not None:
        ids = (run.row.instance_id, run.execution_id(number - 1), run.execution_id(number))
        expected = trace_continued(before.state.started.trace, *ids)
    elif number == 1 and started.parent is not None:
        expected = _trace_of_caller(world, started.parent.instance_id, started.parent.execution_id)
    if expected is not None and started.trace != expected:
        world.ledger.problem("spans", f"{run}, execution {number}: trace {started.trace!r}, not {expected!r}")
    if expected:
        world.met("a trace that was inherited")


def _trace_of_caller(world: World, instance_id: str, execution_id: str) -> str | None:
    for run in world.ledger.runs_of(instance_id):
        for number, past in run.executions.items():
            if execution_id_of(run.row.salt, number) == execution_id and past.state.started is not None:
                return past.state.started.trace
    return None
