"""Rows: the data that a transaction writes and a store returns.

Rows are plain tuples in the order of their columns, so that a store binds them directly. A `Batch` is
everything that one commit writes; a store applies it completely or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import msgspec

from perdure.model.events import ParentLink
from perdure.model.ring import Move, RingRow


class InstanceRow(NamedTuple):
    """One row of `instances`. It has no bodies: input, output and failure are in history."""

    instance_no: int
    instance_id: str
    partition: int
    kind: str  # orchestration | entity
    name: str
    version: str
    status: str
    reason: str
    execution_no: int
    episodes: int  # rows of the current execution; the next episode's number
    created_at: int
    updated_at: int
    completed_at: int | None
    due_at: int | None  # earliest open timer; null while suspended, parked, finished
    local_work: int  # 1 while an activity placed here is open
    parent_id: str | None
    parent_execution: str | None
    parent_task: int | None
    tags: str | None  # JSON object
    salt: bytes
    head: bytes  # hash of the newest history row of the current execution
    replays: int = 0  # how often its code was recreated from history, in all its executions
    replay_reason: str = ""  # why, the last time; see `engine.core.tenure`

    @property
    def parent(self) -> ParentLink | None:
        if self.parent_id is None:
            return None
        return ParentLink(self.parent_id, self.parent_execution or "", self.parent_task or 0)


class InstanceUpdate(NamedTuple):
    """The columns of `instances` that an episode may change."""

    instance_no: int
    status: str
    reason: str
    execution_no: int
    episodes: int
    updated_at: int
    completed_at: int | None
    due_at: int | None
    local_work: int
    head: bytes
    replays: int = 0
    replay_reason: str = ""


class HistoryRow(NamedTuple):
    """One episode: `events` is a JSON array; see `perdure.model.hash_chain` for digest and hash."""

    instance_no: int
    execution_no: int
    episode: int
    at: int
    events: bytes
    digest: bytes
    hash: bytes


class BodyRow(NamedTuple):
    """A large body, stored apart from its history row."""

    instance_no: int
    execution_no: int
    episode: int
    no: int
    body: bytes


class WaitRow(NamedTuple):
    """An open wait for an external event."""

    instance_no: int
    wait_id: int
    name: str
    since: int
    deadline: int
    schema: bytes | None
    task: bytes | None = None  # JSON of a TaskRecord, for a human task
    roles: str = ""  # those that may decide now, see `role_text`
    holder: str = ""
    held_since: int = 0
    assignee: str = ""


class TaskMove(NamedTuple):
    """Who has claimed an open wait now, and to whom it is assigned."""

    instance_no: int
    wait_id: int
    holder: str
    held_since: int
    assignee: str


class TaskUpdate(NamedTuple):
    """An open human task that an escalation has changed."""

    instance_no: int
    wait_id: int
    task: bytes
    roles: str


class InboxRow(NamedTuple):
    """A message not yet consumed. `visible_at` is null while its instance is suspended or parked."""

    message_no: int
    instance_id: str
    visible_at: int | None
    message: bytes


class SeenRow(NamedTuple):
    """An accepted client operation: a repeat within 24 h gets the first answer."""

    operation_id: str
    instance_id: str
    answer: bytes
    expires_at: int


class DroppedRow(NamedTuple):
    """An accepted message that could not be delivered, and the reason."""

    instance_id: str
    at: int
    kind: str
    name: str
    operation_id: str
    reason: str
    body: bytes


class KeyRow(NamedTuple):
    """A key that callers send (`kind` access) or that signs links (`kind` link).

    `secret` is the digest of an access key, which is itself never stored, or the secret of a signing key.
    """

    key_id: str
    kind: str  # access | link
    name: str  # for people: its holder
    scopes: str  # separated by spaces
    secret: bytes
    created_at: int
    created_by: str
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None  # coarse: to a few minutes


class AuditRow(NamedTuple):
    """One management call, or several equal consecutive ones (`times`)."""

    at: int
    who: str
    address: str
    operation: str
    instance_id: str
    detail: str
    outcome: str  # "ok", or the error code
    times: int = 1


ANSWERED: Final = 0  # no worker's incarnation: the activity has run, and its result is in the inbox


class ActivityRow(NamedTuple):
    """An open activity that any worker of its pool may claim.

    Once claimed, `incarnation` is the claimant and `attempt` counts the claims; a result must match both. The
    row stays until the instance processes the result: otherwise a worker that loads the instance before that
    would find an unclaimed activity and run it again.
    """

    instance_id: str
    execution_id: str
    task_id: int
    pool: str  # "" for every worker that has the function
    name: str
    placed_at: int
    attempt: int
    incarnation: int | None
    invocation: bytes


class ResultRow(NamedTuple):
    """The result of a claimed activity, for the inbox of its instance if the claim is still valid."""

    instance_id: str
    execution_id: str
    task_id: int
    attempt: int
    message_no: int
    message: bytes


class WorkerRow(NamedTuple):
    """A worker of a shared hub, from its registration until it is void.

    Its rights end with its incarnation: another worker that takes over voids the incarnation first.
    """

    incarnation: int
    worker: str  # a name for people
    role: str  # worker | api
    pools: str  # the named pools it serves, separated by spaces
    functions: str  # JSON: {"orchestrators": [...], "activities": [...], "entities": [...]}
    state: str  # living | draining | void
    started_at: int
    lease_until: int


class PartitionRow(NamedTuple):
    """A share of the hub's instances, and the incarnation that currently owns it."""

    partition: int
    incarnation: int | None
    epoch: int  # increases each time it is taken


