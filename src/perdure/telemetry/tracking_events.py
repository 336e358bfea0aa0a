"""Azure's tracking events: what history says about an instance, in the words of the Durable Functions extension.

Each row of history gives the events that it makes true. Their message texts, the names of their fields and their
states are Azure's, so that queries written for Azure's answer. What only perdure has (`parked`, a dropped event, a
replay) has texts of the same form. Inputs, outputs, reasons that people wrote and the texts of errors do not appear:
a count of characters replaces them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec import Raw

from perdure.failure import Failure
from perdure.model import events as ev
from perdure.model.durations import moment
from perdure.model.entities import EntityId
from perdure.model.records import DroppedRow

CATEGORY: Final = "Host.Triggers.DurableTask"
ACTIVITY: Final = "Activity"
ENTITY: Final = "Entity"
ORCHESTRATOR: Final = "Orchestrator"
_WHERE: Final = (
    "HubName: {hubName}. AppName: {appName}. SlotName: {slotName}. ExtensionVersion: {extensionVersion}. "
    "SequenceNumber: {sequenceNumber}."
)
_TASK: Final = " TaskEventId: {taskEventId}"
_STATE: Final = "State: {state}. "
_STATUS: Final = f"{_STATE}RuntimeStatus: {{runtimeStatus}}. "
_NO_REPLAY: Final = "IsReplay: {isReplay}. "
_FUNCTION: Final = "{instanceId}: Function '{functionName} ({functionType})' "

SCHEDULED: Final = f"{_FUNCTION}scheduled. Reason: {{reason}}. {_NO_REPLAY}{_STATUS}{_WHERE}"
STARTED: Final = f"{_FUNCTION}started. {_NO_REPLAY}Input: {{input}}. {_STATUS}{_WHERE}{_TASK}"
AWAITED: Final = f"{_FUNCTION}awaited. {_NO_REPLAY}{_STATE}{_WHERE}"
LISTENING: Final = f"{_FUNCTION}is waiting for input. Reason: {{reason}}. {_NO_REPLAY}{_STATE}{_WHERE}"
COMPLETED: Final = (
    f"{_FUNCTION}completed. ContinuedAsNew: {{continuedAsNew}}. {_NO_REPLAY}Output: {{output}}. "
    f"{_STATUS}{_WHERE}{_TASK}"
)
FAILED: Final = f"{_FUNCTION}failed with an error. Reason: {{reason}}. {_NO_REPLAY}{_STATUS}{_WHERE}{_TASK}"
TERMINATED: Final = f"{_FUNCTION}was terminated. Reason: {{reason}}. {_STATUS}{_WHERE}"
SUSPENDING: Final = (
    f"{{instanceId}}: Suspending function '{{functionName}} ({{functionType}})'. Reason: {{reason}}. "
    f"{_STATUS}{_WHERE}"
)
RESUMING: Final = (
    "{instanceId}: Resuming function '{functionName} ({functionType})'. Reason: {reason}. "
    f"{_STATUS}{_WHERE}"
)
REWOUND: Final = f"{_FUNCTION}was rewound. Reason: {{reason}}. {_STATE}{_WHERE}"
TIMER_EXPIRED: Final = (
    f"{_FUNCTION}was resumed by a timer scheduled for '{{expirationTime}}'. {_NO_REPLAY}{_STATE}{_WHERE}"
)
EVENT_RAISED: Final = f"{_FUNCTION}received a '{{eventName}}' event. {_STATE}{_WHERE}"
EVENT_DROPPED: Final = f"{_FUNCTION}dropped a '{{eventName}}' event. Reason: {{reason}}. {_STATE}{_WHERE}"
ENTITY_ANSWERED: Final = (
    f"{_FUNCTION}received an entity response. OperationId: {{operationId}}. {_STATE}{_WHERE}"
)
LOCK_ACQUIRED: Final = (
    f"{_FUNCTION}granted lock to request {{requestId}} by instance {{requestingInstanceId}}, execution "
    f"{{requestingExecutionId}}. {_STATE}{_WHERE}"
)
OPERATED: Final = (
    f"{_FUNCTION}processed {{operationsExecuted}} '{{operationName}}' operations, {{operationsFailed}} of them "
    f"with an error. {_STATE}{_WHERE}"
)
REPLAYED: Final = f"{_FUNCTION}was replayed. Reason: {{reason}}. Replays: {{replays}}. {_STATE}{_WHERE}"


class Subject(NamedTuple):
    """The instance that the events are about, with the execution of this row and its trace."""

    instance_id: str
    name: str
    is_entity: bool
    execution_id: str = ""
    trace: str = ""

    @property
    def kind(self) -> str:
        return ENTITY if self.is_entity else ORCHESTRATOR


class TrackingEvent(NamedTuple):
    """One tracking event. `fields` lack what all events of a worker share, such as the name of the hub."""

    subject: Subject
    level: int
    text: str
    fields: dict[str, Any]


def redacted(body: Raw | bytes | str | None = None, size: int = 0) -> str:
    """The number of characters of a payload, as Azure writes it in the payload's place."""
    text = bytes(body).decode(errors="replace") if isinstance(body, Raw | bytes) else body or ""
    return f"(Redacted {max(len(text), size)} characters)"


