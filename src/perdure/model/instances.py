"""Instances: their ids, statuses, and the status that a client sees."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec

from perdure.errors import InvalidInstanceId
from perdure.failure import Failure
from perdure.model.durations import stamp
from perdure.model.names import is_text
from perdure.model.waiting import Waiting, is_parked

if TYPE_CHECKING:
    from perdure.model.events import ParentLink

ID_LIMIT: Final = 256  # characters (Azure documents 100 and accepts more)
CHILD_MARK: Final = "::"
"""Derived ids of sub-orchestrations contain this; ids chosen by users must not."""
SPREAD_MARK: Final = "~"
"""The end of a derived id whose sub-orchestration is placed by its own id, apart from its root."""
PARTITIONS: Final = 256
"""How many partitions a new hub in PostgreSQL has, unless a setting says otherwise. A hub keeps its number."""
MOST_PARTITIONS: Final = 4_096


class RuntimeStatus(StrEnum):
    """The status of an instance. The names are Azure's `OrchestrationRuntimeStatus`."""

    Pending = "Pending"
    Running = "Running"
    Suspended = "Suspended"
    Completed = "Completed"
    Failed = "Failed"
    Terminated = "Terminated"
    Canceled = "Canceled"
    ContinuedAsNew = "ContinuedAsNew"

    @property
    def is_finished(self) -> bool:
        return self in FINISHED


OrchestrationRuntimeStatus = RuntimeStatus
FINISHED: Final = frozenset(
    {RuntimeStatus.Completed, RuntimeStatus.Failed, RuntimeStatus.Terminated, RuntimeStatus.Canceled}
)
_FORBIDDEN: Final = frozenset("/\\#?")


def check_instance_id(instance_id: object, *, derived: bool = False) -> str:
    """Return the id if it obeys Azure's rules, else raise `InvalidInstanceId` naming the rule.

    1 to 256 characters; no leading "@" (reserved for entities); none of / \\ # ? and no control characters; and
    no "::", which marks derived ids of sub-orchestrations.
    """
    if not isinstance(instance_id, str):
        raise InvalidInstanceId(f"an instance id must be a string, not {type(instance_id).__name__}")
    broken = _broken_rule(instance_id, derived)
    if broken:
        shown = instance_id if len(instance_id) <= 60 else instance_id[:57] + "..."
        raise InvalidInstanceId(f"instance id {shown!r} {broken}")
    return instance_id


def asked_id(instance_id: object) -> str:
    """The id of an instance that may exist. Raises `InvalidInstanceId` for a value that no store accepts."""
    if not isinstance(instance_id, str):
        raise InvalidInstanceId(f"an instance id must be a string, not {type(instance_id).__name__}")
    if not is_text(instance_id):
        raise InvalidInstanceId(
            f"instance id {ascii(instance_id)[:60]} contains NUL or a lone surrogate: no instance has such an id"
        )
    return instance_id


def _broken_rule(instance_id: str, derived: bool) -> str:
    if not instance_id or len(instance_id) > (4 * ID_LIMIT if derived else ID_LIMIT):
        return f"has {len(instance_id)} characters: an id has 1 to {ID_LIMIT}"
    if instance_id in (".", ".."):
        return "is a relative path in URLs"
    if instance_id[0] == "@":
        return "begins with '@', which is reserved for entities"
    if not _FORBIDDEN.isdisjoint(instance_id):
        return "contains one of / \\ # ?, which are reserved in URLs"
    if not instance_id.isprintable():
        return "contains a control or other unprintable character"
    if not derived and CHILD_MARK in instance_id:
        return f"contains {CHILD_MARK!r}, which is reserved for sub-orchestrations"
    return ""


def execution_id_of(salt: bytes, execution_no: int) -> str:
    """The permanent id of an execution, unique even if the instance id is purged and reused."""
    return f"{salt[:4].hex()}-{execution_no}"


def child_id_of(instance_id: str, execution_id: str, task_id: int, *, spread: bool = False) -> str:
    """The derived id of a sub-orchestration; unique because the execution id is."""
    root = instance_id if len(instance_id) <= ID_LIMIT else sha256(instance_id.encode()).hexdigest()
    return f"{root}{CHILD_MARK}{execution_id}.{task_id}{SPREAD_MARK if spread else ''}"


def is_derived(instance_id: str, parent: ParentLink) -> bool:
    """Whether `child_id_of` gives this id to the child of that call, so that no other instance has it."""
    derived = f"{CHILD_MARK}{parent.execution_id}.{parent.task_id}"
    return instance_id.removesuffix(SPREAD_MARK).endswith(derived)