class Batch(msgspec.Struct):
    """Everything one transaction writes. A struct: one is made for each batch."""

    at: int
    new_instances: list[InstanceRow] = msgspec.field(default_factory=list)
    updates: list[InstanceUpdate] = msgspec.field(default_factory=list)
    moved: set[int] | None = (
        None  # instance_no of updates that change more than every episode does; None: all
    )
    history: list[HistoryRow] = msgspec.field(default_factory=list)
    bodies: list[BodyRow] = msgspec.field(default_factory=list)
    versions: list[tuple[int, str]] = msgspec.field(default_factory=list)  # instance_no, version from now on
    custom_status: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    entity_states: list[tuple[int, bytes]] = msgspec.field(default_factory=list)
    waits_opened: list[WaitRow] = msgspec.field(default_factory=list)
    waits_closed: list[tuple[int, int]] = msgspec.field(
        default_factory=list
    )  # instance_no, wait_id; -1 for all
    task_updates: list[TaskUpdate] = msgspec.field(default_factory=list)
    task_moves: list[TaskMove] = msgspec.field(default_factory=list)
    inbox_added: list[InboxRow] = msgspec.field(default_factory=list)
    inbox_removed: list[int] = msgspec.field(default_factory=list)
    inbox_held: list[int] = msgspec.field(
        default_factory=list
    )  # stored before, now not visible until resumed
    seen: list[SeenRow] = msgspec.field(default_factory=list)
    dropped: list[DroppedRow] = msgspec.field(default_factory=list)
    executions_removed: list[tuple[int, int]] = msgspec.field(
        default_factory=list
    )  # instance_no, below this execution_no
    purged: list[int] = msgspec.field(default_factory=list)  # instance_no
    forgotten: list[str] = msgspec.field(
        default_factory=list
    )  # instance ids whose dropped messages are deleted too
    keys: list[KeyRow] = msgspec.field(default_factory=list)  # new, or replacing the key with the same id
    keys_used: list[tuple[str, int]] = msgspec.field(default_factory=list)  # key_id, when
    audit: list[AuditRow] = msgspec.field(default_factory=list)
    # Only where several workers serve the hub; see `SharedStore`.
    activities_placed: list[ActivityRow] = msgspec.field(default_factory=list)
    activities_removed: list[tuple[str, str, int]] = msgspec.field(
        default_factory=list
    )  # instance_id, execution_id, task_id; -1 for all of the execution
    results: list[ResultRow] = msgspec.field(default_factory=list)
    partitions_released: list[int] = msgspec.field(default_factory=list)
    # The changes of the net counts by status, and the rows of the ring that count them; see `perdure.model.ring`.
    moves: list[Move] = msgspec.field(default_factory=list)
    ring: Sequence[RingRow] = ()  # new, or replacing rows with their keys; the worker's own head comes last
    heads_removed: Sequence[str] = ()  # workers whose heads must be there

    def is_empty(self) -> bool:
        return not (
            self.history
            or self.new_instances
            or self.updates
            or self.inbox_added
            or self.inbox_removed
            or self.inbox_held
            or self.seen
            or self.dropped
            or self.purged
            or self.versions
            or self.custom_status
            or self.entity_states
            or self.waits_opened
            or self.task_moves
            or self.waits_closed
            or self.executions_removed
            or self.keys
            or self.keys_used
            or self.audit
            or self.activities_placed
            or self.activities_removed
            or self.results
            or self.partitions_released
        )