def error_told(failure: Failure) -> str:
    """The class and the stack of an error, without its text, which may repeat an input."""
    frames = [line for line in failure.stack.splitlines() if line.lstrip().startswith('File "')]
    return "\n".join([failure.type, *frames])


def instance_created(subject: Subject) -> TrackingEvent:
    """The event of a start by a client, a schedule or a queue."""
    return _told(subject, SCHEDULED, "Scheduled", reason="NewInstance", runtimeStatus="Pending")


def activity_started(subject: Subject, name: str, body: Raw, task_id: int) -> TrackingEvent:
    return _told(
        subject,
        STARTED,
        "Started",
        function=(name, ACTIVITY),
        input=redacted(body),
        runtimeStatus="Running",
        taskEventId=task_id,
    )


def activity_completed(subject: Subject, name: str, output: str, task_id: int) -> TrackingEvent:
    return _told(
        subject,
        COMPLETED,
        "Completed",
        function=(name, ACTIVITY),
        continuedAsNew=False,
        output=output,
        runtimeStatus="Completed",
        taskEventId=task_id,
    )


def activity_failed(subject: Subject, name: str, reason: str, task_id: int) -> TrackingEvent:
    return _told(
        subject,
        FAILED,
        "Failed",
        logging.ERROR,
        function=(name, ACTIVITY),
        reason=reason,
        runtimeStatus="Failed",
        taskEventId=task_id,
    )


def event_dropped(subject: Subject, row: DroppedRow) -> TrackingEvent:
    """The event of an accepted message that could not be delivered."""
    return _told(
        subject,
        EVENT_DROPPED,
        "ExternalEventDropped",
        logging.WARNING,
        eventName=row.name,
        reason=redacted(row.reason),
    )


def replayed(subject: Subject, reason: str, replays: int) -> TrackingEvent:
    """The event of code that history has brought back. Azure writes the earlier events again instead."""
    return _told(subject, REPLAYED, "Replayed", reason=reason, replays=replays)


def events_of(
    subject: Subject, events: Iterable[ev.HistoryEvent], timers: Mapping[int, int] = {}
) -> Iterator[TrackingEvent]:
    """The tracking events of one row of history. `timers` has the due times of timers of earlier rows, if known."""
    timers = dict(timers)
    waits = has_arrived = False
    for event in events:
        made = _of(subject, event, timers)
        if made is not None:
            yield made
        has_arrived = has_arrived or isinstance(event, ev.Arrival)
        waits = not isinstance(event, ev.Ending)
    if waits and has_arrived and not subject.is_entity:
        yield _told(subject, AWAITED, "Awaited")


def _of(subject: Subject, event: ev.HistoryEvent, timers: dict[int, int]) -> TrackingEvent | None:
    """The tracking event of one event of history; None for what Azure does not track."""
    match event:
        case ev.ExecutionStarted():
            size = _size(event.body)
            return _told(
                subject,
                STARTED,
                "Started",
                input=redacted(event.input, size),
                runtimeStatus="Running",
                taskEventId=-1,
            )
        case ev.TaskScheduled():
            return _called(subject, event.name, ACTIVITY)
        case ev.SubOrchestrationCreated():
            return _called(subject, event.name, ORCHESTRATOR)
        case ev.EntityCalled() | ev.EntitySignaled():
            return _called(subject, EntityId.parse(event.entity).name, ENTITY)
        case ev.EventAwaited():
            reason = f"WaitForExternalEvent:{event.name}"
            return _told(subject, LISTENING, "Listening", reason=reason)
        case ev.TimerCreated():
            timers[event.id] = event.fire_at
            if event.purpose:
                return None
            return _told(subject, LISTENING, "Listening", reason=f"CreateTimer:{instant_told(event.fire_at)}")
        case ev.TimerFired():
            at = timers.get(event.timer_id)
            told = instant_told(at) if at is not None else ""
            return _told(subject, TIMER_EXPIRED, "TimerExpired", expirationTime=told)
        case ev.EventRaised():
            return _told(subject, EVENT_RAISED, "ExternalEventRaised", eventName=event.name)
        case ev.EventRejected():
            reason = redacted(event.reason)
            return _told(
                subject,
                EVENT_DROPPED,
                "ExternalEventDropped",
                logging.WARNING,
                eventName=event.name,
                reason=reason,
            )
        case ev.EntityOperationCompleted() | ev.EntityOperationFailed():
            return _told(subject, ENTITY_ANSWERED, "ExternalEventRaised", operationId=event.task_id)
        case ev.LockGranted():
            return _granted(subject, event)
        case ev.EntityOperated():
            return _told(
                subject,
                OPERATED,
                "EntityBatch",
                operationName=event.operation,
                operationsExecuted=event.count,
                operationsFailed=event.failed,
            )
        case ev.ExecutionCompleted() | ev.ContinuedAsNew() | ev.ExecutionFailed() | ev.ExecutionTerminated():
            return _ended(subject, event)
        case ev.ExecutionSuspended() | ev.ExecutionResumed() | ev.ExecutionParked() | ev.ExecutionRewound():
            return _controlled(subject, event)
        case _:
            return None


