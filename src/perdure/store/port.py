"""The port: what the engine and its clients ask of a store, and nothing that needs SQL to explain.

Two protocols, for two kinds of caller. `EngineStore` belongs to the loop's thread alone: it opens the hub, loads
instances in bulk, polls what has become due and commits batches, one fenced transaction each. `ClientStore`
answers questions from any thread and never waits for the loop; it sees what is committed. A commit either happens
whole, or raises: `CommitRefused` when one of its values was refused (rolled back for certain), `StoreFull` when
there was no room (rolled back for certain), `CommitConflict` when another worker's transaction came between
(rolled back for certain; to be read and done again), `FenceLost` when rows it counted on are not as this
incarnation left them (rolled back for certain), any other `StoreError` when nobody knows.

A third protocol is for hubs that several workers serve at once. Instances are divided into partitions, and each
partition has one owner at a time: only the owner takes messages of its instances from the inbox and writes their
rows. A worker registers as an *incarnation* with a lease, which it renews; every commit is fenced by that row, so
that after a takeover, which voids the incarnation before it reads anything, not one row of it can land. A
partition moves between living workers only by its owner's own commit, and away from dead ones only by a takeover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
        WaitRow,
        WorkerRow,
    )


SHORT: Final = 500
"""Episodes up to which a history is read to tell what its instance waits for."""
History = bool | Literal["short"]
"""Which histories are read with their instances: all, none, or those of `wants_history`."""


def wants_history(wanted: History, row: InstanceRow) -> bool:
    """Whether the history of this instance is asked for."""
    if wanted == "short":
        return row.completed_at is None and row.episodes <= SHORT
    return wanted


@dataclass(frozen=True)
class Opening:
    """What an engine learns when it opens a hub: the next free numbers."""

    next_instance_no: int
    next_message_no: int
    incarnation: int = 0  # of a registered worker; 0 for an engine that has the hub to itself
    partitions: int = 1  # how many the hub has
    owned: frozenset[int] = frozenset()  # those that came over from this worker's own incarnation before
    now: int = 0  # the database's time in microseconds; 0 where the machine's clock counts


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

    def get(self, instance_id: str, *, history: History = False) -> StoredInstance | None:
        """One instance with its waits and custom status; with the current execution's history if asked.

        "short" asks for the history of an instance that has not finished and has at most `SHORT` episodes. A store
        may give more than that.
        """

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

    def held(self, instance_ids: Sequence[str]) -> list[InboxRow]:
        """The messages that wait for these instances to go on, oldest first."""

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


@runtime_checkable
class Examinable(Protocol):
    """A store on a disk, where other programs may have changed rows. From any thread."""

    def flaws(self) -> Iterator[tuple[int, str]]:
        """Rows outside of histories that no engine has written: the number of the instance, or 0, and a sentence."""

    def raw(self, instance_id: str) -> dict[str, list[dict[str, Any]]]:
        """All rows of an instance by table, as they are stored, also where they are damaged; empty for none."""


@dataclass(frozen=True)
class Profile:
    """Who registers: what other workers and operators see of a worker. `lease` is in microseconds."""

    worker: str
    role: str  # worker | api
    pools: tuple[str, ...]
    functions: str  # JSON, see WorkerRow
    lease: int


@dataclass(frozen=True)
class Census:
    """Who is there, as the database sees it at `now` (microseconds): incarnations not void, and all partitions."""

    now: int
    workers: tuple[WorkerRow, ...]
    partitions: tuple[PartitionRow, ...]


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store whose hub several workers may serve at once. For the loop's thread, where nothing else is said.

    Without `register`, `open` takes the whole hub for this object alone and raises StoreInUse while workers are
    registered or another has it; that is how tools that move or check a hub open it. After `register`:
    * `open` and `reopen` take a new incarnation, before anything is read. One that this object had before is
      voided first, in a way that waits for a commit of it still under way; if it was not void yet, its partitions
      and claims come over to the new one.
    * `poll`, `local_work` and `parked` tell of owned partitions only. `load`, `rows`, `seen` and `history_of`
      know no partitions.
    * `commit` raises FenceLost when the incarnation is void. It may add messages for any partition.
      `activities_placed` are inserted, `activities_removed` deleted if they are there. A row of `results` adds
      its message and leaves its activity ANSWERED, or does neither and counts in `late_results` when the claim
      (attempt and incarnation) does not hold any more. `partitions_released` are without an owner afterwards.
    * `close` voids the incarnation, if the database can be reached.
    """

    is_shared: bool
    place: (
        str  # names database and hub, without a password, for what a machine keeps about them; "" in memory
    )
    late_results: int

    def register(self, profile: Profile) -> None:
        """Serve beside others from the next `open` on."""

    def renew(self) -> bool:
        """Prolong the lease, on a connection of its own and from any thread; False when the incarnation is void.

        Raises StoreError when the database cannot be asked.
        """

    def drain(self) -> None:
        """Tell the others that this worker is about to leave: it gets no partitions any more."""

    def census(self) -> Census:
        """Who is there. From any thread."""

    def expire(self, incarnations: Sequence[int]) -> None:
        """Their processes are dead, which is known for certain: their leases end now, and `void` can follow."""

    def void(self, incarnation: int) -> bool:
        """Take over from a worker whose lease has run out: void it, and free its partitions and claims.

        Returns False when there is nothing to take over: it was voided, or has renewed its lease meanwhile, or is
        in the middle of a commit that does not end soon.
        """

    def take(self, partitions: Sequence[int]) -> list[int]:
        """Become the owner of those that have none; returns which. Raises FenceLost when this one is void."""

    def claim(self, pools: Sequence[str], names: Sequence[str], limit: int) -> list[ActivityRow]:
        """Claim activities of these pools and names that nobody has, the oldest first."""

    def claims(self) -> list[ActivityRow]:
        """All that is claimed by this worker, without what is in it."""

    def unclaim(self, activities: Sequence[tuple[str, str, int]]) -> None:
        """Let others claim these (instance id, execution id, task id), if they are claimed by this worker."""

    def placed(self, instance_ids: Sequence[str]) -> list[ActivityRow]:
        """The activities of these instances that have rows, without what is in them. From any thread."""

    def notify(self, incarnations: Sequence[int]) -> None:
        """A hint to these workers that there is something in the inbox. May be lost, and never raises."""

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard`, from a thread of the store's own, when there is a hint for this worker. Ends with `close`."""


class Overseer(Protocol):
    """What a process that supervises workers does for them, by the names it gave them. For one thread at a time.

    `lease` is in microseconds. Raises StoreError when the database cannot be asked.
    """

    def prolong(self, names: Sequence[str], lease: int) -> list[str]:
        """Have the leases of these, where they are not void, last for so long from now; never shorten one.

        Returns the names of which something is registered.
        """

    def expire(self, names: Sequence[str], lease: int) -> list[str]:
        """These are dead: let their leases end now, so that others take over at once. Returns as `prolong` does."""

    def close(self) -> None:
        """Close the connection."""


def shared(store: ClientStore) -> SharedStore | None:
    """The store, if several workers may serve its hub."""
    return store if getattr(store, "is_shared", False) else None  # type: ignore[return-value]


StoreFactory = Callable[[], Store]
