"""History events: the facts of one execution, in the past tense, never changed afterwards.

History is the only source of truth of an orchestration; everything else can be derived from it. A history row
holds the events of one episode as a JSON array of these structs, tagged by `type`. Two kinds of event follow
each other. An *arrival* (a start, a completed activity, a raised event, a timer) is an input of the
orchestrator. The *decisions* after it (an activity scheduled, a timer created, a wait begun) are the response
of its code, with ids 0, 1, 2, ... in the code's own order. Replay passes the arrivals again and requires the
same decisions in the same places. Schema evolution: fields may be added with defaults, never removed, renamed
or given another meaning; new event types may be added, and an unknown type parks the instance rather than being
skipped. Bodies above a threshold live in the `payloads` table; the event then carries a `BodyRef` in `body`.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from perdure.failure import Failure
from perdure.model.encryption import refuse_unreadable
from perdure.model.human_tasks import HumanTaskDetails

ABSENT: Final = Raw(b"")
"""A missing body: omitted from JSON, and `None` for user code."""


class BodyRef(msgspec.Struct, frozen=True, gc=False):
    """The reference to a large body: row `no` of this episode in `payloads`, its size in bytes, its digest."""

    no: int
    size: int
    digest: str


class ParentLink(msgspec.Struct, frozen=True, gc=False):
    """The parent of a sub-orchestration: the instance, the execution, and the call."""

    instance_id: str
    execution_id: str
    task_id: int


class _Event(
    msgspec.Struct, frozen=True, tag=True, tag_field="type", omit_defaults=True, kw_only=True, gc=False
):
    pass


# ------------------------------------------------------------------------------------------------ arrivals


ANY_TASK: Final = -1
EARLIER_TASK: Final = -2
"""Which human task an event answers: any, or one of an earlier execution, which is closed."""


class EventRaised(_Event, frozen=True):
    """An external event reached the instance. Buffered until a wait for `name` takes it.

    `decided_by` is the proven person who sent it, with the roles of that moment; empty for any other sender. `task`
    names the human task that it answers, by the id of its first wait; without one it answers any wait for `name`.
    """

    name: str
    input: Raw = ABSENT
    body: BodyRef | None = None
    operation_id: str = ""
    trace: str = ""  # of the raiser's span; see `perdure.model.trace_context`
    decided_by: str = ""
    roles: tuple[str, ...] = ()
    task: int = ANY_TASK


OLDEST: Final = 0
AWAITED: Final = 1
"""The pairing rules: a raised event goes to the oldest wait for its name, or to the oldest that the code still
awaits.
"""


class ExecutionStarted(_Event, frozen=True, gc=True):
    """The first event of every execution. `carried` are the unconsumed events of the previous execution.

    `pairing` is the rule that pairs events with waits, for the whole execution: OLDEST or AWAITED. Executions
    from before the choice have OLDEST.

    `parks_misfits`: a result that does not fit its type parks the instance, in replay as well. In executions
    started by earlier versions the code received a PayloadError, and replay raises it again.
    """

    name: str
    version: str = ""
    input: Raw = ABSENT
    body: BodyRef | None = None
    parent: ParentLink | None = None
    operation_id: str = ""
    carried: tuple[EventRaised, ...] = ()
    pairing: int = OLDEST
    parks_misfits: bool = False
    trace: str = ""  # see `perdure.model.trace_context`


class TaskCompleted(_Event, frozen=True):
    task_id: int
    result: Raw = ABSENT
    body: BodyRef | None = None


class TaskFailed(_Event, frozen=True, gc=True):
    task_id: int
    failure: Failure


class SubOrchestrationCompleted(_Event, frozen=True):
    task_id: int
    result: Raw = ABSENT
    body: BodyRef | None = None


class SubOrchestrationFailed(_Event, frozen=True, gc=True):
    task_id: int
    failure: Failure


class TimerFired(_Event, frozen=True):
    timer_id: int


class EntityOperationCompleted(_Event, frozen=True):
    task_id: int
    result: Raw = ABSENT
    body: BodyRef | None = None


class EntityOperationFailed(_Event, frozen=True, gc=True):
    task_id: int
    failure: Failure


class LockGranted(_Event, frozen=True):
    """One entity of a critical section is locked; the next one, if any, is requested now."""

    task_id: int
    entity: str


class ExecutionSuspended(_Event, frozen=True):
    reason: str = ""


class ExecutionResumed(_Event, frozen=True):
    reason: str = ""


class ExecutionParked(_Event, frozen=True):
    """The engine parked the instance: `kind` is nondeterminism, misfit, poison, damaged or no_worker."""

    kind: str
    detail: str


class LoopHeld(_Event, frozen=True):
    """The code blocked the engine for this many milliseconds without being interrupted; `place` is its line."""

    milliseconds: int
    place: str = ""


class ExecutionRewound(_Event, frozen=True, gc=True):
    """A failed execution continues. Of the events valid until then, only the first `kept` stay valid, without
    the failures of the calls in `voided`, which are open again (see `perdure.replay.rewinding`).

    `at` is the current time from here on, in microseconds; `next_id` is larger than every id used so far.
    """

    kept: int
    next_id: int
    at: int
    voided: tuple[int, ...] = ()
    reason: str = ""


# ----------------------------------------------------------------------------------------------- decisions


class TaskScheduled(_Event, frozen=True):
    """An activity was called. `call` is the id of the first attempt of the same logical call."""

    id: int
    name: str
    input: Raw = ABSENT
    body: BodyRef | None = None
    call: int = -1
    attempt: int = 1
    timeout: int = 0  # microseconds; 0 for none
    placed: str = "local"  # local | shared | pool:<name>
    heartbeat: int = 0  # longest silence of an attempt in microseconds; 0 for no limit


class TaskCanceled(_Event, frozen=True):
    """The code called `cancel()` on an activity: its body is cancelled, and its result is dropped."""

    task_id: int


class SubOrchestrationCreated(_Event, frozen=True):
    id: int
    name: str
    instance_id: str
    version: str = ""
    input: Raw = ABSENT
    body: BodyRef | None = None
    call: int = -1
    attempt: int = 1


class TimerCreated(_Event, frozen=True):
    """`purpose` is empty for the user's own timer; `retry`, `timeout`, `remind` or `escalate` for the engine's."""

    id: int
    fire_at: int
    purpose: str = ""
    of: int = -1


class TimerCanceled(_Event, frozen=True):
    timer_id: int


class EventAwaited(_Event, frozen=True):
    """A wait for an external event began; `deadline` is 0 when it is open-ended. `task` describes a human task."""

    id: int
    name: str
    deadline: int = 0
    task: HumanTaskDetails | None = None


class WaitCanceled(_Event, frozen=True):
    wait_id: int


class EventTaken(_Event, frozen=True):
    """Of several open waits, this one took the event. Recorded if earlier events do not determine it: under the
    pairing AWAITED, with more than one open wait for the event's name.

    `event` counts the events of the execution, carried ones included, from 0.
    """

    wait_id: int
    event: int


class EventRejected(_Event, frozen=True):
    """A raised event did not fit the type of its wait: the event was dropped, and the wait continues.

    `event` is its number, as in `EventTaken`, if several waits were open; otherwise -1.
    """

    wait_id: int
    name: str
    operation_id: str = ""
    reason: str = ""
    event: int = -1


class EntityCalled(_Event, frozen=True):
    id: int
    entity: str
    operation: str
    input: Raw = ABSENT
    body: BodyRef | None = None


class EntitySignaled(_Event, frozen=True):
    """`at` is the delivery time of the signal; 0 for at once."""

    id: int
    entity: str
    operation: str
    input: Raw = ABSENT
    body: BodyRef | None = None
    at: int = 0


class LockRequested(_Event, frozen=True, gc=True):
    """A critical section over `entities` was requested; they are locked one by one, in this order."""

    id: int
    entities: tuple[str, ...]


class LockReleased(_Event, frozen=True):
    lock_id: int


class PatchMarked(_Event, frozen=True):
    """`context.patched(name)` was called for the first time and returned True. `deprecated` marks
    deprecate_patch.
    """

    name: str
    deprecated: bool = False


class ExecutionCompleted(_Event, frozen=True):
    output: Raw = ABSENT
    body: BodyRef | None = None


class ExecutionFailed(_Event, frozen=True, gc=True):
    """`of` is the id of the failed call that ended the execution; -1 when the code failed by itself.

    `others` are the ids of further failed calls in its error, such as an exception group.
    """

    failure: Failure
    of: int = -1
    others: tuple[int, ...] = ()


class ExecutionTerminated(_Event, frozen=True):
    reason: str = ""


class ContinuedAsNew(_Event, frozen=True):
    """`version` is that of the next execution, if it differs."""

    input: Raw = ABSENT
    body: BodyRef | None = None
    version: str = ""


# --------------------------------------------------------------------------------- of entities themselves


class EntityOperated(_Event, frozen=True):
    """In an entity's own history: the operations of one batch. Equal operations of one sender are counted
    together.

    `failed` of the `count` were undone; `failure` is the last one's error.
    """

    operation: str
    sender: str = ""  # the calling instance; "" for clients
    count: int = 1
    failed: int = 0
    failure: str = ""


Arrival = (
    ExecutionStarted
    | TaskCompleted
    | TaskFailed
    | SubOrchestrationCompleted
    | SubOrchestrationFailed
    | TimerFired
    | EventRaised
    | EntityOperationCompleted
    | EntityOperationFailed
    | LockGranted
)
"""The inputs of an orchestrator."""

Decision = (
    TaskScheduled
    | TaskCanceled
    | SubOrchestrationCreated
    | TimerCreated
    | TimerCanceled
    | EventAwaited
    | WaitCanceled
    | EventTaken
    | EventRejected
    | EntityCalled
    | EntitySignaled
    | LockRequested
    | LockReleased
    | PatchMarked
)
"""The decisions of its code, except its end."""

Ending = ExecutionCompleted | ExecutionFailed | ExecutionTerminated | ContinuedAsNew
"""The last event of an execution."""

Control = ExecutionSuspended | ExecutionResumed | ExecutionParked | ExecutionRewound | LoopHeld
"""Actions of operators and the engine, which the orchestrator's code never sees."""

HistoryEvent = Arrival | Decision | Ending | Control | EntityOperated

BODY_FIELD: Final[dict[type, str]] = {
    EventRaised: "input",
    ExecutionStarted: "input",
    TaskCompleted: "result",
    SubOrchestrationCompleted: "result",
    TaskScheduled: "input",
    SubOrchestrationCreated: "input",
    EntityOperationCompleted: "result",
    EntityCalled: "input",
    EntitySignaled: "input",
    ExecutionCompleted: "output",
    ContinuedAsNew: "input",
}
"""The field with the body of each event type; the others have none."""

encode_events = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(list[HistoryEvent])


def decode_events(data: bytes) -> list[HistoryEvent]:
    """The events of one history row. Raises `msgspec.ValidationError` for a type unknown to this version."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        refuse_unreadable(data)
        raise
    except UnicodeDecodeError as error:  # from a damaged row
        refuse_unreadable(data)
        raise msgspec.DecodeError(str(error)) from error
