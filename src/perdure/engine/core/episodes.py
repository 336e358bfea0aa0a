"""Episodes: the decisions of an instance in a batch become the next row of its history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perdure.engine.core.tracing import traced
from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.large_bodies import outline
from perdure.model.records import BodyRow, HistoryRow

if TYPE_CHECKING:
    from perdure.engine.core.batch import OpenBatch
    from perdure.engine.core.instance import Instance

LONG: Final = 1_000_000  # bytes of an episode that takes long enough for a pause


def write_episode(batch: OpenBatch, instance: Instance) -> None:
    """Turn the open episode into its history row."""
    outcome, instance.outcome = instance.outcome, None
    if outcome is None or not outcome.events:
        return
    encoded = ev.encode_events(outcome.events)
    size = len(encoded)
    episode = instance.episodes
    if batch.tracing is not None:
        traced(batch.released.traced, instance, episode, outcome.events)
    if size > batch.limits.inline_bytes:
        if size > LONG:
            batch.pause()
        encoded = _outline(batch, instance, episode, outcome.events, encoded)
        size = len(encoded)
    digest = hash_chain.digest_of(instance.salt, encoded)
    head = hash_chain.link(instance.head, instance.execution_no, episode, instance.last_at, digest)
    batch.rows.history.append(
        HistoryRow(instance.no, instance.execution_no, episode, instance.last_at, encoded, digest, head)
    )
    instance.head = head
    instance.episodes = episode + 1
    instance.updated_at = instance.last_at
    instance.size += size
    batch.cache.warm_bytes += size
    batch.bytes += size


def _outline(
    batch: OpenBatch, instance: Instance, episode: int, events: list[ev.HistoryEvent], encoded: bytes
) -> bytes:
    kept, bodies = outline(events, batch.limits.inline_bytes // 2, instance.salt)
    if not bodies:
        return encoded
    for no, body in enumerate(bodies):
        batch.rows.bodies.append(BodyRow(instance.no, instance.execution_no, episode, no, body))
    return ev.encode_events(kept)


def close_waits(batch: OpenBatch, instance: Instance) -> None:
    """Close the waits of an execution that has ended."""
    if instance.saved_waits:
        instance.saved_waits = 0
        batch.rows.waits_closed.append((instance.no, -1))


__all__ = ["close_waits", "write_episode"]
