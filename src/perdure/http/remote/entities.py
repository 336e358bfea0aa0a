"""Entity queries of a remote client."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from perdure.http.api.entities import entity_from
from perdure.http.mounting import quoted
from perdure.http.parameters import CONTINUATION
from perdure.http.remote.requests import Query, entity_path
from perdure.http.timestamps import stamp
from perdure.model.entities import EntityId, EntityPage, EntityState, entity_id_of

if TYPE_CHECKING:
    from perdure.http.remote.gateway import HttpGateway
    from perdure.http.remote.requests import Query


class RemoteEntities:
    """The queries of a `RemoteClient` about entities. Signals are messages like any other."""

    _remote: HttpGateway

    async def read_entity_state(self, entity_id: EntityId | str) -> EntityState:
        found, _ = await self._remote.ask(entity_path(entity_id_of(entity_id)), {"details": True})
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


__all__ = ["RemoteEntities"]
