"""The status of an instance as JSON, written and parsed: first Azure's members, then perdure's own.

`perdure.http.api.management` writes it and `perdure.http.remote` parses it. As in Azure, the `output` of a failed
instance is the error message, and that of a terminated instance the reason. The whole failure is in `failure`. A
requested history is contained in two formats: `historyEvents` is Azure's, `events` is perdure's own.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import msgspec

from perdure.failure import Failure
from perdure.http.api.azure_history import history_events
from perdure.http.timestamps import stamp, unstamp
from perdure.model.instances import OrchestrationStatus, RuntimeStatus
from perdure.model.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

Document = dict[str, Any]


Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class InstanceDocument(TypedDict):
    """One instance."""

    name: str
    instanceId: str
    runtimeStatus: RuntimeStatus
    input: Any
    customStatus: Any
    output: Any
    createdTime: Instant
    lastUpdatedTime: Instant
    completedTime: Instant | None
    waitingFor: str
    waiting: Waiting | None
    reason: str
    failure: Failure | None
    tags: dict[str, str]
    version: str
    executionId: str
    parentInstanceId: str | None
    replays: int
    replayReason: str | None
    historyEvents: NotRequired[list[dict[str, Any]]]
    events: NotRequired[list[dict[str, Any]]]
    executions: NotRequired[list[int]]


def document_of(status: OrchestrationStatus, *, with_input: bool = True) -> Document:
    """One instance as JSON-ready data. It contains the history only if the status does."""
    document: Document = {
        "name": status.name,
        "instanceId": status.instance_id,
        "runtimeStatus": status.runtime_status.value,
        "input": status.input if with_input else None,
        "customStatus": status.custom_status,
        "output": status.output,
        "createdTime": stamp(status.created_time),
        "lastUpdatedTime": stamp(status.last_updated_time),
        "completedTime": stamp(status.completed_time) if status.completed_time else None,
        "waitingFor": status.waiting_for,
        "waiting": msgspec.to_builtins(status.waiting) if status.waiting is not None else None,
        "reason": status.reason,
        "failure": msgspec.to_builtins(status.failure) if status.failure is not None else None,
        "tags": status.tags,
        "version": status.version,
        "executionId": status.execution_id,
        "parentInstanceId": status.parent_instance_id,
        "replays": status.replays,
        "replayReason": status.replay_reason or None,
    }
    if status.history is not None:
        document["historyEvents"] = history_events(status.history)
        document["events"] = status.history
        document["executions"] = status.executions
    return document


def brief_document_of(status: OrchestrationStatus) -> Document:
    """The status of an instance for the holder of a status link.

    It contains the status, custom status and output. It leaves out the input, the history, the stack of a failure,
    and the operators' reasons and tags.
    """
    document = document_of(status, with_input=False)
    return {**document, "waiting": None, "reason": "", "failure": None, "tags": {}, "parentInstanceId": None}


def status_from(document: Mapping[str, Any]) -> OrchestrationStatus:
    """Parse the document of a status. Unknown members are ignored, missing ones are empty."""
    completed, waiting, failure = (document.get(k) for k in ("completedTime", "waiting", "failure"))
    return OrchestrationStatus(
        instance_id=document["instanceId"],
        name=document.get("name") or "",
        runtime_status=RuntimeStatus(document["runtimeStatus"]),
        created_time=unstamp(document["createdTime"]),
        last_updated_time=unstamp(document["lastUpdatedTime"]),
        input=document.get("input"),
        output=document.get("output"),
        custom_status=document.get("customStatus"),
        failure=msgspec.convert(failure, Failure) if failure else None,
        reason=document.get("reason") or "",
        waiting_for=document.get("waitingFor") or "",
        waiting=msgspec.convert(waiting, Waiting) if waiting is not None else None,
        version=document.get("version") or "",
        execution_id=document.get("executionId") or "",
        parent_instance_id=document.get("parentInstanceId"),
        tags=dict(document.get("tags") or {}),
        completed_time=unstamp(completed) if completed else None,
        history=document.get("events"),
        executions=document.get("executions", []),
        replays=document.get("replays") or 0,
        replay_reason=document.get("replayReason") or "",
    )


__all__ = ["Document", "InstanceDocument", "Instant", "brief_document_of", "document_of", "status_from"]
