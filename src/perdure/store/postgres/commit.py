"""The commit: a batch as a few statements, sent together and so one transaction. This is the hot path.

The order is part of the port, and the same as in SQLite: the fence, then messages leave the inbox, purges free
ids that new instances of the same batch may take, rows are inserted, old executions deleted, waits closed
before others open. The statements themselves count the rows that a batch expects: a wrong count fails the
statement, and with it the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.model.instances import partition_of
from perdure.model.records import InstanceRow
from perdure.store.postgres.binary import (
    bodies,
    bodies_or_null,
    number,
    numbers,
    numbers_or_null,
    text,
    texts,
    texts_or_null,
)
from perdure.store.postgres.pipeline import Statement
from perdure.store.purging import surviving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perdure.model.records import Batch, InboxRow, SeenRow

    Encode = Callable[[Any], bytes]

ALL: Final = -1
RESULTS: Final = "take_results"
_REFUSAL: Final = Statement("refuse")
_PURGES: Final = (
    "purge_activities",
    "purge_instances",
    "purge_history",
    "purge_payloads",
    "purge_state",
    "purge_waits",
)
_PARTITION: Final = InstanceRow._fields.index("partition")

# The encoders of each table's columns.
_INSTANCES: Final[tuple[Encode, ...]] = (
    *(numbers, texts, numbers, texts, texts, texts, texts, texts, numbers, numbers, numbers, numbers),
    *(
        numbers_or_null,
        numbers_or_null,
        numbers,
        texts_or_null,
        texts_or_null,
        numbers_or_null,
        texts_or_null,
    ),
    *(bodies, bodies, numbers, texts),
)
_UPDATES: Final[tuple[Encode, ...]] = (
    *(numbers, texts, texts, numbers, numbers, numbers, numbers_or_null, numbers_or_null, numbers, bodies),
    *(numbers, texts),
)
_HISTORY: Final[tuple[Encode, ...]] = (numbers, numbers, numbers, numbers, bodies, bodies, bodies)
_PAYLOADS: Final[tuple[Encode, ...]] = (numbers, numbers, numbers, numbers, bodies)
_STATE: Final[tuple[Encode, ...]] = (numbers, bodies)
_WAITS: Final[tuple[Encode, ...]] = (
    *(numbers, numbers, texts, numbers, numbers, bodies_or_null),
    *(bodies_or_null, texts, texts, numbers, texts),
)
_TASK_UPDATES: Final[tuple[Encode, ...]] = (numbers, numbers, bodies, texts)
_TASK_MOVES: Final[tuple[Encode, ...]] = (numbers, numbers, texts, numbers, texts)
_INBOX: Final[tuple[Encode, ...]] = (numbers, texts, numbers_or_null, bodies)
_SEEN: Final[tuple[Encode, ...]] = (texts, texts, bodies, numbers)
_DROPPED: Final[tuple[Encode, ...]] = (texts, numbers, texts, texts, texts, texts, bodies)
_KEYS: Final[tuple[Encode, ...]] = (
    *(texts, texts, texts, texts, bodies, numbers, texts, numbers_or_null, numbers_or_null, numbers_or_null),
)
_AUDIT: Final[tuple[Encode, ...]] = (numbers, texts, texts, texts, texts, texts, texts, numbers)
_RING: Final[tuple[Encode, ...]] = (texts, numbers, numbers, numbers, bodies)
_ACTIVITIES: Final[tuple[Encode, ...]] = (
    *(texts, texts, numbers, texts, texts, numbers, numbers, numbers_or_null, bodies),
)
_REMOVED: Final[tuple[Encode, ...]] = (texts, texts, numbers)
_RESULTS: Final[tuple[Encode, ...]] = (texts, texts, numbers, numbers, numbers, bodies)
_PAIRS: Final[tuple[Encode, ...]] = (numbers, numbers)

COLUMNS: Final[dict[str, tuple[Encode, ...]]] = {
    "instances": _INSTANCES,
    "history": _HISTORY,
    "payloads": _PAYLOADS,
    "state": (numbers, bodies_or_null, bodies_or_null),
    "waits": _WAITS,
    "inbox": _INBOX,
    "seen": _SEEN,
    "dropped": _DROPPED,
    "keys": _KEYS,
    "audit": _AUDIT,
    "ring": _RING,
}
"""The same by the names of a transfer."""


def arrays(encoders: Sequence[Encode], rows: Sequence[tuple[Any, ...]]) -> tuple[bytes, ...]:
    """The rows as one array per column."""
    return tuple([encode(column) for encode, column in zip(encoders, zip(*rows, strict=True), strict=True)])


def placed_by_id(row: tuple[Any, ...], partitions: int) -> tuple[Any, ...]:
    """A row of `instances` in the partition of its id, whatever its partition in the source hub."""
    return (*row[:_PARTITION], partition_of(row[1], partitions), *row[_PARTITION + 1 :])


def calls_of(batch: Batch, incarnation: int, partitions: int) -> list[Statement]:
    """All statements of a batch, in their order. An `incarnation` of 0 is exclusive and needs no fence."""
    if batch.purged:
        batch = surviving(batch)
    calls = [Statement("fence", (number(incarnation),))] if incarnation else []
    calls.extend(_calls(batch, incarnation, partitions))
    return calls


def _calls(batch: Batch, incarnation: int, partitions: int) -> Iterator[Statement]:
    if batch.inbox_held:
        held = list(dict.fromkeys(batch.inbox_held))
        yield Statement("hold_messages", (numbers(held), number(len(held))))
    if batch.inbox_removed:
        yield Statement("remove_messages", (numbers(batch.inbox_removed), number(len(batch.inbox_removed))))
    if batch.purged:
        gone = numbers(batch.purged)
        for name in _PURGES:
            yield Statement(name, (gone,))
    if batch.forgotten:
        yield Statement("forget_dropped", (texts(batch.forgotten),))
    if batch.new_instances:
        # An id that a batch takes twice is the batch's own error, not a race with another worker.
        if len({row[1] for row in batch.new_instances}) != len(batch.new_instances):
            yield _REFUSAL
        rows = [placed_by_id(row, partitions) for row in batch.new_instances]
        yield Statement("insert_instances", arrays(_INSTANCES, rows))
    if batch.updates:
        # Several updates of one instance in a batch: the last one wins.
        updates = list({row[0]: row for row in batch.updates}.values())
        yield Statement("update_instances", (*arrays(_UPDATES, updates), number(len(updates))))
    if batch.versions:
        yield Statement("pin_versions", arrays((numbers, texts), list(dict(batch.versions).items())))
    if batch.history:
        yield Statement("insert_history", arrays(_HISTORY, batch.history))
    if batch.bodies:
        yield Statement("insert_payloads", arrays(_PAYLOADS, batch.bodies))
    if batch.custom_status:
        yield Statement("put_custom_status", arrays(_STATE, list(dict(batch.custom_status).items())))
    if batch.entity_states:
        yield Statement("put_entity_state", arrays(_STATE, list(dict(batch.entity_states).items())))
    if batch.executions_removed:
        below = arrays(_PAIRS, batch.executions_removed)
        yield Statement("remove_history", below)
        yield Statement("remove_payloads", below)
    yield from _waits(batch)
    if batch.inbox_added:
        yield _messages(batch.inbox_added, partitions)
    if batch.seen:
        yield from _remembered(batch.seen, batch.at)
    if batch.dropped:
        yield Statement("drop_messages", arrays(_DROPPED, batch.dropped))
    if batch.keys:
        yield from (Statement("put_keys", arrays(_KEYS, [key])) for key in batch.keys)
    if batch.keys_used:
        yield Statement("use_keys", arrays((texts, numbers), list(dict(batch.keys_used).items())))
    if batch.audit:
        yield Statement("add_audit", arrays(_AUDIT, batch.audit))
    if batch.heads_removed:
        yield Statement("remove_heads", (texts(batch.heads_removed), number(len(batch.heads_removed))))
    if batch.ring:
        *others, head = batch.ring
        if others:
            yield Statement("put_ring", arrays(_RING, others))
        yield Statement("put_head", (text(head.worker), number(head.incarnation), head.value))
    yield from _shared(batch, incarnation, partitions)


def _waits(batch: Batch) -> Iterator[Statement]:
    if batch.waits_closed:
        entirely = [instance_no for instance_no, wait_id in batch.waits_closed if wait_id == ALL]
        if entirely:
            yield Statement("close_all_waits", (numbers(entirely),))
        closed = [pair for pair in batch.waits_closed if pair[1] != ALL]
        if closed:
            yield Statement("close_waits", arrays(_PAIRS, closed))
    if batch.waits_opened:
        yield Statement("open_waits", arrays(_WAITS, batch.waits_opened))
    if batch.task_updates:
        updates = list({row[:2]: row for row in batch.task_updates}.values())
        yield Statement("update_tasks", arrays(_TASK_UPDATES, updates))
    if batch.task_moves:
        moves = list({row[:2]: row for row in batch.task_moves}.values())
        yield Statement("move_tasks", arrays(_TASK_MOVES, moves))


def _shared(batch: Batch, incarnation: int, partitions: int) -> Iterator[Statement]:
    removed = frozenset(batch.activities_removed)
    if removed:
        singly = [row for row in removed if row[2] != ALL]
        if singly:
            yield Statement("remove_activities", arrays(_REMOVED, singly))
        entirely = [row[:2] for row in removed if row[2] == ALL]
        if entirely:
            yield Statement("remove_executions", arrays((texts, texts), entirely))
    placed = [row for row in batch.activities_placed if removed.isdisjoint((row[:3], (*row[:2], ALL)))]
    if placed:
        yield Statement("place_activities", arrays(_ACTIVITIES, placed))
    if batch.results:
        results = list(
            {row[:4]: row for row in reversed(batch.results)}.values()
        )  # the first of equals counts
        targets = numbers([partition_of(row.instance_id, partitions) for row in results])
        yield Statement(RESULTS, (*arrays(_RESULTS, results), targets, number(incarnation), number(batch.at)))
    if batch.partitions_released:
        yield Statement("release_partitions", (numbers(batch.partitions_released), number(incarnation)))


def _messages(rows: Sequence[InboxRow], partitions: int) -> Statement:
    return Statement(
        "add_messages", (*arrays(_INBOX, rows), numbers([partition_of(row[1], partitions) for row in rows]))
    )


def _remembered(rows: Sequence[SeenRow], at: int) -> Iterator[Statement]:
    """The last row of each operation, if the ones before it have expired."""
    latest: dict[str, SeenRow] = {}
    for row in rows:
        first = latest.get(row.operation_id)
        if first is not None and first.expires_at > at:
            yield _REFUSAL
        latest[row.operation_id] = row
    yield Statement("remember", (*arrays(_SEEN, list(latest.values())), number(at), number(len(latest))))


__all__ = ["COLUMNS", "RESULTS", "arrays", "calls_of", "placed_by_id"]
