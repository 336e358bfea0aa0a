"""The store in memory: the reference implementation of the port, for tests and for work that need not survive.

Every store must behave like this module; an adapter that differs is wrong. A commit first checks the batch, and
only then applies it, so a rejected batch leaves no trace. Rows are immutable tuples and are returned directly.
"Durable" means here that the data survive another `open` on the same object, as after a crash of the engine.
Two stores share nothing, unless `beside` of one created the other: then two workers share one hub. One lock
serves all threads; nothing waits under it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec

from perdure.model.entities import ENTITY
from perdure.model.events import decode_events, encode_events
from perdure.model.http_calls import BUILT_IN
from perdure.model.human_tasks import role_text
from perdure.model.instances import execution_id_of, partition_of
from perdure.model.large_bodies import inline
from perdure.model.records import (
    AuditRow,
    Batch,
    DroppedRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    KeyRow,
    Poll,
    SeenRow,
    StoredInstance,
    TaskFilter,
    TaskRow,
    WaitRow,
    due_key,
)
from perdure.model.waiting import is_parked
from perdure.store.memory_cluster import Member, MemoryOverseer, Place, machine_clock
from perdure.store.memory_tables import Execution, Tables, apply, as_rows, check, expire, import_row
from perdure.store.port import Gauges, History, Opening, wants_history
from perdure.store.purging import surviving
from perdure.store.transfer import demand_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from threading import RLock

    from perdure.model.records import (
        AuditFilter,
        InstanceFilter,
    )
    from perdure.model.ring import RingRow
    from perdure.store.transfer import Key, Row

EXPIRY_EVERY: Final = 60_000_000


class MemoryStore(Member):
    """A hub in this object's memory. `clock` is the time in microseconds of a hub that workers share."""

    location = ""

    def __init__(
        self, hub: str, clock: Callable[[], int] = machine_clock, *, place: Place | None = None
    ) -> None:
        super().__init__(hub, place or Place(clock))
        self._next_expiry = 0
        self._importing = Tables()

    def overseer(self) -> MemoryOverseer:
        """The lease keeper of this hub's workers."""
        return MemoryOverseer(self._place)

    def beside(self) -> MemoryStore:
        """Another store over the same hub, for another worker in this process."""
        self._place.is_shared = True
        return MemoryStore(self.hub, place=self._place)

    @property
    def _tables(self) -> Tables:
        return self._place.tables

    @property
    def _lock(self) -> RLock:
        return self._place.lock

    # -------------------------------------------------------------------------------------- the engine's half

    def open(self) -> Opening:
        with self._lock:
            opening = self._enter()
            self._is_open = True
            self._next_expiry = 0
            return opening

    def reopen(self) -> Opening:
        return self.open()

    def close(self) -> None:
        with self._lock:
            self._is_open = False
            self._leave()

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        with self._lock:
            self._check_open()
            known = self._tables.numbers
            numbers = {known[instance_id] for instance_id in instance_ids if instance_id in known}
            return [self._loaded(self._tables.instances[number]) for number in sorted(numbers)]

    def _loaded(self, row: InstanceRow) -> StoredInstance:
        bare = row.completed_at is not None or row.kind == ENTITY
        found = StoredInstance(row) if bare else self._with_history(row)
        found.placed = frozenset(self._placed(row))
        found.entity_state = self._tables.entity_states.get(row.instance_no)
        found.held = sorted(
            message
            for message in self._tables.inbox.values()
            if message.instance_id == row.instance_id and message.visible_at is None
        )
        return found

    def _placed(self, row: InstanceRow) -> Iterator[tuple[str, int]]:
        # An entity's operations outside the loop belong to execution 0.
        execution_id = execution_id_of(row.salt, 0 if row.kind == ENTITY else row.execution_no)
        if row.completed_at is None:
            for task_id in self._tables.activities.get((row.instance_id, execution_id), ()):
                yield execution_id, task_id

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
                if message.visible_at is not None and self._is_mine(message.instance_id)
            )
            due = sorted(
                (at, number)
                for number, at in self._tables.due.items()
                if at < horizon and self._is_owned(number)
            )
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
        wanted = sorted(number for number in numbers if number > after_no and self._is_owned(number))[:limit]
        return [(number, self._tables.instances[number].instance_id) for number in wanted]

    def _is_owned(self, instance_no: int) -> bool:
        return not self._incarnation or self._is_mine(self._tables.instances[instance_no].instance_id)

    def _is_mine(self, instance_id: str) -> bool:
        if not self._incarnation:
            return True
        owner = self._place.roster.partitions[partition_of(instance_id, self._place.partitions)].incarnation
        return owner == self._incarnation

    def commit(self, batch: Batch) -> None:
        with self._lock:
            self._check_open()
            self._check_fence()
            if batch.purged:
                batch = surviving(batch)
            check(self._tables, batch, self._incarnation)
            late = apply(self._tables, batch, self._incarnation)
            self.late_results += late
            self._release(batch.partitions_released)
            if batch.at >= self._next_expiry:
                self._next_expiry = batch.at + EXPIRY_EVERY
                expire(self._tables, batch.at)

    def maintain(self, now: int) -> None:
        pass

    # --------------------------------------------------------------------------------------------- moving

    def sizes(self) -> dict[str, int]:
        with self._lock:
            self._check_open()
            return {table: len(rows) for table, rows in as_rows(self._tables).items()}

    def export(self, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
        with self._lock:
            self._check_open()
            begin = after[0] if after else 0
            rows = as_rows(self._tables)[table][begin : begin + limit]
            return rows, (begin + len(rows),)

    def begin_import(self) -> Opening:
        demand_empty(self.sizes(), f"the hub {self.hub!r} in memory")
        self._importing = Tables()
        return Opening(1, 1)

    def import_rows(self, table: str, rows: Sequence[Row]) -> None:
        for row in rows:
            import_row(self._importing, table, row)

    def finish_import(self) -> None:
        with self._lock:
            self._place.tables = self._importing

    # -------------------------------------------------------------------------------------- the clients' half

    def get(self, instance_id: str, *, history: History = False) -> StoredInstance | None:
        with self._lock:
            number = self._tables.numbers.get(instance_id)
            if number is None:
                return None
            row = self._tables.instances[number]
            found = self._with_history(row) if wants_history(history, row) else StoredInstance(row)
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
            rows = self._tables.instances.values()
            if wanted.order == "ended":
                ordered = sorted(rows, key=lambda row: (row.completed_at or 0, row), reverse=True)
            else:
                ordered = sorted(rows, reverse=not wanted.oldest_first)
            return [row for row in ordered if self._matches(row, wanted)][: wanted.top]

    def count(self, wanted: InstanceFilter) -> int:
        everywhere = replace(wanted, before_no=None, after_no=None)
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
            and _ended_between(row, wanted.ended_from, wanted.ended_to)
            and not (wanted.name_is_own and row.name.startswith(BUILT_IN))
            and (wanted.waiting_for is None or self._waits_for(row.instance_no, wanted.waiting_for))
            and (not wanted.parked or _is_set_aside(row))
            and wanted.parent in (None, row.parent_id)
            and (wanted.within is None or wanted.within[0] <= row.instance_no <= wanted.within[1])
            and (wanted.before_no is None or row.instance_no < wanted.before_no)
            and (wanted.after_no is None or row.instance_no > wanted.after_no)
        )

    def _waits_for(self, instance_no: int, name: str) -> bool:
        return any(wait.name == name for wait in self._tables.waits.get(instance_no, {}).values())

    def tasks(self, wanted: TaskFilter) -> list[TaskRow]:
        with self._lock:
            found = [
                TaskRow(wait, row.instance_id, row.name, row.tags, row.status)
                for number, waits in self._tables.waits.items()
                for wait in waits.values()
                for row in [self._tables.instances.get(number)]
                if row is not None and _is_wanted(wanted, wait, row)
            ]
        return sorted(found, key=lambda task: due_key(task.wait))[: wanted.top]

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

    def held(self, instance_ids: Sequence[str]) -> list[InboxRow]:
        wanted = set(instance_ids)
        with self._lock:
            rows = self._tables.inbox.values()
            return sorted(row for row in rows if row.visible_at is None and row.instance_id in wanted)

    def counts(self) -> dict[str, int]:
        with self._lock:
            rows = self._tables.instances.values()
            return dict(Counter(str(row.status) for row in rows if row.kind != ENTITY))

    def gauges(self) -> Gauges:
        with self._lock:
            oldest: dict[str, int] = {}
            for row in self._tables.instances.values():
                if row.completed_at is None and _counts_as_old(row):
                    oldest[row.status] = min(oldest.get(row.status, row.created_at), row.created_at)
            waits = Counter(wait.name for some in self._tables.waits.values() for wait in some.values())
        return Gauges(oldest, dict(waits))

    def ring(self, resolution: int) -> list[RingRow]:
        with self._lock:
            return [row for key, row in sorted(self._tables.ring.items()) if key[1] == resolution]

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


def _ended_between(row: InstanceRow, earliest: int | None, latest: int | None) -> bool:
    if earliest is None and latest is None:
        return True
    return (
        row.completed_at is not None
        and row.completed_at >= (earliest or 0)
        and (latest is None or row.completed_at <= latest)
    )


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


def _counts_as_old(row: InstanceRow) -> bool:
    is_built_in = row.kind == ENTITY or row.name.startswith(BUILT_IN)
    return not is_built_in and not row.reason.startswith("scheduled:")


def _is_wanted(wanted: TaskFilter, wait: WaitRow, row: InstanceRow) -> bool:
    key = due_key(wait)
    return (
        wanted.person in ("", wait.holder or wait.assignee)
        and role_text((wanted.role,) if wanted.role else ()) in wait.roles
        and wanted.name in ("", row.name)
        and wanted.event in ("", wait.name)
        and (wanted.due_before is None or key[0] < wanted.due_before)
        and wanted.instance_no in (None, wait.instance_no)
        and (wanted.after is None or key > wanted.after)
    )


def _is_set_aside(row: InstanceRow) -> bool:
    return row.completed_at is None and row.status in ("Pending", "Suspended") and is_parked(row.reason)
