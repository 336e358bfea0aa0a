"""The port of a store: the operations that the engine and its clients need, independent of SQL.

There are two protocols for two kinds of caller. `EngineStore` belongs to the loop's thread alone: it opens the
hub, loads instances in bulk, polls due messages and timers, and commits batches, each in one fenced
transaction. `ClientStore` answers queries from any thread and never waits for the loop; it reads committed
state. A commit either succeeds completely or raises: `CommitRefused` for a rejected value (certainly rolled
back), `StoreFull` without space (certainly rolled back), `CommitConflict` for a conflict with another worker's
transaction (certainly rolled back; read and retry), `FenceLost` when rows are not as this incarnation left them
(certainly rolled back), any other `StoreError` when the outcome is unknown.

A third protocol is for hubs that several workers serve at once. Instances are divided into partitions, and each
partition has one owner at a time: only the owner takes messages of its instances from the inbox and writes
their rows. A worker registers as an *incarnation* with a lease, which it renews; every commit is fenced by that
row, so that after a takeover, which voids the incarnation before it reads anything, no row of the incarnation
can be committed. A partition moves between live workers only by its owner's own commit, and away from dead ones
only by a takeover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from perdure.model.records import (
        ActivityRow,
        AuditFilter,
        AuditRow,
        Batch,
        DroppedRow,
        InboxRow,
        InstanceFilter,
        InstanceRow,
        KeyRow,
        PartitionRow,
        Poll,
        SeenRow,
        StoredInstance,
        TaskFilter,
        TaskRow,
        WaitRow,
        WorkerRow,
    )
    from perdure.model.ring import RingRow


SHORT: Final = 500
"""The maximal number of episodes of a "short" history, which is read for an instance's waits."""
History = bool | Literal["short"]
"""The histories to read with instances: all, none, or those of `wants_history`."""


def wants_history(wanted: History, row: InstanceRow) -> bool:
    """Whether to read the history of this instance."""
    if wanted == "short":
        return row.completed_at is None and row.episodes <= SHORT
    return wanted


