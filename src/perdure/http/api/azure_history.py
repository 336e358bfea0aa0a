"""History in the format of Azure's management API: `historyEvents`.

There a completion contains the data of its scheduling (`FunctionName`, `ScheduledTime`), and only an open call has an
event for its scheduling. Names are Azure's, in Pascal case. Events that Azure does not have are left out, such as the
start or the end of a wait, or a rejected event. They are in `events`, which is history in perdure's own format.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perdure.http.timestamps import stamp
from perdure.model.durations import moment
from perdure.model.instances import RuntimeStatus

Event = Mapping[str, Any]

_RENAMED = {
    "TaskScheduled": "TaskScheduled",
    "TaskCompleted": "TaskCompleted",
    "TaskFailed": "TaskFailed",
    "SubOrchestrationCreated": "SubOrchestrationInstanceCreated",
    "SubOrchestrationCompleted": "SubOrchestrationInstanceCompleted",
    "SubOrchestrationFailed": "SubOrchestrationInstanceFailed",
    "EntityCalled": "EntityOperationCalled",
    "EntitySignaled": "EntityOperationSignaled",
    "EntityOperationCompleted": "EntityOperationCompleted",
    "EntityOperationFailed": "EntityOperationFailed",
}
_ENDINGS = {
    "ExecutionCompleted": RuntimeStatus.Completed,
    "ExecutionFailed": RuntimeStatus.Failed,
    "ExecutionTerminated": RuntimeStatus.Terminated,
    "ContinuedAsNew": RuntimeStatus.ContinuedAsNew,
}
_REASONS = {"ExecutionSuspended", "ExecutionResumed", "ExecutionTerminated"}


def history_events(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Convert a history of `OrchestrationStatus.history` to Azure's `historyEvents`."""
    shaped: list[dict[str, Any] | None] = []
    opened: dict[int, tuple[int, Event]] = {}
    for event in events:
        if event["type"] in ("TaskScheduled", "SubOrchestrationCreated", "TimerCreated", "EntityCalled"):
            opened[event["id"]] = (len(shaped), event)
        elif event["type"] == "TaskCanceled":
            opened.pop(event["task_id"], None)  # keep the scheduling event: Azure has no event for this end
        elif "task_id" in event or "timer_id" in event:
            position, scheduled = opened.pop(event.get("task_id", event.get("timer_id", -1)), (-1, {}))
            if position >= 0 and "task_id" in event:
                shaped[position] = None
            event = {**event, "scheduled": scheduled}
        shaped.append(_shape(event))
    return [one for one in shaped if one]


def _shape(event: Event) -> dict[str, Any] | None:
    kind = event["type"]
    if kind in _RENAMED:
        return _call(event)
    shape: dict[str, Any] = {"EventType": kind, "Timestamp": _utc(event["timestamp"])}
    if kind == "ExecutionStarted":
        return {**shape, "FunctionName": event["name"], **_given(event, Input="input")}
    if kind == "EventRaised":
        return {**shape, "Name": event["name"], **_given(event, Input="input")}
    if kind in ("TimerCreated", "TimerFired"):
        scheduled = event if kind == "TimerCreated" else event["scheduled"]
        due = {"FireAt": stamp(moment(scheduled["fire_at"]))} if "fire_at" in scheduled else {}
        return {**shape, **due}
    if kind in _ENDINGS:
        shape = {**shape, "EventType": "ContinueAsNew" if kind == "ContinuedAsNew" else kind}
        shape["OrchestrationStatus"] = _ENDINGS[kind].value
        return {**shape, **_given(event, Result="output", FailureDetails="failure", Reason="reason")}
    return {**shape, **_given(event, Reason="reason")} if kind in _REASONS else None


def _call(event: Event) -> dict[str, Any]:
    scheduled = event.get("scheduled", event)
    shape = {
        "EventType": _RENAMED[event["type"]],
        "Timestamp": _utc(event["timestamp"]),
        "FunctionName": scheduled.get("name") or scheduled.get("entity"),
        **_given(scheduled, Input="input", Operation="operation"),
    }
    if scheduled is not event:
        shape["ScheduledTime"] = _utc(scheduled.get("timestamp", ""))
    failure = event.get("failure")
    if failure:
        shape |= {"Reason": failure.get("message", ""), "Details": failure.get("stack", "")}
        shape["FailureDetails"] = failure
    return {**shape, **_given(event, Result="result")}


def _utc(timestamp: str) -> str:
    return timestamp.replace("+00:00", "Z")


def _given(event: Event, **members: str) -> dict[str, Any]:
    return {name: event[member] for name, member in members.items() if member in event}


__all__ = ["history_events"]
