"""The port: what the engine and its clients ask of a store, and nothing that needs SQL to explain.

Two protocols, for two kinds of caller. `EngineStore` belongs to the loop's thread alone: it opens the hub,
loads instances in bulk, polls what has become due and commits batches, one fenced transaction each.
`ClientStore` answers questions from any thread and never waits for the loop; it sees what is committed.
A commit either happens whole, or raises: `CommitRefused` when one of its values was refused (rolled back for
certain), `StoreFull` when there was no room (rolled back for certain), `FenceLost` when rows it counted on
are not as this incarnation left them (rolled back for certain), any other `StoreError` when nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from perdure.model.records import (
        AuditFilter,
        AuditRow,
        Batch,
        DroppedRow,
        InstanceFilter,
        InstanceRow,
        KeyRow,
        Poll,
        SeenRow,
        StoredInstance,
        WaitRow,
    )


@dataclass(frozen=True)
class Opening:
    """What an engine learns when it opens a hub: the next free numbers."""

    next_instance_no: int
    next_message_no: int


class EngineStore(Protocol):
    """For the loop's thread only."""

    def open(self) -> Opening:
        """Take the hub over, creating or migrating it. Raises StoreInUse, StoreTooNew, StoreUnusable."""

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        """Row, history of the current execution, bodies and held messages of those that exist.

        History is left out for finished instances.
        """

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        """An instance with the history of one execution, for a finished one that is to go on."""

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        """The answers already given to these operations."""

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        """Messages visible at `now` (oldest first) and instances with a timer due before `horizon`.

        At most `limit` messages and `limit` instances.
        """

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        """(instance_no, id) of instances with open local activities, by ascending number, for recovery."""

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        """(instance_no, id) of instances parked for non-determinism or for want of a worker."""

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        """The rows, and nothing else, of those that exist, by ascending number."""

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        """Orchestrations of this status that finished before then, the longest finished first.

        Only those behind `after`: (completed_at, instance_no) of the last one of the page before.
        """

    def commit(self, batch: Batch) -> None:
        """Write the batch, durably, in one transaction. See the module's opening for what it raises."""

    def reopen(self) -> Opening:
        """After an error nobody can judge: drop the connection and take the hub over again."""

    def close(self) -> None:
        """Give the hub up."""


class ClientStore(Protocol):
    """For any thread. Reads only committed state."""

    def get(self, instance_id: str, *, history: bool = False) -> StoredInstance | None:
        """One instance with its waits and custom status; with the current execution's history if asked."""

    def ends(self, rows: Sequence[InstanceRow]) -> dict[int, list[bytes]]:
        """By instance_no: the events (JSON) of the first and, if another, the last row of its execution,
        with bodies that are out of line put back. Input, output and failure are found there."""

    def query(self, wanted: InstanceFilter) -> list[InstanceRow]:
        """Instances that match, newest first."""

    def count(self, wanted: InstanceFilter) -> int:
        """How many instances match, whatever `before_no` and `top` say."""

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        """The open waits of these instances."""

    def custom_status(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        """Their custom status, where they have one."""

    def entity_states(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        """The records of these entities, where they have one; see `model.entities.EntityRecord`."""

    def counts(self) -> dict[str, int]:
        """How many orchestrations stand in each status; entities have none to speak of."""

    def dropped(self, instance_id: str | None, limit: int) -> list[DroppedRow]:
        """Messages that could not be delivered, newest first."""

    def executions(self, instance_no: int) -> list[int]:
        """The executions whose history is kept, ascending."""

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        """An instance with the history of one execution."""

    def keys(self) -> list[KeyRow]:
        """The hub's keys, those that count no more included, in the order of their making."""

    def audit(self, wanted: AuditFilter) -> list[tuple[int, AuditRow]]:
        """Rows of the audit log that match, with their numbers, newest first."""

    def answered(self, operation_id: str) -> SeenRow | None:
        """The answer this operation got, if that is still remembered."""

    def close_reader(self) -> None:
        """Close whatever the calling thread holds open."""


class Store(EngineStore, ClientStore, Protocol):
    """What `open_store` returns. `location` is the file, "" when there is none.

    `maintain` is called every few seconds on a thread of its own (checkpoints, expiry of `seen`).
    """

    location: str

    def maintain(self, now: int) -> None: ...


StoreFactory = Callable[[], Store]
