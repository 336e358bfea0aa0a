"""Purging: the remaining rows of a batch that both writes and purges an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

if TYPE_CHECKING:
    from perdure.model.records import Batch


def surviving(batch: Batch) -> Batch:
    """The batch without its rows for purged instances.

    While a store is open, an instance number is never reused, so such rows are older than the purge. Messages
    are addressed to ids, which the same batch may reuse: they stay.
    """
    gone = frozenset(batch.purged)
    return replace(
        batch,
        new_instances=[row for row in batch.new_instances if row[0] not in gone],
        updates=[row for row in batch.updates if row[0] not in gone],
        history=[row for row in batch.history if row[0] not in gone],
        bodies=[row for row in batch.bodies if row[0] not in gone],
        versions=[row for row in batch.versions if row[0] not in gone],
        custom_status=[row for row in batch.custom_status if row[0] not in gone],
        entity_states=[row for row in batch.entity_states if row[0] not in gone],
        waits_opened=[row for row in batch.waits_opened if row[0] not in gone],
        task_updates=[row for row in batch.task_updates if row[0] not in gone],
        task_moves=[row for row in batch.task_moves if row[0] not in gone],
        waits_closed=[row for row in batch.waits_closed if row[0] not in gone],
        executions_removed=[row for row in batch.executions_removed if row[0] not in gone],
    )
