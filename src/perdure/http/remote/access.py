"""Keys, audit log and links of a remote client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.engine.client.access import person_of
from perdure.http.mounting import quoted
from perdure.http.remote.requests import ApiRequest
from perdure.http.timestamps import stamp
from perdure.model.access import AccessKey, AuditPage, NewKey
from perdure.model.durations import Seconds, micros

if TYPE_CHECKING:
    from datetime import datetime

    from perdure.http.remote.gateway import HttpGateway
    from perdure.model.human_tasks import Person


class RemoteAccess:
    """`perdure.engine.client.access.AccessVerbs` over HTTP. A part of `RemoteClient`."""

    _remote: HttpGateway

    async def create_key(
        self, name: str, scopes: Iterable[str], *, expires_in: Seconds | None = None
    ) -> NewKey:
        wanted: dict[str, Any] = {
            "name": name,
            "scopes": [scopes] if isinstance(scopes, str) else list(scopes),
        }
        if expires_in is not None:
            wanted["expires_in"] = micros(expires_in) / 1e6
        found = await self._remote.send(_posted("/keys", wanted), None)
        return NewKey(msgspec.convert(found, AccessKey), found["secret"])

    async def rotate_links(self) -> AccessKey:
        return msgspec.convert(await self._remote.send(_posted("/keys/links", None), None), AccessKey)

    async def keys(self) -> list[AccessKey]:
        found, _ = await self._remote.ask("/keys", {})
        return msgspec.convert(found, list[AccessKey])

    async def link_keys(self) -> list[AccessKey]:
        found, _ = await self._remote.ask("/keys/links", {})
        return msgspec.convert(found, list[AccessKey])

    async def revoke_key(self, key_id: str) -> AccessKey:
        sent = ApiRequest("DELETE", f"/keys/{quoted(key_id)}", {}, answer=lambda answer: answer)
        return msgspec.convert(await self._remote.send(sent, None), AccessKey)

    async def audit(
        self,
        *,
        who: str | None = None,
        operation: str | None = None,
        instance_id: str | None = None,
        since: datetime | None = None,
        top: int = 100,
        continuation: str | None = None,
    ) -> AuditPage:
        query = {
            "who": who,
            "operation": operation,
            "instanceId": instance_id,
            "since": stamp(since) if since else None,
            "top": top,
            "continuation": continuation,
        }
        found, _ = await self._remote.ask("/audit", query)
        return msgspec.convert(found, AuditPage)

    async def create_event_link(
        self,
        instance_id: str,
        event_name: str,
        *,
        expires_in: Seconds = 7 * 24 * 3_600,
        once: bool = True,
        for_: Person | str | None = None,
        request: Any = None,
    ) -> str:
        person = person_of(for_)
        wanted = {"event": event_name, "expires_in": micros(expires_in) / 1e6, "once": once}
        if person is not None:
            wanted |= {"for": person.name, "roles": person.roles}
        found = await self._remote.send(_posted(f"/instances/{quoted(instance_id)}/links", wanted), None)
        url: str = found["url"]
        return url


def _posted(path: str, content: Any) -> ApiRequest:
    body = None if content is None else msgspec.json.encode(content)
    return ApiRequest("POST", path, {}, body, lambda answer: answer)


__all__ = ["RemoteAccess"]
