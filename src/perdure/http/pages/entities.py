"""The pages of entities: the list, and one entity with its state and the holder of its lock.

They read what the management API returns. An entity's operations are on the page of its instance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perdure.errors import InstanceNotFound
from perdure.http.api.entities import EMPTY_KEY
from perdure.http.mounting import quoted
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.routing import client_of
from perdure.http.table import Endpoint
from perdure.model.entities import EntityId

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

ROWS: Final = 50
REFRESH: Final = 10


async def entities_page(request: Request) -> Response:
    """GET /entities: the entities of the hub, filtered by name and by the beginning of the key."""
    query = request.query_params
    name, prefix = query.get("name", "").strip(), query.get("key", "").strip()
    page = await client_of(request).query_entities(
        name=name or None,
        key_prefix=prefix if name else "",  # keys are in order within a name only
        fetch_state=True,
        top=ROWS,
        continuation=query.get("continuation") or None,
    )
    return draw(
        request,
        "entities.html",
        entities=[(one, _address(request, one.entity_id)) for one in page.entities],
        name=name,
        prefix=prefix,
        continuation=page.continuation,
        refresh=REFRESH,
    )


async def entity_page(request: Request) -> Response:
    """GET /entities/{name}/{key}: the state of one entity, who holds its lock, and why it is on hold."""
    key = request.path_params["key"]
    entity = EntityId(request.path_params["name"], "" if key == EMPTY_KEY else key)
    client = client_of(request)
    found = await client.read_entity_state(entity)
    if not found.exists and found.last_operation_time is None:
        raise InstanceNotFound(f"There is no entity {entity} in this hub. It may have been deleted.")
    return draw(request, "entity.html", one=found, refresh=REFRESH)


def _address(request: Request, entity: EntityId) -> str:
    return f"{base_of(request)}/entities/{quoted(entity.name)}/{quoted(entity.key or EMPTY_KEY)}"


ENDPOINTS = (
    Endpoint("/entities", ("GET",), as_page(entities_page), "read", is_page=True),
    Endpoint("/entities/{name}/{key}", ("GET",), as_page(entity_page), "read", is_page=True),
)

__all__ = ["ENDPOINTS"]