@dataclass(slots=True)
class StoredInstance:
    """One instance from a store: its row and, if requested, the history of one execution."""

    row: InstanceRow
    history: list[HistoryRow] = field(default_factory=list)
    bodies: dict[tuple[int, int], bytes] = field(default_factory=dict)  # (episode, no) -> body
    held: list[InboxRow] = field(default_factory=list)  # messages that wait for its resume
    waits: list[WaitRow] = field(default_factory=list)
    custom_status: bytes | None = None
    entity_state: bytes | None = None
    placed: frozenset[tuple[str, int]] = frozenset()  # execution id, task id of its rows in `activities`


@dataclass(slots=True)
class Poll:
    """Due work: visible messages, and instances whose timer is due before the horizon."""

    messages: list[InboxRow] = field(default_factory=list)
    due: list[tuple[int, str]] = field(default_factory=list)  # due_at, instance_id
    next_visible_at: int | None = None


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """The filter of a query for instances; empty fields do not restrict. Newest first, `top` at most.

    With `oldest_first` the order is reversed. `before_no` and `after_no` are keys of pages: only instances with a
    smaller or a larger instance_no. Stores order by `ended` the finished instances only, the last one first; clients
    order by duration.
    """

    status: tuple[str, ...] = ()
    name: str | None = None
    prefix: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    created_from: int | None = None
    created_to: int | None = None
    ended_from: int | None = None  # only finished instances, by the time of their end
    ended_to: int | None = None
    waiting_for: str | None = None
    parked: bool = False  # only parked instances; see `perdure.model.waiting.is_parked`
    parent: str | None = None  # only sub-orchestrations that an instance of this id started
    kind: str = "orchestration"  # or "entity", or "" for both
    name_is_own: bool = False  # only the application's orchestrators, not those of perdure
    failure: str = ""  # a text in the error of a failed instance; clients search for it, stores do not
    order: Literal["started", "ended", "duration"] = "started"
    within: tuple[int, int] | None = None  # the smallest and the largest instance_no, for a search in parts
    before_no: int | None = None
    after_no: int | None = None
    oldest_first: bool = False
    top: int = 100


class TaskRow(NamedTuple):
    """An open wait with what its instance's row says."""

    wait: WaitRow
    instance_id: str
    name: str
    tags: str | None
    status: str


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """The filter of a list of open waits; empty fields do not restrict. Due first, those without a deadline last.

    `person` holds it or has it assigned; `role` may decide it now. `after` is the key of the last row of the
    previous page: `due_key`, instance_no, wait_id.
    """

    person: str = ""
    role: str = ""
    name: str = ""
    event: str = ""
    due_before: int | None = None
    instance_no: int | None = None
    after: tuple[int, int, int] | None = None
    top: int = 100


NEVER_DUE: Final = 9_223_372_036_854_775_807


def due_key(row: WaitRow) -> tuple[int, int, int]:
    """The place of a wait in a list of tasks."""
    return row.deadline or NEVER_DUE, row.instance_no, row.wait_id


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """The filter of a query of the audit log; empty fields do not restrict. Newest first, `top` at most."""

    who: str | None = None
    operation: str | None = None
    instance_id: str | None = None
    since: int | None = None
    before_no: int | None = None  # keyset: only rows with a smaller number
    top: int = 100
