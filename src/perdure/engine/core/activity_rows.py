"""Open activities of an instance that have rows of their own, for whichever worker claims them.

An instance knows them by execution and task. Their rows go when the result is taken up, when the call is
cancelled, and when the execution ends: whatever a worker still makes of one of them then finds no row. While a
result is on its way through the inbox the row stays, so that whoever loads the instance meanwhile does not run its
activity again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.envelope import Envelope
    from perdure.engine.core.instance import Instance
    from perdure.engine.core.placement import Placement
    from perdure.model.messages import ActivityResult
    from perdure.replay.settle import Invocation

ALL: Final = -1


def place(
    batch: OpenBatch, placement: Placement, instance: Instance, invocations: Iterable[Invocation]
) -> list[Invocation]:
    """Give those a row that are not to run here; returns the others."""
    local = []
    for invocation in invocations:
        if placement.is_local(invocation):
            local.append(invocation)
            continue
        batch.rows.activities_placed.append(placement.row_of(invocation, batch.now))
        if instance.placed is None:
            instance.placed = set()
        instance.placed.add((invocation.execution_id, invocation.task_id))
    return local


def taken_up(batch: OpenBatch, instance: Instance, result: ActivityResult) -> bool:
    """A result counts; returns whether its activity had a row.

    The row from which a claimant's result comes is gone; there may be another, of a worker that ran it again.
    """
    return _withdraw(batch, instance, result.execution_id, result.task_id)


def kept(batch: OpenBatch, instance: Instance, result: ActivityResult) -> None:
    """A result from here waits with its instance: nobody is to run its activity again meanwhile."""
    if _withdraw(batch, instance, result.execution_id, result.task_id):
        instance.open_local += 1


def unwanted(batch: OpenBatch, envelope: Envelope, result: ActivityResult) -> None:
    """Nobody waits for this result any more. Its row goes, if there is one: nobody else will ever remove it."""
    if batch.placement is not None and (envelope.row_no or batch.placement.claim_of(result) is not None):
        batch.rows.activities_removed.append((result.instance_id, result.execution_id, result.task_id))


def cancelled(batch: OpenBatch, instance: Instance, task_id: int) -> bool:
    """Nobody wants the result any more; returns whether the activity had a row."""
    return _withdraw(batch, instance, instance.execution_id, task_id)


def ended(batch: OpenBatch, instance: Instance) -> None:
    """The execution is over."""
    if instance.placed:
        batch.rows.activities_removed.append((instance.instance_id, instance.execution_id, ALL))
        instance.placed = None


def _withdraw(batch: OpenBatch, instance: Instance, execution_id: str, task_id: int) -> bool:
    key = execution_id, task_id
    if not instance.placed or key not in instance.placed:
        return False
    instance.placed.discard(key)
    batch.rows.activities_removed.append((instance.instance_id, *key))
    return True


__all__ = ["cancelled", "ended", "kept", "place", "taken_up", "unwanted"]
