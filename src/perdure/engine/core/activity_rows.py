"""Open activities of an instance that have rows, for any worker that claims them.

An instance knows them by execution and task. Their rows are deleted when the result is processed, when the call
is cancelled, and when the execution ends; a later result then finds no row. While a result travels through the
inbox the row stays, so that a worker that loads the instance in the meantime does not run the activity again.
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
    """Place activities that run elsewhere in rows; returns the others."""
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
    """Delete the row of an activity whose result counts; returns whether it had one.

    The row behind a claimant's result is already deleted; there may be another, of a worker that ran the
    activity again.
    """
    return _withdraw(batch, instance, result.execution_id, result.task_id)


def kept(batch: OpenBatch, instance: Instance, result: ActivityResult) -> None:
    """Keep a local result with its instance, so that no worker runs the activity again in the meantime."""
    if _withdraw(batch, instance, result.execution_id, result.task_id):
        instance.open_local += 1


def unwanted(batch: OpenBatch, envelope: Envelope, result: ActivityResult) -> None:
    """Discard a result that no call awaits. Delete its row too, because nothing else would."""
    if batch.placement is not None and (envelope.row_no or batch.placement.claim_of(result) is not None):
        batch.rows.activities_removed.append((result.instance_id, result.execution_id, result.task_id))


def cancelled(batch: OpenBatch, instance: Instance, task_id: int) -> bool:
    """Delete the row of a cancelled activity; returns whether it had one."""
    return _withdraw(batch, instance, instance.execution_id, task_id)


def ended(batch: OpenBatch, instance: Instance) -> None:
    """Delete the rows of an execution that has ended."""
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
