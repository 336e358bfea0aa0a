"""Fault injection: a store that fails at a chosen call, and simulated crashes of an engine.

    store = FaultyStore(MemoryStore("claims"), FaultPlan({7: Fault.LOSE_ANSWER}))

counts the engine's calls of the store and breaks the seventh: it takes effect, but the engine gets an error.
Count the calls of a successful run, then break each of them in turn, in every way, and require the same result:
that is the crash test of a durable system, and it fits on a page. Without an engine's thread it is also fast
and repeatable: call `Loop.turn(loop.take(wait=False))` yourself.

Only the engine's verbs are counted and broken (`EngineStore`); a client's queries pass.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.errors import CommitRefused, StoreError, StoreFull
from perdure.model import events as ev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from perdure.model.records import (
        AuditFilter,
        AuditRow,
        Batch,
        DroppedRow,
        InboxRow,
        InstanceFilter,
        InstanceRow,
        KeyRow,
        Poll,
        SeenRow,
        StoredInstance,
        WaitRow,
    )
    from perdure.model.ring import RingRow
    from perdure.store.port import Gauges, History, Opening, Store

T = TypeVar("T")


class Crash(BaseException):
    """The process is dead. The engine must not catch this, and its store no longer answers."""


class Fault(StrEnum):
    """The effect of a fault on a call."""

    FAIL = "fails"  # StoreError; it had no effect
    LOSE_ANSWER = "loses its answer"  # StoreError; it took effect all the same
    CRASH_BEFORE = "dies before"  # Crash; it had no effect
    CRASH_AFTER = "dies after"  # Crash; it took effect
    FULL = "finds no room"  # StoreFull; rolled back for certain


class FaultPlan:
    """The planned faults. All fields may be changed while the engine runs.

    Parameters:
        faults: faults by the number of the call, counted from 1 over all the engine's verbs.
        refused: ids of instances whose history rows the store rejects: a commit with one fails for its data,
            unless the row only parks the instance.
        unwritable: ids of instances for which the store rejects every row.
        full: while true, every commit finds no room.
        away: while true, every verb fails, as when the disk or the server is gone.
    """

    def __init__(
        self,
        faults: Mapping[int, Fault] | None = None,
        *,
        refused: Iterable[str] = (),
        unwritable: Iterable[str] = (),
        full: bool = False,
        away: bool = False,
    ) -> None:
        self.faults = dict(faults or {})
        self.refused = set(refused)
        self.unwritable = set(unwritable)
        self.full = full
        self.away = away


class FaultyStore:
    """A store that follows the plan. It represents the store of one process.

    `calls` lists the verbs so far, `fired` the faults that happened: number, verb, fault.
    """

    def __init__(self, store: Store, plan: FaultPlan | None = None) -> None:
        self.inner = store
        self.plan = plan or FaultPlan()
        self.calls: list[str] = []
        self.fired: list[tuple[int, str, Fault]] = []
        self.is_dead = False
        self._ids: dict[int, str] = {}

    @property
    def location(self) -> str:
        """The file, "" when there is none."""
        return self.inner.location

    def restarted(self, plan: FaultPlan | None = None) -> FaultyStore:
        """The store for the next process, released by the dead one."""
        self.is_dead = True
        self.inner.close()
        return FaultyStore(self.inner, plan)

    # ---------------------------------------------------------------------------------- the engine's half

    def open(self) -> Opening:
        return self._call("open", self.inner.open)

    def reopen(self) -> Opening:
        return self._call("reopen", self.inner.reopen)

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        loaded = self._call("load", lambda: self.inner.load(instance_ids))
        self._ids.update((found.row.instance_no, found.row.instance_id) for found in loaded)
        return loaded

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        return self._call("seen", lambda: self.inner.seen(operation_ids))

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        return self._call("poll", lambda: self.inner.poll(now, horizon, limit))

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        return self._call("local_work", lambda: self.inner.local_work(after_no, limit))

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        return self._call("parked", lambda: self.inner.parked(after_no, limit))

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        return self._call("rows", lambda: self.inner.rows(instance_ids))

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        return self._call("finished", lambda: self.inner.finished(status, before, after, limit))

    def commit(self, batch: Batch) -> None:
        self._ids.update((row.instance_no, row.instance_id) for row in batch.new_instances)
        self._call("commit", lambda: self._commit(batch))

    def close(self) -> None:
        """Close the store, unless the process is dead."""
        if not self.is_dead:
            self.inner.close()

    def maintain(self, now: int) -> None:
        if not self.is_dead:
            self.inner.maintain(now)

    def _commit(self, batch: Batch) -> None:
        if self.plan.full:
            raise StoreFull("no space is left, as planned; nothing was changed")
        culprits = sorted(self._culprits(batch))
        if culprits:
            raise CommitRefused(f"a row of {culprits[0]} was rejected, as planned; the batch was rolled back")
        self.inner.commit(batch)

    def _culprits(self, batch: Batch) -> set[str]:
        plan = self.plan
        found: set[str] = set()
        if plan.refused:
            found |= plan.refused & {
                self._ids.get(row.instance_no, "") for row in batch.history if not _only_parks(row.events)
            }
        if plan.unwritable:
            found |= plan.unwritable & self._named_in(batch)
        return found

    def _named_in(self, batch: Batch) -> set[str]:
        """The ids of all instances with rows in the batch."""
        numbers = {row.instance_no for row in batch.updates} | {row.instance_no for row in batch.history}
        ids = {self._ids.get(number, "") for number in numbers}
        ids.update(row.instance_id for row in batch.new_instances)
        ids.update(row.instance_id for row in batch.inbox_added)
        ids.update(row.instance_id for row in batch.seen)
        return ids

    def _call(self, verb: str, take_effect: Callable[[], T]) -> T:
        if self.is_dead:
            raise Crash("this process is dead")
        self.calls.append(verb)
        number = len(self.calls)
        fault = self.plan.faults.get(number)
        if fault is not None:
            self.fired.append((number, verb, fault))
        if fault is Fault.CRASH_BEFORE:
            self._die(number, verb, "before")
        if fault is Fault.FAIL or self.plan.away:
            raise StoreError(f"call {number} ({verb}) failed, as planned")
        if fault is Fault.FULL:
            raise StoreFull(f"call {number} ({verb}) found no space, as planned; nothing was changed")
        answer = take_effect()
        if fault is Fault.CRASH_AFTER:
            self._die(number, verb, "after")
        if fault is Fault.LOSE_ANSWER:
            raise StoreError(f"the answer of call {number} ({verb}) was lost, as planned")
        return answer

    def _die(self, number: int, verb: str, when: str) -> None:
        self.is_dead = True
        raise Crash(f"the process died {when} call {number} ({verb}), as planned")

    # --------------------------------------------------------------------------------- the clients' half

    def get(self, instance_id: str, *, history: History = False) -> StoredInstance | None:
        return self.inner.get(instance_id, history=history)

    def ends(self, rows: Sequence[InstanceRow]) -> dict[int, list[bytes]]:
        return self.inner.ends(rows)

    def query(self, wanted: InstanceFilter) -> list[InstanceRow]:
        return self.inner.query(wanted)

    def count(self, wanted: InstanceFilter) -> int:
        return self.inner.count(wanted)

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        return self.inner.waits(instance_nos)

    def held(self, instance_ids: Sequence[str]) -> list[InboxRow]:
        return self.inner.held(instance_ids)

    def entity_states(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        return self.inner.entity_states(instance_nos)

    def custom_status(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        return self.inner.custom_status(instance_nos)

    def counts(self) -> dict[str, int]:
        return self.inner.counts()

    def gauges(self) -> Gauges:
        return self.inner.gauges()

    def ring(self, resolution: int) -> list[RingRow] | None:
        return self.inner.ring(resolution)

    def dropped(self, instance_id: str | None, limit: int) -> list[DroppedRow]:
        return self.inner.dropped(instance_id, limit)

    def executions(self, instance_no: int) -> list[int]:
        return self.inner.executions(instance_no)

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        return self.inner.history_of(instance_no, execution_no)

    def keys(self) -> list[KeyRow]:
        return self.inner.keys()

    def audit(self, wanted: AuditFilter) -> list[tuple[int, AuditRow]]:
        return self.inner.audit(wanted)

    def answered(self, operation_id: str) -> SeenRow | None:
        return self.inner.answered(operation_id)

    def close_reader(self) -> None:
        self.inner.close_reader()

    def __getattr__(self, name: str) -> Any:
        """Attributes of the store beyond the port."""
        return getattr(self.inner, name)


def _only_parks(events: bytes) -> bool:
    return all(isinstance(event, ev.ExecutionParked) for event in ev.decode_events(events))
