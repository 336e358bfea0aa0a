"""Critical sections from the holder's side: an end of an execution lets go of everything it asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from perdure.replay.settle import release_lock
from perdure.replay.state import fold

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.instance import Instance


def release_locks(batch: OpenBatch, instance: Instance) -> None:
    """The present execution is over: tell every entity it has asked, whether that was granted or not.

    Request and release have one sender and one order, so a release never comes before its request.
    """
    for lock_id, entities in _asked(instance).items():
        for message in release_lock(instance.instance_id, instance.execution_id, lock_id, entities):
            batch.send(message)


def _asked(instance: Instance) -> dict[int, tuple[str, ...]]:
    """By lock, what was asked for; also of an instance whose code is not alive."""
    if instance.execution is not None:
        return instance.execution.held_locks()
    if instance.stored is None:
        return {}
    try:
        return fold(instance.recorded()).asked_locks()
    except (msgspec.MsgspecError, KeyError):
        return {}  # its history cannot be read: the entities find out when they look after their holder
