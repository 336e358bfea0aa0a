"""The store in memory: the port in its most readable form, for tests and for work that need not survive.

What this file does is what every store must do; where a database behaves otherwise, the database's adapter is
wrong. A commit first asks whether anything stands against the batch, and only then applies it, so a refused
batch leaves no trace. Rows are immutable tuples and are handed out as they are.
"Durable" here means: survives `open` being called again on the same object, as after a crash of the engine.
Two stores share nothing. One lock serves all threads; nothing under it waits.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from threading import RLock
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from perdure.errors import CommitRefused, FenceLost, StoreError
from perdure.model.bodies import inline
from perdure.model.entities import ENTITY
from perdure.model.events import decode_events, encode_events
from perdure.model.records import (
    AuditRow,
    Batch,
    BodyRow,
    DroppedRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    KeyRow,
    Poll,
    SeenRow,
    StoredInstance,
    WaitRow,
)
from perdure.store.port import Opening
from perdure.store.purging import surviving
from perdure.store.transfer import demand_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from perdure.model.records import (
        AuditFilter,
        InstanceFilter,
        InstanceUpdate,
    )
    from perdure.store.transfer import Key, Row

ALL_WAITS: Final = -1
DROPPED_KEPT: Final = 30 * 24 * 3600 * 1_000_000
AUDIT_KEPT: Final = 365 * 24 * 3600 * 1_000_000
EXPIRY_EVERY: Final = 60_000_000

T = TypeVar("T")
Execution = tuple[int, int]  # instance_no, execution_no


@dataclass
class _Tables:
    """What is committed. Keys are the primary keys of the SQLite schema."""

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
    # Few of many instances stand in these; a poll must not look at all.
    due: dict[int, int] = field(default_factory=dict)
    with_local_work: set[int] = field(default_factory=set)


class MemoryStore:
    """A hub in this object's memory."""

    location = ""

    def __init__(self, hub: str) -> None:
        self.hub = hub
        self._tables = _Tables()
        self._lock = RLock()
        self._is_open = False
        self._next_expiry = 0
        self._importing = _Tables()

    # -------------------------------------------------------------------------------------- the engine's half

    def open(self) -> Opening:
        with self._lock:
            self._is_open = True
            self._next_expiry = 0
            return Opening(
                max(self._tables.instances, default=0) + 1,
                max(self._tables.inbox, default=0) + 1,
            )

    def reopen(self) -> Opening:
        return self.open()

    def close(self) -> None:
        self._is_open = False

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        with self._lock:
            self._check_open()
            known = self._tables.numbers
            numbers = {known[instance_id] for instance_id in instance_ids if instance_id in known}
            return [self._loaded(self._tables.instances[number]) for number in sorted(numbers)]

    def _loaded(self, row: InstanceRow) -> StoredInstance:
        bare = row.completed_at is not None or row.kind == ENTITY
        found = StoredInstance(row) if bare else self._with_history(row)
        found.entity_state = self._tables.entity_states.get(row.instance_no)
        found.held = sorted(
            message
            for message in self._tables.inbox.values()
            if message.instance_id == row.instance_id and message.visible_at is None
        )
        return found

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        with self._lock:
            self._check_open()
            return sorted(self._tables.seen[i] for i in set(operation_ids) if i in self._tables.seen)

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        with self._lock:
            self._check_open()
            visible = sorted(
                (message.visible_at, message.message_no)
                for message in self._tables.inbox.values()
                if message.visible_at is not None
            )
            due = sorted((at, number) for number, at in self._tables.due.items() if at < horizon)
            return Poll(
                [self._tables.inbox[number] for at, number in visible if at <= now][:limit],
                [(at, self._tables.instances[number].instance_id) for at, number in due[:limit]],
                next((at for at, _ in visible if at > now), None),
            )

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        with self._lock:
            self._check_open()
            return self._named(self._tables.with_local_work, after_no, limit)

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        with self._lock:
            self._check_open()
            rows = self._tables.instances.values()
            return self._named((row.instance_no for row in rows if _is_parked(row)), after_no, limit)

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        with self._lock:
            self._check_open()
            known = self._tables.numbers
            numbers = {known[instance_id] for instance_id in instance_ids if instance_id in known}
            return [self._tables.instances[number] for number in sorted(numbers)]

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        with self._lock:
            self._check_open()
            found = [
                (row.completed_at, row.instance_no)
                for row in self._tables.instances.values()
                if row.completed_at is not None
                and row.kind == "orchestration"
                and row.status == status
                and after < (row.completed_at, row.instance_no) < (before,)
            ]
            return [self._tables.instances[number] for _, number in sorted(found)[:limit]]

    def _named(self, numbers: Iterable[int], after_no: int, limit: int) -> list[tuple[int, str]]:
        wanted = sorted(number for number in numbers if number > after_no)[:limit]
        return [(number, self._tables.instances[number].instance_id) for number in wanted]

    def commit(self, batch: Batch) -> None:
        with self._lock:
            self._check_open()
            if batch.purged:
                batch = surviving(batch)
            _check(self._tables, batch)
            _apply(self._tables, batch)
            if batch.at >= self._next_expiry:
                self._next_expiry = batch.at + EXPIRY_EVERY
                _expire(self._tables, batch.at)

    def maintain(self, now: int) -> None:
        pass

    # --------------------------------------------------------------------------------------------- moving

    def sizes(self) -> dict[str, int]:
        with self._lock:
            self._check_open()
            return {table: len(rows) for table, rows in _as_rows(self._tables).items()}

    def export(self, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
        with self._lock:
            self._check_open()
            begin = after[0] if after else 0
            rows = _as_rows(self._tables)[table][begin : begin + limit]
            return rows, (begin + len(rows),)

    def begin_import(self) -> Opening:
        demand_empty(self.sizes(), f"the hub {self.hub!r} in memory")
        self._importing = _Tables()
        return Opening(1, 1)

    def import_rows(self, table: str, rows: Sequence[Row]) -> None:
        for row in rows:
            _import_row(self._importing, table, row)

    def finish_import(self) -> None:
        with self._lock:
            self._tables = self._importing

    def _check_open(self) -> None:
        if not self._is_open:
            raise StoreError("the store in memory cannot be used: it is not open")

    # -------------------------------------------------------------------------------------- the clients' half

    def get(self, instance_id: str, *, history: bool = False) -> StoredInstance | None:
        with self._lock:
            number = self._tables.numbers.get(instance_id)
            if number is None:
                return None
            row = self._tables.instances[number]
            found = self._with_history(row) if history else StoredInstance(row)
            found.waits = self.waits([number])
            found.custom_status = self._tables.custom_status.get(number)
            found.entity_state = self._tables.entity_states.get(number)
            return found

    def ends(self, rows: Sequence[InstanceRow]) -> dict[int, list[bytes]]:
        with self._lock:
            return {row.instance_no: self._ends_of((row.instance_no, row.execution_no)) for row in rows}

    def _ends_of(self, execution: Execution) -> list[bytes]:
        history = self._tables.history.get(execution, {})
        bodies = self._tables.bodies.get(execution, {})
        episodes = sorted({min(history), max(history)}) if history else []
        return [_with_bodies(history[episode], bodies) for episode in episodes]

    def query(self, wanted: InstanceFilter) -> list[InstanceRow]:
        with self._lock:
            newest_first = sorted(self._tables.instances.values(), reverse=True)
            return [row for row in newest_first if self._matches(row, wanted)][: wanted.top]

    def count(self, wanted: InstanceFilter) -> int:
        everywhere = replace(wanted, before_no=None)
        with self._lock:
            return sum(self._matches(row, everywhere) for row in self._tables.instances.values())

    def _matches(self, row: InstanceRow, wanted: InstanceFilter) -> bool:
        return (
            wanted.kind in ("", row.kind)
            and (not wanted.status or row.status in wanted.status)
            and wanted.name in (None, row.name)
            and row.instance_id.startswith(wanted.prefix or "")
            and _has_tags(row, wanted.tags)
            and (wanted.created_from is None or row.created_at >= wanted.created_from)
            and (wanted.created_to is None or row.created_at <= wanted.created_to)
            and (wanted.waiting_for is None or self._waits_for(row.instance_no, wanted.waiting_for))
            and (wanted.before_no is None or row.instance_no < wanted.before_no)
        )

    def _waits_for(self, instance_no: int, name: str) -> bool:
        return any(wait.name == name for wait in self._tables.waits.get(instance_no, {}).values())

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        with self._lock:
            return sorted(
                wait for number in set(instance_nos) for wait in self._tables.waits.get(number, {}).values()
            )

    def custom_status(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        with self._lock:
            known = self._tables.custom_status
            return {number: known[number] for number in instance_nos if number in known}

    def entity_states(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        with self._lock:
            known = self._tables.entity_states
            return {number: known[number] for number in instance_nos if number in known}

    def counts(self) -> dict[str, int]:
        with self._lock:
            rows = self._tables.instances.values()
            return dict(Counter(str(row.status) for row in rows if row.kind != ENTITY))

    def dropped(self, instance_id: str | None, limit: int) -> list[DroppedRow]:
        with self._lock:
            rows = reversed(self._tables.dropped)
            return [row for row in rows if instance_id in (None, row.instance_id)][:limit]

    def executions(self, instance_no: int) -> list[int]:
        with self._lock:
            kept = self._tables.executions.get(instance_no, ())
            return sorted(no for no in kept if (instance_no, no) in self._tables.history)

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        with self._lock:
            row = self._tables.instances.get(instance_no)
            if row is None:
                return None
            found = self._with_history(row._replace(execution_no=execution_no))
            found.row = row
            return found

    def _with_history(self, row: InstanceRow) -> StoredInstance:
        execution = row.instance_no, row.execution_no
        history = sorted(self._tables.history.get(execution, {}).values(), key=lambda row: row.episode)
        return StoredInstance(row, history, dict(self._tables.bodies.get(execution, {})))

    def keys(self) -> list[KeyRow]:
        with self._lock:
            return sorted(self._tables.keys.values(), key=lambda row: (row.created_at, row.key_id))

    def audit(self, wanted: AuditFilter) -> list[tuple[int, AuditRow]]:
        with self._lock:
            newest_first = sorted(self._tables.audit.items(), reverse=True)
            return [
                (number, row)
                for number, row in newest_first
                if (wanted.before_no is None or number < wanted.before_no)
                and (wanted.since is None or row.at >= wanted.since)
                and wanted.who in (None, row.who)
                and wanted.operation in (None, row.operation)
                and wanted.instance_id in (None, row.instance_id)
            ][: wanted.top]

    def answered(self, operation_id: str) -> SeenRow | None:
        with self._lock:
            return self._tables.seen.get(operation_id)

    def close_reader(self) -> None:
        pass


def _has_tags(row: InstanceRow, wanted: tuple[tuple[str, str], ...]) -> bool:
    return not wanted or all(item in json.loads(row.tags or "{}").items() for item in wanted)


def _is_parked(row: InstanceRow) -> bool:
    if row.status == "Suspended":
        return row.reason.startswith(("nondeterminism", "no_worker"))
    return row.status == "Pending" and row.reason.startswith("no_worker")


def _with_bodies(row: HistoryRow, bodies: dict[tuple[int, int], bytes]) -> bytes:
    own = {no: body for (episode, no), body in bodies.items() if episode == row.episode}
    if not own:
        return row.events
    try:
        return encode_events(inline(decode_events(row.events), own))
    except msgspec.MsgspecError:
        return row.events


# ------------------------------------------------------------------------------------- what stands against it


def _check(tables: _Tables, batch: Batch) -> None:
    """Raise what a database would raise on its way through the batch (purged instances' rows left out).

    Each line is one constraint: the keys that are added, and which of them are there already.
    """
    gone = set(batch.purged)
    gone_ids = {tables.instances[number].instance_id for number in gone & tables.instances.keys()}
    new_numbers = [row.instance_no for row in batch.new_instances]

    _demand("messages to hold", list(set(batch.inbox_held)), tables.inbox.__contains__)
    _demand("consumed messages", batch.inbox_removed, tables.inbox.__contains__)
    _refuse("instances", new_numbers, lambda number: number in tables.instances and number not in gone)
    _refuse(
        "instances",
        (row.instance_id for row in batch.new_instances),
        lambda instance_id: instance_id in tables.numbers and instance_id not in gone_ids,
    )
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
    _refuse_seen(tables, batch)


def _refuse_seen(tables: _Tables, batch: Batch) -> None:
    latest: dict[str, SeenRow] = {}
    for row in batch.seen:
        first = latest.get(row.operation_id) or tables.seen.get(row.operation_id)
        if first is not None and first.expires_at > batch.at:
            raise CommitRefused(f"seen has {row.operation_id!r} already; the batch was rolled back")
        latest[row.operation_id] = row


def _demand(what: str, numbers: Sequence[int], is_there: Callable[[int], bool]) -> None:
    found = sum(map(is_there, set(numbers)))
    if found != len(numbers):
        raise FenceLost(f"of {len(numbers)} {what} {found} are there: another engine has taken them")


def _refuse(table: str, keys: Iterable[T], is_there: Callable[[T], bool]) -> None:
    added: set[T] = set()
    for key in keys:
        if key in added or is_there(key):
            raise CommitRefused(f"{table} has {key!r} already; the batch was rolled back")
        added.add(key)


# ---------------------------------------------------------------------------------------------- applying it


def _apply(tables: _Tables, batch: Batch) -> None:
    """In the order of the port: messages leave, purges free ids, rows go in, old executions go out."""
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


def _apply_access(tables: _Tables, batch: Batch) -> None:
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


def _put(tables: _Tables, row: InstanceRow) -> None:
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


def _apply_history(tables: _Tables, batch: Batch) -> None:
    for row in batch.history:
        tables.history.setdefault(row[:2], {})[row.episode] = row
        tables.executions.setdefault(row.instance_no, set()).add(row.execution_no)
    for number, execution_no, episode, no, body in batch.bodies:
        tables.bodies.setdefault((number, execution_no), {})[episode, no] = body
        tables.executions.setdefault(number, set()).add(execution_no)
    for number, below in batch.executions_removed:
        for execution_no in [kept for kept in tables.executions.get(number, ()) if kept < below]:
            _remove_execution(tables, number, execution_no)


def _remove_execution(tables: _Tables, number: int, execution_no: int) -> None:
    tables.executions[number].discard(execution_no)
    tables.history.pop((number, execution_no), None)
    tables.bodies.pop((number, execution_no), None)


def _apply_waits(tables: _Tables, batch: Batch) -> None:
    for number, wait_id in batch.waits_closed:
        if wait_id == ALL_WAITS:
            tables.waits.pop(number, None)
        else:
            tables.waits.get(number, {}).pop(wait_id, None)
    for row in batch.waits_opened:
        tables.waits.setdefault(row.instance_no, {})[row.wait_id] = row


def _purge(tables: _Tables, number: int) -> None:
    """Everything of the instance, and the messages waiting for its id."""
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


def _expire(tables: _Tables, at: int) -> None:
    tables.seen = {key: row for key, row in tables.seen.items() if row.expires_at > at}
    tables.dropped = [row for row in tables.dropped if row.at > at - DROPPED_KEPT]
    tables.audit = {number: row for number, row in tables.audit.items() if row.at > at - AUDIT_KEPT}


# -------------------------------------------------------------------------------------------------- moving it


def _as_rows(tables: _Tables) -> dict[str, list[Row]]:
    """The rows of each table of a transfer, by ascending key."""
    stated = sorted({*tables.custom_status, *tables.entity_states})
    return {
        "instances": [tables.instances[number] for number in sorted(tables.instances)],
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
    }


def _import_row(tables: _Tables, table: str, row: Row) -> None:
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
