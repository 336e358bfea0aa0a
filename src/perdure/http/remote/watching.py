"""Watches an instance of a server through server-sent events, and reconnects after a broken connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec

from perdure.errors import EngineStopped
from perdure.http.api.status_json import status_from
from perdure.http.mounting import quoted
from perdure.model.instances import OrchestrationStatus

if TYPE_CHECKING:
    from perdure.http.remote.gateway import HttpGateway

TRIES: Final = 8  # broken connections in a row before the client gives up
PAUSE: Final = 0.25  # seconds before the first retry, doubled for each next one
SILENCE: Final = 60.0  # seconds without a byte after which a connection counts as broken


class RemoteWatching:
    """The method `watch` of a `RemoteClient`."""

    _remote: HttpGateway

    async def watch(self, instance_id: str) -> AsyncGenerator[OrchestrationStatus, None]:
        """As `Client.watch`. Reconnects after a broken connection and repeats no status."""
        cursor, failures = "", 0
        while True:
            try:
                async with aclosing(frames(self._remote, instance_id, cursor)) as found:
                    async for event, data, named in found:
                        cursor, failures = named or cursor, 0
                        if event == "status":
                            status = status_from(msgspec.json.decode(data))
                            yield status
                            if status.is_finished:
                                return
                return  # the server ended the stream: the instance was purged or has finished
            except httpx2.TransportError as error:
                failures += 1
                if failures >= TRIES:
                    raise EngineStopped(
                        f"lost the connection to {self._remote.base_url}: {error or type(error).__name__}"
                    ) from error
                await asyncio.sleep(PAUSE * 2 ** min(failures - 1, 5))


async def frames(
    remote: HttpGateway, instance_id: str, cursor: str
) -> AsyncGenerator[tuple[str, str, str], None]:
    """The frames of one connection: event, data, id. Raises the server's error, and TransportError."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": cursor} if cursor else {})}
    async with remote.stream(f"/instances/{quoted(instance_id)}/events", headers, SILENCE) as response:
        found: dict[str, Any] = {}
        async for line in response.aiter_lines():
            if not line:
                if "data" in found:
                    yield found.get("event", "message"), found["data"], found.get("id", "")
                found = {}
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            found[name] = f"{found['data']}\n{value}" if name == "data" and "data" in found else value


__all__ = ["RemoteWatching"]
