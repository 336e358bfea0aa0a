"""Actions: the requests of an orchestrator's code, in the imperative. `settle` turns each into history.

An awaitable action has its event id, so that a decider on another machine (a remote worker, an Azure app)
settles in the same way.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from perdure.failure import Failure
from perdure.model.human_tasks import HumanTaskDetails


class _Action(msgspec.Struct, frozen=True):
    pass


class ScheduleTask(_Action, frozen=True):
    id: int
    name: str
    input: Raw
    call: int
    attempt: int
    timeout: int
    heartbeat: int = 0


class CancelTask(_Action, frozen=True):
    task_id: int


class CreateSubOrchestration(_Action, frozen=True):
    id: int
    name: str
    instance_id: str
    version: str
    input: Raw
    call: int
    attempt: int


class CreateTimer(_Action, frozen=True):
    id: int
    fire_at: int
    purpose: str
    of: int


class CancelTimer(_Action, frozen=True):
    timer_id: int


class AwaitEvent(_Action, frozen=True):
    id: int
    name: str
    deadline: int
    task: HumanTaskDetails | None = None


class CancelWait(_Action, frozen=True):
    wait_id: int


class TakeEvent(_Action, frozen=True):
    """Give the event with this number to this wait, of several."""

    wait_id: int
    event: int


class RejectEvent(_Action, frozen=True):
    """`event` is its number where several waits were open; otherwise -1."""

    wait_id: int
    name: str
    operation_id: str
    input: Raw
    reason: str
    event: int = -1


class CallEntity(_Action, frozen=True):
    id: int
    entity: str
    operation: str
    input: Raw


class SignalEntity(_Action, frozen=True):
    """`at` (microseconds) in the future delays it; 0 for at once."""

    id: int
    entity: str
    operation: str
    input: Raw
    at: int


class RequestLock(_Action, frozen=True):
    """`entities` are requested one after the other, in this order."""

    id: int
    entities: tuple[str, ...]


class ReleaseLock(_Action, frozen=True):
    """`entities` are those requested so far."""

    lock_id: int
    entities: tuple[str, ...]


class MarkPatch(_Action, frozen=True):
    name: str
    deprecated: bool


class CompleteOrchestration(_Action, frozen=True):
    output: Raw


class FailOrchestration(_Action, frozen=True):
    failure: Failure
    of: int = -1
    others: tuple[int, ...] = ()


class ContinueAsNew(_Action, frozen=True):
    input: Raw
    save_events: bool
    version: str = ""


Step = (
    ScheduleTask
    | CancelTask
    | CreateSubOrchestration
    | CreateTimer
    | CancelTimer
    | AwaitEvent
    | CancelWait
    | TakeEvent
    | RejectEvent
    | CallEntity
    | SignalEntity
    | RequestLock
    | ReleaseLock
    | MarkPatch
)
Finish = CompleteOrchestration | FailOrchestration | ContinueAsNew
Action = Step | Finish
