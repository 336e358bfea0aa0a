"""The requests of a remote client: one for each message, with the function that reads its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.engine.client.tasks import task_id_of
from perdure.http.api.entities import EMPTY_KEY
from perdure.http.mounting import quoted
from perdure.http.timestamps import stamp
from perdure.model.durations import moment
from perdure.model.entities import EntityId
from perdure.model.instances import asked_id
from perdure.model.messages import (
    CompleteTask,
    EntityOperation,
    Message,
    MoveTask,
    Purge,
    RaiseEvent,
    Resume,
    Rewind,
    Start,
    Suspend,
    Terminate,
)
from perdure.triggers.names import MESSAGE, message_id, queue_of, schedule_id
from perdure.triggers.queue_orchestration import Message as Letter
from perdure.triggers.schedule_orchestration import CONTROL, Control

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.engine.client.bulk import Which

Query = dict[str, Any]


@dataclass(frozen=True)
class ApiRequest:
    """The request for a message, with the function that reads its response."""

    method: str
    path: str
    query: Query
    body: bytes | None = None
    answer: Callable[[Any], Any] = lambda _: None
    headers: Mapping[str, str] = field(default_factory=dict)


def instance_path(instance_id: str) -> str:
    return f"/instances/{quoted(asked_id(instance_id))}"


def _start(message: Start) -> ApiRequest:
    if message.name == MESSAGE:
        return _message(message)
    query = {
        "version": message.version,
        "startAt": stamp(moment(message.visible_at)) if message.visible_at else None,
        "tag": _tags(message.tags),
        "onExisting": message.on_existing,
    }
    path = f"/orchestrators/{quoted(message.name)}"
    # A random id would differ in a repetition of the request, so the server chooses it, once.
    if not (message.fresh and message.operation_id):
        path += f"/{quoted(message.instance_id)}"
    return ApiRequest("POST", path, query, bytes(message.input), lambda answer: answer["id"])


def _message(message: Start) -> ApiRequest:
    """A queue's message is an instance of a built-in orchestrator, which cannot be started by name."""
    letter = msgspec.json.decode(message.input, type=Letter)
    query = {
        "messageId": message.instance_id.removeprefix(message_id(letter.queue, "")),
        "at": stamp(moment(message.visible_at)) if message.visible_at else None,
    }
    body = b"" if letter.empty else bytes(letter.body)
    return ApiRequest("POST", f"/queues/{quoted(letter.queue)}", query, body, lambda answer: answer["id"])


def _raise_event(message: RaiseEvent) -> ApiRequest:
    if message.name == CONTROL and message.instance_id.startswith(schedule_id("")):
        return _order(message)
    path = f"{instance_path(message.instance_id)}/raiseEvent/{quoted(message.name)}"
    return ApiRequest("POST", path, {}, bytes(message.input))


def _move_task(message: MoveTask) -> ApiRequest:
    return ApiRequest("POST", f"{_task_path(message)}/{message.verb}", {"to": message.to or None})


def _complete_task(message: CompleteTask) -> ApiRequest:
    return ApiRequest("POST", f"{_task_path(message)}/complete", {}, bytes(message.input))


def _task_path(message: MoveTask | CompleteTask) -> str:
    return f"/tasks/{quoted(task_id_of(asked_id(message.instance_id), message.task))}"


def _order(message: RaiseEvent) -> ApiRequest:
    """A command for a schedule is sent to its own route, and not as the event that carries it."""
    order = msgspec.json.decode(message.input, type=Control)
    query = {
        "reason": order.reason,
        "after": stamp(moment(order.after)) if order.after else None,
        "until": stamp(moment(order.until)) if order.until else None,
    }
    name = message.instance_id.removeprefix(schedule_id(""))
    return ApiRequest("POST", f"/schedules/{quoted(name)}/{order.verb}", query)


def _rewind(message: Rewind) -> ApiRequest:
    queue = queue_of(message.instance_id)
    if not queue:
        return _control("rewind")(message)
    path = f"/queues/{quoted(queue)}/dead/{quoted(message.instance_id)}/redeliver"
    return ApiRequest("POST", path, {"reason": message.reason})


def _control(verb: str) -> Callable[[Any], ApiRequest]:
    def request(message: Terminate | Suspend | Resume | Rewind) -> ApiRequest:
        query: Query = {"reason": message.reason}
        if isinstance(message, Terminate) and message.recursive:
            query["recursive"] = True
        return ApiRequest("POST", f"{instance_path(message.instance_id)}/{verb}", query)

    return request


def _purge(message: Purge) -> ApiRequest:
    return ApiRequest("DELETE", instance_path(message.instance_id), {})


def _operation(message: EntityOperation) -> ApiRequest:
    return ApiRequest(
        "POST", entity_path(message.instance_id), operation_query(message), bytes(message.input)
    )


_REQUESTS: dict[type, Callable[[Any], ApiRequest]] = {
    Start: _start,
    CompleteTask: _complete_task,
    MoveTask: _move_task,
    RaiseEvent: _raise_event,
    EntityOperation: _operation,
    Terminate: _control("terminate"),
    Suspend: _control("suspend"),
    Resume: _control("resume"),
    Rewind: _rewind,
    Purge: _purge,
}


def filters_of(which: Which) -> Query:
    status = which.get("status", ())
    return {
        "runtimeStatus": ",".join([status] if isinstance(status, str) else status),
        "name": which.get("name"),
        "instanceIdPrefix": which.get("prefix"),
        "tag": _tags(which.get("tags")),
        "createdTimeFrom": _stamp(which.get("created_from")),
        "createdTimeTo": _stamp(which.get("created_to")),
        "endedFrom": _stamp(which.get("ended_from")),
        "endedTo": _stamp(which.get("ended_to")),
        "waitingFor": which.get("waiting_for"),
        "parked": which.get("parked") or None,
        "failure": which.get("failure"),
        "parent": which.get("parent"),
        "builtIn": None if which.get("built_in", True) else False,
    }


def _stamp(at: datetime | None) -> str | None:
    return stamp(at) if at else None


def _tags(tags: Mapping[str, str] | None) -> list[str]:
    return [f"{name}={value}" for name, value in (tags or {}).items()]


def entity_path(instance_id: str) -> str:
    """The path of an entity."""
    entity = EntityId.parse(instance_id)
    return f"/entities/{quoted(entity.name)}/{quoted(entity.key) or EMPTY_KEY}"


def operation_query(message: EntityOperation) -> Query:
    """The parameters of an operation. Its input is the body."""
    return {"op": message.operation, "at": stamp(moment(message.visible_at)) if message.visible_at else None}


def request_of(message: Message) -> ApiRequest:
    """The request for a message."""
    return _REQUESTS[type(message)](message)


__all__ = [
    "Query",
    "ApiRequest",
    "entity_path",
    "filters_of",
    "instance_path",
    "operation_query",
    "request_of",
]