@dataclass(frozen=True)
class Opening:
    """The result of opening a hub: the next free numbers."""

    next_instance_no: int
    next_message_no: int
    incarnation: int = 0  # of a registered worker; 0 for an exclusive engine
    partitions: int = 1  # the number of partitions of the hub
    owned: frozenset[int] = frozenset()  # those inherited from this worker's previous incarnation
    now: int = 0  # the database's time in microseconds; 0 if the machine's clock applies
    worker: str = field(default="", compare=False)  # the key of this worker's rows in the ring
    # The heads and hours of this worker, and of those that are void; see `perdure.model.ring`.
    ring: tuple[RingRow, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Gauges:
    """What a store holds, for metrics.

    `oldest` is, by status, when the oldest unfinished orchestration was created, in microseconds; without built-in
    ones, and without those that wait for the time of their start. `waits` counts the open waits by the name of the
    event. `size` is in bytes, 0 in memory.
    """

    oldest: dict[str, int]
    waits: dict[str, int]
    size: int = 0


class EngineStore(Protocol):
    """For the loop's thread only."""

    def open(self) -> Opening:
        """Open the hub, creating or migrating it. Raises StoreInUse, StoreTooNew, StoreUnusable."""

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        """Row, history of the current execution, bodies and held messages of the existing instances.

        History is left out for finished instances.
        """

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        """An instance with the history of one execution, for a finished one that continues."""

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        """The stored answers of these operations."""

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        """Messages visible at `now` (oldest first) and instances with a timer due before `horizon`.

        At most `limit` messages and `limit` instances.
        """

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        """(instance_no, id) of instances with open local activities, by ascending number, for recovery."""

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        """(instance_no, id) of instances parked for non-determinism or for a missing worker."""

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        """Only the rows of the existing instances, by ascending number."""

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        """The open waits of these instances."""

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        """Orchestrations of this status that finished before `before`, the oldest first.

        Only those after `after`: (completed_at, instance_no) of the last one of the previous page.
        """

    def commit(self, batch: Batch) -> None:
        """Write the batch, durably, in one transaction. The module's docstring lists the errors."""

    def reopen(self) -> Opening:
        """After an error with an unknown outcome: drop the connection and open the hub again."""

    def close(self) -> None:
        """Release the hub."""


class ClientStore(Protocol):
    """For any thread. Reads only committed state."""

    def get(self, instance_id: str, *, history: History = False) -> StoredInstance | None:
        """One instance with its waits and custom status; with the current execution's history on request.

        "short" requests the history only of an unfinished instance with at most `SHORT` episodes. A store may
        return more.
        """

    def ends(self, rows: Sequence[InstanceRow]) -> dict[int, list[bytes]]:
        """By instance_no: the events (JSON) of the first and the last row of its execution, with large bodies
        restored. They contain input, output and failure.
        """

    def query(self, wanted: InstanceFilter) -> list[InstanceRow]:
        """Instances that match, newest first."""

    def count(self, wanted: InstanceFilter) -> int:
        """The number of matching instances, ignoring `before_no` and `top`."""

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        """The open waits of these instances."""

    def tasks(self, wanted: TaskFilter) -> list[TaskRow]:
        """Open waits that match, due first, those without a deadline last."""

    def custom_status(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        """The custom statuses of these instances."""

    def entity_states(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        """The records of these entities; see `model.entities.EntityRecord`."""

    def held(self, instance_ids: Sequence[str]) -> list[InboxRow]:
        """The held messages of these instances, oldest first."""

    def counts(self) -> dict[str, int]:
        """The number of orchestrations in each status, without entities."""

    def gauges(self) -> Gauges:
        """What the store holds. It may read an index of all unfinished instances and open waits."""

    def ring(self, resolution: int) -> list[RingRow] | None:
        """The rows of the ring with this resolution (`HEAD`, `MINUTE` or `HOUR`), of all workers.

        None if the store has an earlier schema without a ring. `perdure.model.ring` reads them: `counts_of(heads)`
        is the exact number of instances by status, and `slots_of` what happened in each minute or hour. The cost is
        that of a few rows for each worker, whatever the number of instances.
        """

    def dropped(self, instance_id: str | None, limit: int) -> list[DroppedRow]:
        """Messages that could not be delivered, newest first."""

    def executions(self, instance_no: int) -> list[int]:
        """The executions with a kept history, ascending."""

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        """An instance with the history of one execution."""

    def keys(self) -> list[KeyRow]:
        """The hub's keys, including expired and revoked ones, in the order of creation."""

    def audit(self, wanted: AuditFilter) -> list[tuple[int, AuditRow]]:
        """Rows of the audit log that match, with their numbers, newest first."""

    def answered(self, operation_id: str) -> SeenRow | None:
        """The stored answer of this operation, if any."""

    def close_reader(self) -> None:
        """Close the calling thread's connections."""


class Store(EngineStore, ClientStore, Protocol):
    """A store, as `open_store` returns it. `location` is the file, "" without one.

    `maintain` is called every few seconds on a thread of its own (checkpoints, expiry of `seen`).
    """

    location: str

    def maintain(self, now: int) -> None: ...


@runtime_checkable
class Examinable(Protocol):
    """A store on disk, whose rows other programs may have changed. From any thread."""

    def flaws(self) -> Iterator[tuple[int, str]]:
        """Damaged rows outside of histories: the number of the instance, or 0, and a sentence."""

    def raw(self, instance_id: str) -> dict[str, list[dict[str, Any]]]:
        """All rows of an instance by table, as stored, damaged ones included; empty without rows."""


@dataclass
class Walked:
    """What a walk through a log has seen. `problems` are sentences."""

    first: int = 0  # the position of the first record
    end: int = 0  # the position behind the last one
    bodies: int = 0  # blobs with the content of a record
    snapshots: int = 0
    problems: list[str] = field(default_factory=list)


@runtime_checkable
class Walkable(Protocol):
    """A store whose commits are a chain of records. From any thread."""

    def walk(self) -> Walked:
        """Check that the records are one chain without a gap, and that the snapshots agree with it.

        Damage never raises. Raises StoreError if the service does not answer.
        """


@dataclass(frozen=True)
class Profile:
    """The registration of a worker, visible to other workers and operators. `lease` is in microseconds."""

    worker: str
    role: str  # worker | api
    pools: tuple[str, ...]
    functions: str  # JSON, see WorkerRow
    lease: int


@dataclass(frozen=True)
class Census:
    """The workers and partitions at the database's time `now` (microseconds): incarnations that are not void,
    and all partitions.
    """

    now: int
    workers: tuple[WorkerRow, ...]
    partitions: tuple[PartitionRow, ...]


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store whose hub several workers may serve at once. For the loop's thread, unless stated otherwise.

    Without `register`, `open` takes the hub exclusively and raises StoreInUse while workers are registered or
    another process has it; tools that move or check a hub open it so. After `register`:
    * `open` and `reopen` take a new incarnation, before anything is read. The object's earlier incarnation is
      voided first, after a commit in progress; if it was not void yet, its partitions and claims move to the new
      one.
    * `poll`, `local_work` and `parked` return owned partitions only. `load`, `rows`, `seen` and `history_of`
      ignore partitions.
    * `commit` raises FenceLost if the incarnation is void. It may add messages for any partition.
      `activities_placed` are inserted, `activities_removed` deleted if they exist. A row of `results` adds its
      message and marks its activity ANSWERED, or does neither and counts in `late_results` if the claim (attempt
      and incarnation) is no longer valid. `partitions_released` have no owner afterwards.
    * `close` voids the incarnation, if the database can be reached.
    """

    is_shared: bool
    place: str  # names database and hub, without a password, for files on the machine; "" in memory
    late_results: int

    def register(self, profile: Profile) -> None:
        """Open the hub as one of several workers from the next `open` on."""

    def renew(self) -> bool:
        """Renew the lease, on a connection of its own and from any thread; False if the incarnation is void.

        Raises StoreError when the database cannot be reached.
        """

    def drain(self) -> None:
        """Mark this worker as leaving, so that it gets no more partitions."""

    def census(self) -> Census:
        """The current workers and partitions. From any thread."""

    def expire(self, incarnations: Sequence[int]) -> None:
        """End the leases of workers whose processes are certainly dead, so that `void` can follow."""

    def void(self, incarnation: int) -> bool:
        """Take over from a worker with an expired lease: void it, and free its partitions and claims.

        Returns False without effect if the worker is already void, has renewed its lease, or is in a commit
        that does not end soon.
        """

    def take(self, partitions: Sequence[int]) -> list[int]:
        """Take free partitions; returns those taken. Raises FenceLost if this incarnation is void."""

    def claim(self, pools: Sequence[str], names: Sequence[str], limit: int) -> list[ActivityRow]:
        """Claim unclaimed activities of these pools and names, the oldest first."""

    def claims(self) -> list[ActivityRow]:
        """All activities claimed by this worker, without their content."""

    def unclaim(self, activities: Sequence[tuple[str, str, int]]) -> None:
        """Release this worker's claims of these activities (instance id, execution id, task id)."""

    def placed(self, instance_ids: Sequence[str]) -> list[ActivityRow]:
        """The activity rows of these instances, without their content. From any thread."""

    def notify(self, incarnations: Sequence[int]) -> None:
        """Notify these workers of messages in the inbox. A notification may be lost; never raises."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard`, from a thread of the store's own, on each notification for this worker. Ends with
        `close`.
        """


class Overseer(Protocol):
    """The lease keeper of a supervisor, for workers by name. For one thread at a time.

    `lease` is in microseconds. Raises StoreError when the database cannot be reached.
    """

    def prolong(self, names: Sequence[str], lease: int) -> list[str]:
        """Extend the leases of these workers to `lease` from now, unless void; never shorten one.

        Returns the registered names.
        """

    def expire(self, names: Sequence[str], lease: int) -> list[str]:
        """End the leases of these dead workers, so that others take over at once. Returns as `prolong` does."""

    def close(self) -> None:
        """Close the connection."""


def shared(store: ClientStore) -> SharedStore | None:
    """The store, if several workers may serve its hub."""
    return store if getattr(store, "is_shared", False) else None  # type: ignore[return-value]


StoreFactory = Callable[[], Store]
