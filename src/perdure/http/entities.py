"""Azure's management API for entities: read one, send it an operation, list them.

What goes beyond Azure: `details=true` tells of one entity what is known beside its state (who has it locked, why
it stands still), `at` delays an operation, `keyPrefix` narrows a list, and a list also has entities that do not
exist yet or any more while something waits for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from perdure.errors import InstanceNotFound, PayloadError
from perdure.http.body import read_payload
from perdure.http.endpoint import client_of
from perdure.http.instants import stamp, unstamp
from perdure.http.links import json_response
from perdure.http.management import endpoint
from perdure.http.parameters import CONTINUATION, flag, operation_id, read, top
from perdure.model.entities import DELETE, EntityId, EntityState

if TYPE_CHECKING:
    from starlette.requests import Request

EMPTY_KEY = "$"
"""How an empty key is written in a path."""
Document = dict[str, Any]


async def get_entity(request: Request) -> Response:
    """GET entities/{name}/{key}: its state, or 404."""
    entity = _entity(request)
    found = await client_of(request).read_entity_state(entity)
    if flag(request.query_params, "details", False):
        return json_response(document_of(found, with_state=True))
    if not found.exists:
        raise InstanceNotFound(f"there is no entity {entity} in hub {client_of(request).task_hub!r}")
    return json_response(found.state)


async def signal_entity(request: Request) -> Response:
    """POST entities/{name}/{key}?op=: 202 once the operation is kept durably."""
    operation = request.query_params.get("op")
    if not operation:
        raise PayloadError("say which operation: ?op=name")
    return await _signal(request, operation)


async def delete_entity(request: Request) -> Response:
    """DELETE entities/{name}/{key}: the operation "delete"."""
    return await _signal(request, DELETE)


async def _signal(request: Request, operation: str) -> Response:
    await client_of(request).signal_entity(
        _entity(request),
        operation,
        await read_payload(request),
        at=read(request.query_params, "at", unstamp),
        operation_id=operation_id(request),
    )
    return Response(status_code=202)


async def list_entities(request: Request) -> Response:
    """GET entities[/{name}]: one page as an array; the header x-ms-continuation-token leads to the next."""
    query = request.query_params
    with_state = flag(query, "fetchState", False)
    page = await client_of(request).query_entities(
        name=request.path_params.get("name"),
        key_prefix=query.get("keyPrefix", ""),
        last_operation_from=read(query, "lastOperationTimeFrom", unstamp),
        last_operation_to=read(query, "lastOperationTimeTo", unstamp),
        fetch_state=with_state,
        top=top(query),
        continuation=request.headers.get(CONTINUATION) or None,
    )
    headers = {CONTINUATION: page.continuation} if page.continuation else {}
    return json_response([document_of(e, with_state=with_state) for e in page.entities], 200, headers)


def document_of(entity: EntityState, *, with_state: bool) -> Document:
    """One entity as JSON-ready data: Azure's members first, then ours."""
    return {
        "entityId": {"name": entity.entity_id.name, "key": entity.entity_id.key},
        "lastOperationTime": stamp(entity.last_operation_time) if entity.last_operation_time else None,
        **({"state": entity.state} if with_state else {}),
        "exists": entity.exists,
        "lockedBy": entity.locked_by,
        "reason": entity.reason,
    }


def entity_from(document: Mapping[str, Any]) -> EntityState:
    """The entity that a document stands for."""
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


ENDPOINTS = (
    endpoint("/entities", "GET", list_entities, "read"),
    endpoint("/entities/{name}", "GET", list_entities, "read"),
    endpoint("/entities/{name}/{key}", "GET", get_entity, "read"),
    endpoint("/entities/{name}/{key}", "POST", signal_entity, "operate"),
    endpoint("/entities/{name}/{key}", "DELETE", delete_entity, "admin"),
)
