"""Recovery: recreates an instance's code from history, or parks the instance.

Replay is the only way to get code that is not in memory. When it fails (the code does not match, the function
is missing, the history is unreadable, the watchdog or the store rejected the instance) the instance is parked,
visibly, with its reason and its messages, and retried when the cause may be gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from perdure.engine.core.instance import Instance
from perdure.engine.core.lifecycle import (
    Quarantine,
    drop_held,
    end,
    let_held_go,
    live_on,
    new_execution,
    too_long,
)
from perdure.engine.core.noted import Replayed
from perdure.engine.core.parking import note, park
from perdure.engine.core.pinning import entry_of
from perdure.engine.core.tenure import RESUME
from perdure.engine.core.tracing import relive_trace
from perdure.errors import FunctionMissing, Interrupted, MisfitError, NonDeterminismError
from perdure.failure import Failure
from perdure.model import actions as act
from perdure.model import events as ev
from perdure.model.instances import RuntimeStatus
from perdure.model.messages import ActivityResult, Wake
from perdure.model.recorded import DAMAGED, HistoryDamaged
from perdure.model.trace_context import trace_of
from perdure.model.waiting import MISFIT, kind_of
from perdure.replay.decide import Execution
from perdure.replay.environment import RunApart
from perdure.replay.rewinding import Episode, counting, is_rewound
from perdure.replay.settle import Invocation, invocation_of, report_to_parent
from perdure.replay.state import endings_of, fold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.engine.core.batch import OpenBatch

S = RuntimeStatus

NONDETERMINISM: Final = "nondeterminism"
AZURES_WORDS: Final = "Non-Deterministic workflow detected: "
_UNREADABLE = "its history cannot be read by this version: "
_PARKED_FOR: Final[dict[type[BaseException], tuple[str, str]]] = {
    FunctionMissing: ("no_worker", ""),
    MisfitError: (MISFIT, ""),
    NonDeterminismError: (NONDETERMINISM, ""),
    HistoryDamaged: (DAMAGED, ""),
    msgspec.MsgspecError: ("poison", _UNREADABLE),
    KeyError: ("poison", _UNREADABLE),
}
"""The reasons for which a failed replay parks an instance."""
TRIED_AGAIN: Final = ("no_worker", NONDETERMINISM, MISFIT)
"""The reasons that newly deployed code may fix."""


def revive(batch: OpenBatch, instance: Instance, answered: int = -1, *, reason: str = "") -> bool:
    """Recreate the code by replaying its history; parks the instance if that fails.

    `reason` is why, if it is a verb; by default, why the code is not in memory.
    """
    if instance.execution is not None:
        return True
    if instance.stored is None:
        return False
    entry = entry_of(batch, instance)
    if entry is None:
        park_unknown(batch, instance)
        return False
    execution = new_execution(batch, instance, entry)
    reason = reason or batch.tenure.reason_of(instance)
    began = batch.random.monotonic()
    try:
        recorded, asked = _relive(batch, instance, execution)
    except tuple(_PARKED_FOR) as error:
        batch.running.close(instance, execution)
        _count_replay(batch, instance, reason, began)
        kind, why = next(said for type_, said in _PARKED_FOR.items() if isinstance(error, type_))
        if kind == NONDETERMINISM and batch.functions.fails_on_nondeterminism:
            _fail(batch, instance, Failure("NonDeterminismError", f"{AZURES_WORDS}{error}"))
        else:
            park(batch, instance, kind, f"{why}{error}")
        return False
    # Not before: a step that leaves the batch replays again in its own.
    _count_replay(batch, instance, reason, began, recorded)
    if (
        execution.is_finished and not asked
    ):  # it continued as new, and the message of its next execution is pending
        batch.running.close(instance, execution)
        instance.between = True
        return False
    _adopt(batch, instance, execution, recorded, answered)
    if asked:
        live_on(batch, instance, asked)
    return instance.execution is not None


def _count_replay(
    batch: OpenBatch, instance: Instance, reason: str, began: float, recorded: Iterable[Episode] = ()
) -> None:
    instance.count_replay(reason)
    events = sum(len(events) for _, events in recorded)
    seconds = batch.random.monotonic() - began
    batch.released.noted.append(
        Replayed(instance.name, reason, events, seconds, instance.instance_id, instance.replays)
    )


def _relive(
    batch: OpenBatch, instance: Instance, execution: Execution
) -> tuple[list[Episode], list[act.Action]]:
    """The valid part of its history, and the new actions of rewound code."""
    batch.counters["replays"] += 1
    batch.episodes += 1  # a replay takes as long as an episode: a batch of replays must not delay clients
    recorded = instance.recorded()
    if batch.tracing is not None:
        relive_trace(instance, recorded)
    if instance.outcome is not None:
        recorded.append((instance.last_at, list(instance.outcome.events)))
    if is_rewound(recorded):
        if batch.tracing is not None:
            instance.endings = endings_of(recorded)
        recorded = counting(recorded)
    try:
        asked = batch.running.run(instance, execution.replay, recorded, batch.began_at)
    except Interrupted as stopped:
        batch.running.close(instance, execution)
        raise Quarantine(instance.instance_id, too_long(stopped)) from stopped
    except RunApart:
        batch.running.close(instance, execution)
        raise
    return recorded, asked


def _adopt(
    batch: OpenBatch,
    instance: Instance,
    execution: Execution,
    recorded: list[tuple[int, list[ev.HistoryEvent]]],
    answering: int,
) -> None:
    """Adopt the replayed code, and start its open activities again."""
    instance.execution = execution
    instance.belongs_to(trace_of(recorded))
    instance.last_at = max(instance.last_at, recorded[-1][0] if recorded else 0)
    instance.saved_waits = execution.waits_are_saved()
    if instance.stored is not None:
        instance.size = sum(len(row.events) for row in instance.stored.history)
        batch.cache.warm_bytes += instance.size
    instance.stored = None
    again: list[Invocation] = []
    instance.open_local = 0
    held = (e.message for e in instance.waiting or ())
    answered = {answering, *(m.task_id for m in held if isinstance(m, ActivityResult))}
    for at, events in recorded:
        for event in events:
            if (
                isinstance(event, ev.TaskScheduled)
                and event.placed == "local"
                and execution.is_open(event.id)
            ):
                if instance.placed and (instance.execution_id, event.id) in instance.placed:
                    continue
                instance.open_local += 1
                if event.id in answered:
                    continue
                again.append(
                    invocation_of(
                        event,
                        instance.instance_id,
                        instance.execution_id,
                        instance.name,
                        instance.trace,
                        at,
                        (instance.endings or {}).get(event.id, 0),
                    )
                )
            elif isinstance(event, ev.SubOrchestrationCreated) and execution.is_open(event.id):
                if instance.children is None:
                    instance.children = {}
                instance.children[event.id] = event.instance_id
    batch.again.extend(again)
    if instance.outcome is not None:
        execution.begin_episode(instance.last_at)


def go_on(batch: OpenBatch, instance: Instance, reason: str) -> None:
    """Resume an instance: recreate its code if it was parked, and deliver its held messages in order."""
    begun = instance.execution is not None or _was_begun(instance)
    if instance.waiting and kind_of(instance.reason) == MISFIT:
        instance.waiting[
            0
        ].kept = True  # the message that did not fit was returned to the front, in a new row
    if instance.status is S.Suspended:
        note(batch, instance, ev.ExecutionResumed(reason=reason))
    instance.reason = ""
    instance.status = S.Running if begun else S.Pending
    batch.touch(instance)
    if begun and not revive(batch, instance, reason=RESUME) and not instance.between:
        return  # parked again; between two executions it has no code, and a held message begins the next
    let_held_go(batch, instance)
    if instance.is_running:
        batch.send(Wake(instance_id=instance.instance_id))


def _was_begun(instance: Instance) -> bool:
    """Whether its code has ever run; control events alone do not start an execution."""
    if instance.outcome is not None and _has_begun(instance.outcome.events):
        return True
    if instance.stored is None:
        return False
    try:
        recorded = instance.recorded()
    except (msgspec.ValidationError, msgspec.DecodeError):
        return True
    return any(_has_begun(events) for _, events in recorded)


def _has_begun(events: Iterable[ev.HistoryEvent]) -> bool:
    return any(isinstance(event, ev.ExecutionStarted) for event in events)


def parked_just_now(instance: Instance) -> bool:
    """Whether its code was closed in this batch: its history can be loaded only after the commit."""
    return instance.execution is None and instance.stored is None and instance.outcome is not None


def retry_parked(batch: OpenBatch, instance: Instance) -> None:
    """Retry a parked instance at a worker's start, because the deployed code may fit now."""
    kind = kind_of(instance.reason)
    if kind == "no_worker" and batch.functions.orchestrator(instance.name, instance.version or None) is None:
        return
    if kind in TRIED_AGAIN and not parked_just_now(instance):
        batch.retried[instance.instance_id] = instance.reason
        go_on(batch, instance, "retried when a worker starts")


