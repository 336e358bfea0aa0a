"""Azure's management API for entities: read one, signal one, list them.

In addition to Azure's API, `details=true` returns metadata with the state (the holder of the lock, the reason why the
entity is parked), `at` delays an operation, `keyPrefix` narrows a list, and a list includes entities without a state
while operations wait for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from starlette.responses import Response

from perdure.errors import FunctionNotFound, InstanceNotFound, InvalidInstanceId, Overloaded
from perdure.http.api.management import ACCEPTED, CONTINUED_BY, endpoint
from perdure.http.api.status_json import Instant
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import (
    CONTINUATION,
    CONTINUED,
    OPERATION_ID,
    TOP,
    Parameter,
    flag,
    text,
    when,
)
from perdure.http.request_body import read_payload
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.timestamps import stamp, unstamp
from perdure.model.entities import DELETE, EntityId, EntityState
from perdure.replay.inputs import given

if TYPE_CHECKING:
    from starlette.requests import Request

EMPTY_KEY = "$"
"""The spelling of an empty key in a path."""
Document = dict[str, Any]

DETAILS = flag("details", "return metadata with the state, also for an entity that does not exist")
OPERATION: Parameter[Any] = replace(text("op", "the name of the operation"), needed=True)
AT = when("at", "the earliest time of the operation")
WITH_STATE = flag("fetchState", "include the states")
KEY_PREFIX = text("keyPrefix", "the prefix of the key")
USED_FROM = when("lastOperationTimeFrom", "only entities last used at this time or later")
USED_TO = when("lastOperationTimeTo", "only entities last used at this time or earlier")


class NamedEntity(TypedDict):
    """An entity's id."""

    name: str
    key: str


class EntityDocument(TypedDict):
    """One entity."""

    entityId: NamedEntity
    lastOperationTime: Instant | None
    state: NotRequired[Any]
    exists: bool
    lockedBy: str
    reason: str


async def get_entity(request: Request) -> Response:
    """GET entities/{name}/{key}: return an entity's state, or 404."""
    entity = _entity(request)
    found = await client_of(request).read_entity_state(entity)
    if DETAILS.of(request):
        return json_response(document_of(found, with_state=True))
    if not found.exists:
        raise InstanceNotFound(f"there is no entity {entity} in hub {client_of(request).task_hub!r}")
    return json_response(found.state)


async def signal_entity(request: Request) -> Response:
    """POST entities/{name}/{key}?op=: send an operation to an entity."""
    return await _signal(request, OPERATION.of(request), AT.of(request))


async def delete_entity(request: Request) -> Response:
    """DELETE entities/{name}/{key}: send the operation "delete" to an entity."""
    return await _signal(request, DELETE, None)


async def _signal(request: Request, operation: str, at: datetime | None) -> Response:
    await client_of(request).signal_entity(
        _entity(request),
        operation,
        given(await read_payload(request)),
        at=at,
        operation_id=OPERATION_ID.of(request),
    )
    return Response(status_code=202)


async def list_entities(request: Request) -> Response:
    """GET entities[/{name}]: list entities. The header x-ms-continuation-token leads to the next page."""
    with_state = WITH_STATE.of(request)
    page = await client_of(request).query_entities(
        name=request.path_params.get("name"),
        key_prefix=KEY_PREFIX.of(request) or "",
        last_operation_from=USED_FROM.of(request),
        last_operation_to=USED_TO.of(request),
        fetch_state=with_state,
        top=TOP.of(request),
        continuation=CONTINUED.of(request),
    )
    headers = {CONTINUATION: page.continuation} if page.continuation else {}
    return json_response([document_of(e, with_state=with_state) for e in page.entities], 200, headers)


def document_of(entity: EntityState, *, with_state: bool) -> Document:
    """One entity as JSON-ready data: first Azure's members, then perdure's own."""
    return {
        "entityId": {"name": entity.entity_id.name, "key": entity.entity_id.key},
        "lastOperationTime": stamp(entity.last_operation_time) if entity.last_operation_time else None,
        **({"state": entity.state} if with_state else {}),
        "exists": entity.exists,
        "lockedBy": entity.locked_by,
        "reason": entity.reason,
    }


def entity_from(document: Mapping[str, Any]) -> EntityState:
    """Parse the document of an entity."""
    named, at = document["entityId"], document.get("lastOperationTime")
    return EntityState(
        exists=document.get("exists", True),
        state=document.get("state"),
        entity_id=EntityId(named["name"], named["key"]),
        last_operation_time=unstamp(at) if at else None,
        locked_by=document.get("lockedBy") or "",
        reason=document.get("reason") or "",
    )


def _entity(request: Request) -> EntityId:
    key = request.path_params["key"]
    return EntityId(request.path_params["name"], "" if key == EMPTY_KEY else key)


_LIST = Contract(
    (WITH_STATE, KEY_PREFIX, USED_FROM, USED_TO, TOP, CONTINUED),
    None,
    (Answer(200, list[EntityDocument], "One page.", CONTINUED_BY),),
)
_READ = Contract(
    (DETAILS,), None, (Answer(200, Any, "The state, or with `details` an entity."),), (InvalidInstanceId,)
)
_SIGNAL = Contract(
    (OPERATION, AT, OPERATION_ID),
    Body(says="the operation's input"),
    (ACCEPTED,),
    (InvalidInstanceId, FunctionNotFound, Overloaded),
)
_DELETE = Contract((OPERATION_ID,), None, (ACCEPTED,), (InvalidInstanceId, FunctionNotFound, Overloaded))

ENDPOINTS = (
    endpoint("/entities", "GET", list_entities, "read", _LIST),
    endpoint("/entities/{name}", "GET", list_entities, "read", _LIST),
    endpoint("/entities/{name}/{key}", "GET", get_entity, "read", _READ),
    endpoint("/entities/{name}/{key}", "POST", signal_entity, "operate", _SIGNAL),
    endpoint("/entities/{name}/{key}", "DELETE", delete_entity, "admin", _DELETE),
)
