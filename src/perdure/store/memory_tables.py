"""The tables of the store in memory, the constraints of a batch, and its effects.

`check` raises the errors that a database would raise for a batch; `apply` then cannot fail. `as_rows` and
`import_row` convert the tables for `perdure.store.transfer`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from perdure.errors import CommitConflict, CommitRefused, FenceLost
from perdure.model.records import (
    ANSWERED,
    ActivityRow,
    AuditRow,
    Batch,
    BodyRow,
    DroppedRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    KeyRow,
    SeenRow,
    TaskMove,
    TaskUpdate,
    WaitRow,
)
from perdure.model.ring import HEAD, KEPT, RingRow, oldest_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perdure.errors import StoreError
    from perdure.model.records import InstanceUpdate, ResultRow
    from perdure.store.transfer import Row

ALL_WAITS: Final = -1
ALL_TASKS: Final = -1
DROPPED_KEPT: Final = 30 * 24 * 3600 * 1_000_000
AUDIT_KEPT: Final = 365 * 24 * 3600 * 1_000_000

T = TypeVar("T")
Execution = tuple[int, int]  # instance_no, execution_no


@dataclass
class Tables:
    """The committed rows. Keys are the primary keys of the SQLite schema."""

    instances: dict[int, InstanceRow] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)  # instance_id -> instance_no
    history: dict[Execution, dict[int, HistoryRow]] = field(default_factory=dict)
    bodies: dict[Execution, dict[tuple[int, int], bytes]] = field(default_factory=dict)
    custom_status: dict[int, bytes] = field(default_factory=dict)
    entity_states: dict[int, bytes] = field(default_factory=dict)
    waits: dict[int, dict[int, WaitRow]] = field(default_factory=dict)
    inbox: dict[int, InboxRow] = field(default_factory=dict)
    seen: dict[str, SeenRow] = field(default_factory=dict)
    dropped: list[DroppedRow] = field(default_factory=list)
    executions: dict[int, set[int]] = field(default_factory=dict)  # with history or bodies
    keys: dict[str, KeyRow] = field(default_factory=dict)
    audit: dict[int, AuditRow] = field(default_factory=dict)
    ring: dict[tuple[str, int, int], RingRow] = field(default_factory=dict)  # worker, resolution, start
    # instance_id, execution_id -> task_id
    activities: dict[tuple[str, str], dict[int, ActivityRow]] = field(default_factory=dict)
    # Only a few instances are in these; a poll must not scan all.
    due: dict[int, int] = field(default_factory=dict)
    with_local_work: set[int] = field(default_factory=set)


# ------------------------------------------------------------------------------------------ constraints


def check(tables: Tables, batch: Batch, incarnation: int = 0) -> None:
    """Raise the error that a database would raise for the batch, without rows of purged instances.

    Each line is one constraint: the added keys, and the existing ones among them. If workers share the hub,
    another worker may have taken an id or an operation first: that is a conflict.
    """
    raced = CommitConflict if incarnation else CommitRefused
    gone = set(batch.purged)
    gone_ids = {tables.instances[number].instance_id for number in gone & tables.instances.keys()}
    new_numbers = [row.instance_no for row in batch.new_instances]

    _demand("messages to hold", list(set(batch.inbox_held)), tables.inbox.__contains__)
    _demand("consumed messages", batch.inbox_removed, tables.inbox.__contains__)
    _refuse_instances(tables, batch, gone, gone_ids, raced)
    fresh = set(new_numbers)
    _demand(
        "instances to update",
        list({row.instance_no for row in batch.updates}),
        lambda number: number in fresh or (number in tables.instances and number not in gone),
    )
    _refuse(
        "history", (row[:3] for row in batch.history), lambda key: key[2] in tables.history.get(key[:2], {})
    )
    _refuse(
        "payloads", (row[:4] for row in batch.bodies), lambda key: key[2:] in tables.bodies.get(key[:2], {})
    )
    closed = set(batch.waits_closed)
    _refuse(
        "waits",
        (row[:2] for row in batch.waits_opened),
        lambda key: key[1] in tables.waits.get(key[0], {}) and not {key, (key[0], ALL_WAITS)} & closed,
    )
    removed = set(batch.inbox_removed)
    _refuse(
        "inbox",
        (row.message_no for row in batch.inbox_added),
        lambda number: number in tables.inbox and number not in removed,
    )
    _refuse_seen(tables, batch, raced)
    for worker in batch.heads_removed:
        if (worker, HEAD, 0) not in tables.ring:
            raise raced(f"the ring has no head of worker {worker!r}; the batch was rolled back")
    _refuse(
        "activities",
        (row[:3] for row in _placed(batch)),
        lambda key: key[0] not in gone_ids and key[2] in tables.activities.get(key[:2], {}),
    )
    added = {row.message_no for row in batch.inbox_added}
    _refuse(
        "inbox",
        (row.message_no for row in _in_time(tables, batch, incarnation, gone_ids)),
        lambda number: number in added or (number in tables.inbox and number not in removed),
    )


def _refuse_instances(
    tables: Tables, batch: Batch, gone: set[int], gone_ids: set[str], raced: type[StoreError]
) -> None:
    """Check row by row; an id that a batch takes twice is the batch's own error, even if another worker has it
    too.
    """
    ids = [row.instance_id for row in batch.new_instances]
    _refuse("instances", ids, lambda _: False)
    added: set[int] = set()
    for number, instance_id in ((row.instance_no, row.instance_id) for row in batch.new_instances):
        if number in added or (number in tables.instances and number not in gone):
            raise _taken("instances", number)
        if instance_id in tables.numbers and instance_id not in gone_ids:
            raise _taken("instances", instance_id, raced)
        added.add(number)


def _in_time(tables: Tables, batch: Batch, incarnation: int, gone_ids: set[str]) -> list[ResultRow]:
    """The results that count, each with its message; the others leave no trace."""
    gone = frozenset(batch.activities_removed)
    found: dict[tuple[str, str, int], ResultRow] = {}
    for row in batch.results:
        activity = tables.activities.get(row[:2], {}).get(row.task_id)
        if (
            activity is not None
            and (activity.attempt, activity.incarnation) == (row.attempt, incarnation)
            and row.instance_id not in gone_ids
            and gone.isdisjoint((row[:3], (*row[:2], ALL_TASKS)))
        ):
            found.setdefault(row[:3], row)
    return list(found.values())


def _refuse_seen(tables: Tables, batch: Batch, raced: type[StoreError]) -> None:
    """Check operations; one that a batch stores twice is the batch's own error, even if another worker has it
    too.
    """
    latest: dict[str, SeenRow] = {}
    for row in batch.seen:
        if row.operation_id in latest and latest[row.operation_id].expires_at > batch.at:
            raise _taken("seen", row.operation_id)
        latest[row.operation_id] = row
    for operation_id in latest:
        if operation_id in tables.seen and tables.seen[operation_id].expires_at > batch.at:
            raise _taken("seen", operation_id, raced)


def _demand(what: str, numbers: Sequence[int], is_there: Callable[[int], bool]) -> None:
    found = sum(map(is_there, set(numbers)))
    if found != len(numbers):
        raise FenceLost(f"of {len(numbers)} {what} {found} exist: another engine has taken them")


def _refuse(table: str, keys: Iterable[T], is_there: Callable[[T], bool]) -> None:
    added: set[T] = set()
    for key in keys:
        if key in added or is_there(key):
            raise _taken(table, key)
        added.add(key)


def _taken(table: str, key: object, error: type[StoreError] = CommitRefused) -> StoreError:
    return error(f"{table} already has {key!r}; the batch was rolled back")


# ---------------------------------------------------------------------------------------------- applying it


def apply(tables: Tables, batch: Batch, incarnation: int = 0) -> int:
    """In the order of the port: messages are deleted, purges free ids, rows are inserted, old executions are
    deleted.

    Returns how many results came too late.
    """
    for number in batch.inbox_held:
        tables.inbox[number] = tables.inbox[number]._replace(visible_at=None)
    for number in batch.inbox_removed:
        del tables.inbox[number]
    for number in batch.purged:
        _purge(tables, number)
    if batch.forgotten:
        forgotten = frozenset(batch.forgotten)
        tables.dropped = [row for row in tables.dropped if row.instance_id not in forgotten]
    for row in batch.new_instances:
        tables.numbers[row.instance_id] = row.instance_no
        _put(tables, row)
    for update in batch.updates:
        _put(tables, _updated(tables.instances[update.instance_no], update))
    for number, version in batch.versions:
        _put(tables, tables.instances[number]._replace(version=version))
    _apply_history(tables, batch)
    tables.custom_status.update(batch.custom_status)
    tables.entity_states.update(batch.entity_states)
    _apply_waits(tables, batch)
    tables.inbox.update((row.message_no, row) for row in batch.inbox_added)
    tables.seen.update((row.operation_id, row) for row in batch.seen)
    tables.dropped.extend(batch.dropped)
    _apply_access(tables, batch)
    _apply_activities(tables, batch)
    for worker in batch.heads_removed:
        del tables.ring[worker, HEAD, 0]
    tables.ring.update((row[:3], row) for row in batch.ring)
    return sum(not _take_result(tables, row, batch.at, incarnation) for row in batch.results)


def _placed(batch: Batch) -> list[ActivityRow]:
    """The activities that are placed and not removed in the same batch."""
    if not batch.activities_removed:
        return batch.activities_placed
    gone = frozenset(batch.activities_removed)
    return [row for row in batch.activities_placed if gone.isdisjoint((row[:3], (*row[:2], ALL_TASKS)))]


def _apply_activities(tables: Tables, batch: Batch) -> None:
    for *execution, task_id in batch.activities_removed:
        of = tables.activities.get((execution[0], execution[1]), {})
        if task_id == ALL_TASKS:
            of.clear()
        else:
            of.pop(task_id, None)
    for row in _placed(batch):
        tables.activities.setdefault(row[:2], {})[row.task_id] = row


def _take_result(tables: Tables, row: ResultRow, at: int, incarnation: int) -> bool:
    """Put a result into the inbox and mark its activity, if this incarnation still has the claim."""
    of = tables.activities.get(row[:2], {})
    activity = of.get(row.task_id)
    if activity is None or (activity.attempt, activity.incarnation) != (row.attempt, incarnation):
        return False
    of[row.task_id] = activity._replace(incarnation=ANSWERED)
    tables.inbox[row.message_no] = InboxRow(row.message_no, row.instance_id, at, row.message)
    return True


def _apply_access(tables: Tables, batch: Batch) -> None:
    for key in batch.keys:
        before = tables.keys.get(key.key_id, key)
        tables.keys[key.key_id] = before._replace(
            name=key.name, scopes=key.scopes, expires_at=key.expires_at, revoked_at=key.revoked_at
        )
    for key_id, at in batch.keys_used:
        if key_id in tables.keys:
            tables.keys[key_id] = tables.keys[key_id]._replace(last_used_at=at)
    following = max(tables.audit, default=0) + 1
    tables.audit.update(enumerate(batch.audit, following))


def _put(tables: Tables, row: InstanceRow) -> None:
    tables.instances[row.instance_no] = row
    if row.due_at is None:
        tables.due.pop(row.instance_no, None)
    else:
        tables.due[row.instance_no] = row.due_at
    if row.local_work:
        tables.with_local_work.add(row.instance_no)
    else:
        tables.with_local_work.discard(row.instance_no)


def _updated(row: InstanceRow, update: InstanceUpdate) -> InstanceRow:
    return row._replace(**update._asdict())


def _apply_history(tables: Tables, batch: Batch) -> None:
    for row in batch.history:
        tables.history.setdefault(row[:2], {})[row.episode] = row
        tables.executions.setdefault(row.instance_no, set()).add(row.execution_no)
    for number, execution_no, episode, no, body in batch.bodies:
        tables.bodies.setdefault((number, execution_no), {})[episode, no] = body
        tables.executions.setdefault(number, set()).add(execution_no)
    for number, below in batch.executions_removed:
        for execution_no in [kept for kept in tables.executions.get(number, ()) if kept < below]:
            _remove_execution(tables, number, execution_no)


def _remove_execution(tables: Tables, number: int, execution_no: int) -> None:
    tables.executions[number].discard(execution_no)
    tables.history.pop((number, execution_no), None)
    tables.bodies.pop((number, execution_no), None)


def _apply_waits(tables: Tables, batch: Batch) -> None:
    for number, wait_id in batch.waits_closed:
        if wait_id == ALL_WAITS:
            tables.waits.pop(number, None)
        else:
            tables.waits.get(number, {}).pop(wait_id, None)
    for row in batch.waits_opened:
        tables.waits.setdefault(row.instance_no, {})[row.wait_id] = row
    for update in batch.task_updates:
        _change(tables, update, task=update.task, roles=update.roles)
    for move in batch.task_moves:
        _change(tables, move, holder=move.holder, held_since=move.held_since, assignee=move.assignee)


def _change(tables: Tables, key: TaskUpdate | TaskMove, **values: Any) -> None:
    """Change the row of a wait, unless the batch has closed it."""
    waits = tables.waits.get(key.instance_no, {})
    if key.wait_id in waits:
        waits[key.wait_id] = waits[key.wait_id]._replace(**values)


def _purge(tables: Tables, number: int) -> None:
    """Delete all rows of the instance, and the messages waiting for its id."""
    for execution_no in list(tables.executions.pop(number, ())):
        tables.history.pop((number, execution_no), None)
        tables.bodies.pop((number, execution_no), None)
    tables.custom_status.pop(number, None)
    tables.entity_states.pop(number, None)
    tables.waits.pop(number, None)
    tables.due.pop(number, None)
    tables.with_local_work.discard(number)
    row = tables.instances.pop(number, None)
    if row is not None:
        del tables.numbers[row.instance_id]
        for execution in [key for key in tables.activities if key[0] == row.instance_id]:
            del tables.activities[execution]


def expire(tables: Tables, at: int) -> None:
    tables.seen = {key: row for key, row in tables.seen.items() if row.expires_at > at}
    tables.dropped = [row for row in tables.dropped if row.at > at - DROPPED_KEPT]
    tables.audit = {number: row for number, row in tables.audit.items() if row.at > at - AUDIT_KEPT}
    for resolution in KEPT:
        least = oldest_kept(at, resolution)
        for key in [key for key in tables.ring if key[1] == resolution and key[2] < least]:
            del tables.ring[key]


# -------------------------------------------------------------------------------------------------- moving it


def as_rows(tables: Tables) -> dict[str, list[Row]]:
    """The rows of each table of a transfer, by ascending key."""
    stated = sorted({*tables.custom_status, *tables.entity_states})
    placed = {instance_id for (instance_id, _), of in tables.activities.items() if of}
    instances = [tables.instances[number] for number in sorted(tables.instances)]
    return {
        # Placed activities are not transferred: at the destination the owner of the instance runs them again.
        "instances": [row._replace(local_work=1) if row.instance_id in placed else row for row in instances],
        "history": sorted(row for rows in tables.history.values() for row in rows.values()),
        "payloads": sorted(
            (*execution, *place, body)
            for execution, of in tables.bodies.items()
            for place, body in of.items()
        ),
        "state": [
            (number, tables.custom_status.get(number), tables.entity_states.get(number)) for number in stated
        ],
        "waits": [waits[wait_id] for _, waits in sorted(tables.waits.items()) for wait_id in sorted(waits)],
        "inbox": [tables.inbox[number] for number in sorted(tables.inbox)],
        "seen": [tables.seen[operation_id] for operation_id in sorted(tables.seen)],
        "dropped": list(tables.dropped),
        "keys": [tables.keys[key_id] for key_id in sorted(tables.keys)],
        "audit": [tables.audit[number] for number in sorted(tables.audit)],
        "ring": [tables.ring[key] for key in sorted(tables.ring)],
    }


def import_row(tables: Tables, table: str, row: Row) -> None:
    match table:
        case "instances":
            instance = InstanceRow._make(row)
            tables.numbers[instance.instance_id] = instance.instance_no
            _put(tables, instance)
        case "history":
            _apply_history(tables, Batch(0, history=[HistoryRow._make(row)]))
        case "payloads":
            _apply_history(tables, Batch(0, bodies=[BodyRow._make(row)]))
        case "state":
            number, custom_status, entity_state = row
            if custom_status is not None:
                tables.custom_status[number] = custom_status
            if entity_state is not None:
                tables.entity_states[number] = entity_state
        case "waits":
            tables.waits.setdefault(row[0], {})[row[1]] = WaitRow._make(row)
        case "inbox":
            tables.inbox[row[0]] = InboxRow._make(row)
        case "seen":
            tables.seen[row[0]] = SeenRow._make(row)
        case "dropped":
            tables.dropped.append(DroppedRow._make(row))
        case "keys":
            tables.keys[row[0]] = KeyRow._make(row)
        case "audit":
            tables.audit[len(tables.audit) + 1] = AuditRow._make(row)
        case "ring":
            tables.ring[row[0], row[1], row[2]] = RingRow._make(row)
