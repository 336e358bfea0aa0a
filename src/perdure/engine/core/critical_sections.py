"""Critical sections, the holder's side: an execution that ends releases all locks that it holds or requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.replay.settle import release_lock
from perdure.replay.state import fold

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.instance import Instance


def release_locks(batch: OpenBatch, instance: Instance) -> None:
    """Release every entity that the execution has requested, granted or not, because it has ended.

    Request and release have the same sender and order, so a release never arrives before its request.
    """
    for lock_id, entities in _asked(instance).items():
        for message in release_lock(instance.instance_id, instance.execution_id, lock_id, entities):
            batch.send(message)


def _asked(instance: Instance) -> dict[int, tuple[str, ...]]:
    """The requested entities by lock; also for an instance whose code is not in memory."""
    if instance.execution is not None:
        return instance.execution.held_locks()
    if instance.stored is None:
        return {}
    try:
        return fold(instance.recorded()).asked_locks()
    except (msgspec.MsgspecError, KeyError):
        return {}  # its history cannot be read: the entities notice when they probe their holder
