"""The verbs for entities of a client that talks to a server."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from perdure.http.api.entities import EMPTY_KEY, entity_from
from perdure.http.parameters import CONTINUATION
from perdure.http.timestamps import stamp
from perdure.http.urls import quoted
from perdure.model.durations import moment
from perdure.model.entities import EntityId, EntityPage, EntityState, entity_id_of

if TYPE_CHECKING:
    from perdure.http.remote.client import HttpGateway
    from perdure.http.remote.request import Query
    from perdure.model.messages import EntityOperation


class RemoteEntities:
    """What a `RemoteClient` asks about entities. What it tells them is a message like any other."""

    _remote: HttpGateway

    async def read_entity_state(self, entity_id: EntityId | str) -> EntityState:
        found, _ = await self._remote.ask(path_of(entity_id_of(entity_id)), {"details": True})
        return entity_from(found)

    async def query_entities(
        self,
        *,
        name: str | None = None,
        key_prefix: str = "",
        last_operation_from: datetime | None = None,
        last_operation_to: datetime | None = None,
        fetch_state: bool = False,
        top: int = 100,
        continuation: str | None = None,
    ) -> EntityPage:
        query: Query = {
            "keyPrefix": key_prefix,
            "lastOperationTimeFrom": stamp(last_operation_from) if last_operation_from else None,
            "lastOperationTimeTo": stamp(last_operation_to) if last_operation_to else None,
            "fetchState": fetch_state,
            "top": top,
        }
        path = "/entities" if name is None else f"/entities/{quoted(name)}"
        headers = {CONTINUATION: continuation} if continuation else {}
        found, answered = await self._remote.ask(path, query, headers)
        return EntityPage([entity_from(document) for document in found], answered.get(CONTINUATION))


def path_of(instance_id: str) -> str:
    """Where an entity is found."""
    entity = EntityId.parse(instance_id)
    return f"/entities/{quoted(entity.name)}/{quoted(entity.key) or EMPTY_KEY}"


def query_of(message: EntityOperation) -> Query:
    """The parameters that carry an operation; its input is the body."""
    return {"op": message.operation, "at": stamp(moment(message.visible_at)) if message.visible_at else None}