def _called(subject: Subject, name: str, kind: str) -> TrackingEvent:
    """The event of a call: it names the function that is called, and the instance and function that call it."""
    return _told(
        subject,
        SCHEDULED,
        "Scheduled",
        function=(name, kind),
        reason=subject.name,
        runtimeStatus="Pending",
    )


def _granted(subject: Subject, event: ev.LockGranted) -> TrackingEvent:
    entity = Subject(event.entity, EntityId.parse(event.entity).name, is_entity=True)
    return _told(
        entity,
        LOCK_ACQUIRED,
        "LockAcquired",
        requestId=event.task_id,
        requestingInstanceId=subject.instance_id,
        requestingExecutionId=subject.execution_id,
    )


def _ended(subject: Subject, event: ev.Ending) -> TrackingEvent:
    match event:
        case ev.ExecutionCompleted():
            output = redacted(event.output, _size(event.body))
            return _completed(subject, output, "Completed", is_continued=False)
        case ev.ContinuedAsNew():
            return _completed(
                subject, redacted(event.input, _size(event.body)), "ContinuedAsNew", is_continued=True
            )
        case ev.ExecutionFailed():
            reason = error_told(event.failure)
            return _told(
                subject,
                FAILED,
                "Failed",
                logging.ERROR,
                reason=reason,
                runtimeStatus="Failed",
                taskEventId=-1,
            )
        case ev.ExecutionTerminated():
            reason = redacted(event.reason)
            return _told(
                subject,
                TERMINATED,
                "Terminated",
                logging.WARNING,
                reason=reason,
                runtimeStatus="Terminated",
            )


def _completed(subject: Subject, output: str, status: str, *, is_continued: bool) -> TrackingEvent:
    return _told(
        subject,
        COMPLETED,
        "Completed",
        continuedAsNew=is_continued,
        output=output,
        runtimeStatus=status,
        taskEventId=-1,
    )


def _controlled(
    subject: Subject,
    event: ev.ExecutionSuspended | ev.ExecutionResumed | ev.ExecutionParked | ev.ExecutionRewound,
) -> TrackingEvent:
    match event:
        case ev.ExecutionSuspended():
            reason = redacted(event.reason)
            return _told(subject, SUSPENDING, "Suspended", reason=reason, runtimeStatus="Suspended")
        case ev.ExecutionParked():
            reason = f"parked: {event.kind}"
            return _told(
                subject, SUSPENDING, "Suspended", logging.WARNING, reason=reason, runtimeStatus="Suspended"
            )
        case ev.ExecutionResumed():
            return _told(
                subject, RESUMING, "Scheduled", reason=redacted(event.reason), runtimeStatus="Running"
            )
        case ev.ExecutionRewound():
            return _told(subject, REWOUND, "Rewound", logging.WARNING, reason=redacted(event.reason))


def _told(
    subject: Subject,
    text: str,
    state: str,
    level: int = logging.INFO,
    *,
    function: tuple[str, str] | None = None,
    **fields: Any,
) -> TrackingEvent:
    name, kind = function or (subject.name, subject.kind)
    common = {
        "instanceId": subject.instance_id,
        "functionName": name,
        "functionType": kind,
        "state": state,
        "isReplay": False,
    }
    return TrackingEvent(subject, level, text, {**common, **fields})


def _size(body: ev.BodyRef | None) -> int:
    return body.size if body is not None else 0


def instant_told(at: int) -> str:
    """An instant in .NET's round-trip format, with seven digits of a second."""
    when: datetime = moment(at)
    return f"{when.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}0Z"


__all__ = [
    "CATEGORY",
    "Subject",
    "TrackingEvent",
    "activity_completed",
    "activity_failed",
    "activity_started",
    "error_told",
    "event_dropped",
    "events_of",
    "instance_created",
    "instant_told",
    "redacted",
    "replayed",
]
