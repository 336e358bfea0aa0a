"""Early starts: clients' starts that are committed on their own while a long batch is being made.

A step that schedules a hundred thousand tasks runs, and is committed, as a whole. A start that arrives in the
meantime is independent of it, so its client need not wait for the end of that batch. The new instance is
committed as Pending, together with the message that begins it; that message then waits in the instance's line,
like a message from the inbox. So the open batch may begin the instance, and if that batch fails, the start
stays accepted.

Only a start unknown to the open batch is taken early: the batch has looked up neither its id nor its operation.
All other messages wait for the next batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from perdure.engine.core import repeats, sealing
from perdure.engine.core.backlog import Lines
from perdure.engine.core.batch import OpenBatch
from perdure.engine.core.envelope import Elsewhere, Envelope, envelopes_of, operation_of
from perdure.engine.core.starts import start
from perdure.model.messages import Start

if TYPE_CHECKING:
    from perdure.engine.core.worker_state import WorkerState


def candidates(making: OpenBatch, envelopes: Iterable[Envelope], now: int) -> list[Envelope]:
    """The starts among these that may be accepted early, unless their id or their operation is stored already.

    A start behind another message for the same instance, or of the same operation, is none: the order of those stays.
    """
    found: list[Envelope] = []
    met: set[str] = set()
    for envelope in envelopes:
        names = {envelope.message.instance_id, *operations(envelope)}
        if met.isdisjoint(names) and _is_unrelated(making, envelope, now):
            found.append(envelope)
        met |= names
    return found


def operations(envelope: Envelope) -> list[str]:
    """The ids under which an answer to this request may be stored."""
    operation_id = operation_of(envelope)
    return (
        [one for one in (operation_id, repeats.former_id_in(envelope.message)) if one] if operation_id else []
    )


def _is_unrelated(making: OpenBatch, envelope: Envelope, now: int) -> bool:
    message = envelope.message
    if type(message) is not Start or message.parent is not None or message.visible_at > now:
        return False
    if envelope.reply is None or isinstance(envelope.reply, Elsewhere):
        return False
    instance_id = message.instance_id
    if (
        instance_id in making.cache.warm
        or instance_id in making.absent
        or instance_id in making.aside
        or instance_id in making.lines
        or instance_id in making.quarantine
    ):
        return False
    return making.seen.keys().isdisjoint(operations(envelope)) and not making.is_elsewhere(instance_id)


def unstored(
    starts: Iterable[Envelope], instance_ids: Collection[str], operation_ids: Collection[str]
) -> list[Envelope]:
    """Those of the candidates of which the store has neither the instance nor an answer."""
    return [
        one
        for one in starts
        if one.message.instance_id not in instance_ids
        and not any(o in operation_ids for o in operations(one))
    ]


def make(worker: WorkerState, starts: Iterable[Envelope], now: int) -> OpenBatch:
    """A batch of these starts alone, sealed. The batch in the making is left as it is."""
    batch = OpenBatch(worker, now)
    batch.accept_only = True
    batch.backlog, batch.lines = deque(), Lines()
    for envelope in starts:
        assert type(envelope.message) is Start
        start(batch, None, envelope, envelope.message)
    sealing.seal(batch)
    _forget_instances(worker, batch)
    return batch


def line_up(worker: WorkerState, committed: OpenBatch, *, is_between: bool) -> list[str]:
    """Queue the first messages of durable starts. `is_between`: there is no open batch.

    Returns log lines about unreadable messages.
    """
    unread: list[str] = []
    for envelope in envelopes_of(committed.rows.inbox_added, unread):
        worker.lines.append(envelope)
    if is_between:
        worker.lines.close_batch()
    return unread


def _forget_instances(worker: WorkerState, batch: OpenBatch) -> None:
    """Evict the new instances; they are reloaded from the store at their turn, because an instance must be
    durable before it is warm.
    """
    for instance in batch.touched.values():
        worker.cache.evict(instance)


__all__ = ["candidates", "line_up", "make", "operations", "unstored"]