def children_of(instance: Instance) -> dict[int, str]:
    """The open sub-orchestrations; also for an instance whose code is not in memory."""
    if instance.execution is not None or instance.stored is None:
        return dict(instance.children or {})
    try:
        children = fold(instance.recorded()).children
    except (msgspec.MsgspecError, KeyError):
        return {}  # its history cannot be read: the instance itself can still be terminated
    return {task_id: event.instance_id for task_id, (event, _) in children.items()}


def quarantine(batch: OpenBatch, instance: Instance) -> None:
    """Park an instance rejected by the store or the watchdog."""
    if not instance.is_finished and instance.reason.partition(":")[0] != "poison":
        park(batch, instance, "poison", batch.quarantine[instance.instance_id])


def park_unknown(batch: OpenBatch, instance: Instance, version: str = "") -> None:
    """Park or fail an instance without code on this worker, depending on the worker's settings."""
    pinned = version or instance.version
    why = batch.functions.missing(instance.name, pinned)
    if not batch.functions.refuses(pinned):
        park(batch, instance, "no_worker", why)
        return
    if not _was_begun(instance):
        note(
            batch,
            instance,
            ev.ExecutionStarted(
                name=instance.name, version=pinned, parent=instance.parent, trace=instance.trace
            ),
        )
    _fail(batch, instance, Failure("VersionMismatch", why))


def _fail(batch: OpenBatch, instance: Instance, failure: Failure) -> None:
    """End an instance without its code, and tell its parent."""
    note(batch, instance, ev.ExecutionFailed(failure=failure))
    drop_held(batch, instance, "the instance has failed")
    end(batch, instance, S.Failed)
    if instance.parent is not None:
        ending = act.FailOrchestration(failure)
        batch.send(report_to_parent(instance.parent, instance.instance_id, ending))


__all__ = [
    "children_of",
    "go_on",
    "park",
    "park_unknown",
    "parked_just_now",
    "quarantine",
    "retry_parked",
    "revive",
]