def check_child_id(instance_id: object, parent_id: str) -> str:
    """Return the id that code chose for a sub-orchestration, or raise `InvalidInstanceId`.

    The id may be built from the parent's id, which may be a derived one.
    """
    derived = isinstance(instance_id, str) and CHILD_MARK in parent_id and parent_id in instance_id
    return check_instance_id(
        instance_id, derived=derived and CHILD_MARK not in str(instance_id).replace(parent_id, "", 1)
    )


def partition_of(instance_id: str, partitions: int) -> int:
    """The partition of an id. A derived child id hashes like its root, so that families share a partition.

    A spread child hashes by its own id, together with its own family.
    """
    if partitions == 1:
        return 0
    root = _root_of(instance_id) if CHILD_MARK in instance_id else instance_id
    return int.from_bytes(sha256(root.encode()).digest()[:4], "big") % partitions


def _root_of(instance_id: str) -> str:
    if instance_id.endswith(SPREAD_MARK):
        return instance_id
    spread, mark, _ = instance_id.rpartition(SPREAD_MARK + CHILD_MARK)
    return spread + SPREAD_MARK if mark else instance_id.split(CHILD_MARK, 1)[0]


class OrchestrationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of one instance (Azure's `DurableOrchestrationStatus`, with more).

    `reason` is why an instance is Suspended: "operator", "nondeterminism", "poison", "damaged" or "no_worker",
    with the explanation after a colon; "nondeterminism: misfit" for a value that no longer fits its type.
    `waiting_for` is one sentence. `replays` counts how often a worker recreated the instance's code from its
    history, in all its executions, and `replay_reason` is why it did the last time: "restart" of the worker,
    "evicted" from memory before, "takeover" by another worker, "rewind" or "resume"; "" if it never did. Both count
    with the next step of the instance. `history` has JSON-ready events if requested, and `executions` then lists the
    executions with history, oldest first (see `keep_executions` of `App`).
    """

    instance_id: str
    name: str
    runtime_status: RuntimeStatus
    created_time: datetime
    last_updated_time: datetime
    input: Any = None
    output: Any = None
    custom_status: Any = None
    failure: Failure | None = None
    reason: str = ""
    waiting_for: str = ""
    waiting: Waiting | None = None
    version: str = ""
    execution_id: str = ""
    parent_instance_id: str | None = None
    tags: dict[str, str] = {}
    completed_time: datetime | None = None
    history: list[dict[str, Any]] | None = None
    executions: list[int] = []
    replays: int = 0
    replay_reason: str = ""

    @property
    def is_finished(self) -> bool:
        return self.runtime_status in FINISHED

    @property
    def is_parked(self) -> bool:
        """Whether the engine has parked the instance, for its `reason`; False if an operator suspended it, or
        for a delayed start.
        """
        return (
            not self.is_finished and self.runtime_status != RuntimeStatus.Running and is_parked(self.reason)
        )

    @property
    def input_(self) -> Any:
        """The same as `input`, as azure-functions-durable spells it."""
        return self.input

    def to_json(self) -> dict[str, Any]:
        """The members and names of Azure's `DurableOrchestrationStatus.to_json`, JSON-ready."""
        return {
            "name": self.name,
            "instanceId": self.instance_id,
            "createdTime": stamp(self.created_time),
            "lastUpdatedTime": stamp(self.last_updated_time),
            "output": self.output,
            "input": self.input,
            "runtimeStatus": self.runtime_status.value,
            "customStatus": self.custom_status,
            "history": self.history,
        }


DurableOrchestrationStatus = OrchestrationStatus


class PurgeHistoryResult(int):
    """The number of purged instances, an int that also has Azure's `instances_deleted`."""

    __slots__ = ()

    @property
    def instances_deleted(self) -> int:
        """The number of purged instances."""
        return int(self)

    def __repr__(self) -> str:
        return f"PurgeHistoryResult({int(self)})"


@dataclass(frozen=True)
class Page:
    """One page of a query; `continuation` is the token of the next page, None on the last.

    A query whose filter has no index searches for about a second. If instances are left then, `searched_from` is the
    time from which on all were searched, and the next page goes on there.
    """

    instances: list[OrchestrationStatus]
    continuation: str | None = None
    searched_from: datetime | None = None


class InstanceCount(msgspec.Struct, frozen=True, rename="camel"):
    """How many instances match a filter; those since `searched_from` if that is given, see `Page`."""

    count: int
    searched_from: datetime | None = None
