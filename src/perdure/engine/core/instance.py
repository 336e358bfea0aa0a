"""A loaded instance: the facts of its row, and, while it is warm, its suspended code.

The code is a cache. Replaying history creates it when a message must be processed, and it may be closed at any
moment between batches. The changes of a batch are collected in `outcome` (the open episode) until the batch is
sealed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import Any, Final, Protocol

import msgspec

from perdure.engine.core.entity_state import LiveEntity, flight_of
from perdure.model import events as ev
from perdure.model import hash_chain
from perdure.model.damaged import why_damaged
from perdure.model.entities import ENTITY, ORCHESTRATION
from perdure.model.events import ParentLink
from perdure.model.human_tasks import TaskRecord
from perdure.model.instances import FINISHED, RuntimeStatus, execution_id_of
from perdure.model.recorded import DAMAGED, read
from perdure.model.records import InstanceRow, InstanceUpdate, StoredInstance
from perdure.model.ring import UNKNOWN, Move, key_of
from perdure.replay.decide import Execution
from perdure.replay.settle import Outcome
from perdure.replay.state import fold

ANY: Final = range(2**62)


class Closes(Protocol):
    """Closes an instance's code."""

    def close(self, instance: Instance, execution: Execution) -> None: ...


class HeldTask(msgspec.Struct, frozen=True):
    """The row of an open wait, as far as people are concerned; `record` is None for a plain wait."""

    name: str
    record: TaskRecord | None = None
    holder: str = ""
    held_since: int = 0
    assignee: str = ""


class Instance:
    __slots__ = (
        "between",
        "children",
        "completed_at",
        "counted",
        "created_at",
        "custom_status",
        "custom_status_known",
        "damage",
        "dirty",
        "due_at",
        "ending",
        "endings",
        "entity_state",
        "episodes",
        "execution",
        "execution_id",
        "execution_no",
        "feeds",
        "head",
        "instance_id",
        "is_new",
        "last_at",
        "name",
        "no",
        "open_local",
        "outcome",
        "parent",
        "partition",
        "placed",
        "purged",
        "reason",
        "relived",
        "replay_reason",
        "replays",
        "salt",
        "saved_facts",
        "saved_waits",
        "size",
        "status",
        "stored",
        "tags",
        "tasks",
        "touched_at",
        "trace",
        "updated_at",
        "version",
        "waiting",
        "written",
    )

    def __init__(
        self,
        *,
        no: int,
        instance_id: str,
        partition: int,
        name: str,
        version: str,
        salt: bytes,
        created_at: int,
        parent: ParentLink | None,
        tags: str | None,
        execution_no: int = 1,
    ) -> None:
        self.no = no
        self.instance_id = instance_id
        self.partition = partition
        self.name = name
        self.version = version
        self.salt = salt
        self.created_at = created_at
        self.parent = parent
        self.tags = tags
        self.trace = ""  # of its execution, while its code is in memory
        self.endings: dict[int, int] | None = None  # how often activities ended before a rewind, for a tracer
        self.relived: Any = None  # the history of which its code was just created, for a tracer
        self.status = RuntimeStatus.Pending
        self.reason = ""
        self.replays = 0
        self.replay_reason = ""
        self.damage = ""  # the damage of its rows: it can be shown, exported and purged, but not run
        self.updated_at = created_at
        self.completed_at: int | None = None
        self.due_at: int | None = None
        self.open_local = 0
        self.placed: set[tuple[str, int]] | None = None  # open activities with a row for any worker
        self.saved_waits = 0
        self.tasks: dict[int, HeldTask] | None = None  # by wait; unknown until a message is about one
        self.saved_facts: tuple[object, ...] | None = None
        self.last_at = 0
        self.execution: Execution | None = None
        self.stored: StoredInstance | None = None
        self.children: dict[int, str] | None = None
        self.waiting: list[Any] | deque[Any] | None = None
        self.entity_state: LiveEntity | None = None  # of an entity
        self.ending: ev.Ending | None = None
        self.custom_status: bytes | None = None
        self.custom_status_known = True
        self.size = 0
        self.touched_at = created_at
        self.between = False
        self.begin_execution(execution_no)
        # created in the current batch
        self.is_new = True
        self.counted = ""  # the key under which the ring counts it
        self.purged = False
        self.dirty = False
        self.written = False
        self.feeds = 0
        self.outcome: Outcome | None = None

    @classmethod
    def from_stored(cls, stored: StoredInstance) -> Instance:
        """An instance from its row, without its code."""
        row = stored.row
        instance = cls(
            no=row.instance_no,
            instance_id=row.instance_id,
            partition=row.partition,
            name=row.name,
            version=row.version,
            salt=row.salt,
            created_at=row.created_at,
            parent=row.parent,
            tags=row.tags,
            execution_no=row.execution_no,
        )
        instance.is_new = False
        instance.custom_status_known = False
        instance.status = RuntimeStatus(row.status)
        instance.reason = row.reason
        instance.replays, instance.replay_reason = row.replays, row.replay_reason
        instance.updated_at = row.updated_at
        instance.completed_at = row.completed_at
        instance.due_at = row.due_at
        instance.open_local = row.local_work
        instance.placed = set(stored.placed) or None
        # A damaged row may count too few episodes: the next one must not collide with an existing row.
        instance.episodes = max(row.episodes, *(one.episode + 1 for one in stored.history[-1:]), 0)
        instance.head = row.head
        instance.written = row.episodes > 0
        instance.saved_waits = int(not instance.is_finished)  # unknown until its history is replayed
        instance.damage = why_damaged(row)
        instance.counted = UNKNOWN if instance.damage else key_of(row.status, row.reason)
        if row.kind == ENTITY:
            instance.entity_state = instance._entity_state_of(stored.entity_state)
            # An applied operation may have a row, too: its worker did not know that it was applied.
            instance.entity_state.flying = flight_of(instance, instance.entity_state) in stored.placed
        else:
            instance.stored = stored
        return instance

    def _entity_state_of(self, stored: bytes | None) -> LiveEntity:
        """An entity's record. An unreadable record must not be treated as empty, or it would be overwritten."""
        try:
            return LiveEntity(stored)
        except msgspec.MsgspecError as error:
            self.damage = self.damage or f"{DAMAGED}: the record of the entity cannot be read: {error}"
            self.status, self.reason, self.due_at = RuntimeStatus.Suspended, self.damage, None
            return LiveEntity()

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def is_running(self) -> bool:
        return self.status is RuntimeStatus.Running

    def begin_execution(self, execution_no: int) -> None:
        """Switch to a new execution, with no rows and a new chain."""
        self.execution_no = execution_no
        self.execution_id = execution_id_of(self.salt, execution_no)
        self.episodes = 0
        self.head = hash_chain.base_of(self.salt, execution_no)

    def episode(self, now: int) -> Outcome:
        """The open episode of this batch, created if necessary."""
        outcome = self.outcome
        if outcome is None:
            outcome = self.outcome = Outcome(self.instance_id, self.execution_id, self.name, self.trace)
            self.last_at = max(now, self.last_at, self.updated_at if not self.is_new else 0)
            outcome.at = self.last_at
            if self.execution is not None:
                self.execution.begin_episode(self.last_at)
        return outcome

    def belongs_to(self, trace: str) -> None:
        """Set the trace of its execution, which calls and sub-orchestrations inherit."""
        self.trace = trace
        if self.outcome is not None:
            self.outcome.trace = trace

    def recorded(self) -> list[tuple[int, list[ev.HistoryEvent]]]:
        """The stored history, checked, decoded, with its bodies restored. Raises msgspec.DecodeError."""
        assert self.stored is not None
        return read(self.stored)

    def note_custom_status(self) -> None:
        """Save the last custom status before the code is closed, also one of an earlier execution."""
        if self.execution is not None:
            status = self.execution.status
            if status is not None or self.execution_no == 1:
                self.custom_status, self.custom_status_known = status, True

    def count_replay(self, reason: str) -> None:
        """Count that the code was brought back. The row of the next episode has the count."""
        self.replays += 1
        self.replay_reason = reason

    def put_away(self, running: Closes) -> None:
        """Close the code. Actions of its `finally:` blocks are ignored."""
        execution, self.execution = self.execution, None
        if execution is not None:
            running.close(self, execution)

    def has_moved(self) -> bool:
        """Whether a column that few episodes change differs from its last written value."""
        facts = (self.status, self.reason, self.completed_at, self.due_at, self.open_local > 0, self.replays)
        moved = facts != self.saved_facts
        self.saved_facts = facts
        return moved

    def move(self) -> Move | None:
        """The change of the net counts by status since the last one; None without a change."""
        before, after = self.counted, key_of(self.status._value_, self.reason)
        if before == after:
            return None
        self.counted = after
        completed_at = self.completed_at
        return (
            self.name,
            before,
            after,
            -1 if completed_at is None else max(0, completed_at - self.created_at),
        )

    def row(self) -> InstanceRow:
        """The row of a new instance."""
        parent = self.parent
        return InstanceRow(
            self.no,
            self.instance_id,
            self.partition,
            ENTITY if self.entity_state is not None else ORCHESTRATION,
            self.name,
            self.version,
            self.status._value_,  # `value` is the same, through two calls
            self.reason,
            self.execution_no,
            self.episodes,
            self.created_at,
            self.updated_at,
            self.completed_at,
            self.due_at,
            int(self.open_local > 0),
            parent.instance_id if parent else None,
            parent.execution_id if parent else None,
            parent.task_id if parent else None,
            self.tags,
            self.salt,
            self.head,
            self.replays,
            self.replay_reason,
        )

    def update(self) -> InstanceUpdate:
        """The changes of this batch to the row of an existing instance."""
        return InstanceUpdate(
            self.no,
            self.status._value_,
            self.reason,
            self.execution_no,
            self.episodes,
            self.updated_at,
            self.completed_at,
            self.due_at,
            int(self.open_local > 0),
            self.head,
            self.replays,
            self.replay_reason,
        )


def open_activities(stored: StoredInstance) -> tuple[str, Container[int]]:
    """The stored execution and its open activities; all activities when its history cannot be read."""
    row = stored.row
    if (
        row.kind == ENTITY
    ):  # its operations outside the loop belong to execution 0, numbered by applied operations
        try:
            execution_id, due = flight_of(row, LiveEntity(stored.entity_state))
        except msgspec.MsgspecError:
            return execution_id_of(row.salt, 0), ANY
        return execution_id, (due,) if row.completed_at is None else ()
    execution_id = execution_id_of(row.salt, row.execution_no)
    if row.completed_at is not None:
        return execution_id, ()
    try:
        return execution_id, fold(Instance.from_stored(stored).recorded()).activities
    except (msgspec.MsgspecError, KeyError):
        return execution_id, ANY


def scheduled_at(reason: str) -> int:
    """The start time of a Pending instance, from its row's reason; 0 if it has none."""
    kind, _, at = reason.partition(":")
    return int(at) if kind == "scheduled" and at.isdigit() else 0
