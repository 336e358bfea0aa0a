"""The SDK's own client inside the server: its requests are answered by the server's routes, without a socket.

A binding's text has an address that exists in this process alone, and no key. The three functions by which the SDK's
client sends its requests are replaced for such addresses; all others go over the network as before. Links to an
instance are perdure's, each signed for one operation, where Azure puts a key of the whole hub into them.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextvars import ContextVar
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.routing import Match

from perdure.engine.client import binding as served
from perdure.errors import PerdureError
from perdure.hosts.azure_functions import sdk
from perdure.http.access.gate import Access
from perdure.http.access.limits import RateLimits
from perdure.http.api import azure_client, azure_requests, entities, management
from perdure.http.api.azure_client import RPC
from perdure.http.api.instance_urls import RequestLinks
from perdure.http.plain_request import PlainRequest
from perdure.http.principal import Refused
from perdure.http.problem import on_http_exception, on_perdure_error
from perdure.http.responses import json_response
from perdure.http.routing import GatedRoute, routes
from perdure.http.running_engine import engine_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response

    from perdure.engine.client.client import Client
    from perdure.engine.client.gateway import Gateway, Links

ORIGIN: Final = "http://in-process.perdure.invalid/"
"""What the addresses begin with that are answered here; the domain is one that can never be reached."""
PAUSE: Final = 0.02
"""Seconds between two looks whether the server is ready."""
NO_RATE: Final = RateLimits(rate=0, burst=0)
_RUNNING: Final[dict[str, HubDoor]] = {}
_CLIENT: ContextVar[Client | None] = ContextVar("perdure_azure_client", default=None)


class HubDoor:
    """The way of an app's client functions to its hub, while that is served.

    Parameters:
        awaits_links: functions that run before the server is ready wait until their clients can make links.
    """

    def __init__(self, *, awaits_links: bool = False) -> None:
        self._awaits_links = awaits_links
        self.name = secrets.token_hex(8)
        self._loop = asyncio.get_running_loop()
        self._routes = tuple(_routes())
        self._access: Access | None = None
        self._client: Client | None = None
        _RUNNING[self.name] = self
        served.serve(self._binding_for("")["rpcBaseUrl"], self._opened)

    def close(self) -> None:
        """It leads nowhere any more."""
        _RUNNING.pop(self.name, None)
        served.unserve(self._binding_for("")["rpcBaseUrl"])

    def text_for(self, client: Client) -> str:
        """The `durableClient` binding for one call of a function, whose client it is."""
        if self._access is None:
            self._client = client
            self._access = Access(client, is_open=True, limits=NO_RATE)
        _CLIENT.set(client)
        return json.dumps(self._binding_for(client.task_hub)).replace("code=-", "code=")

    async def prepare(self, client: Client) -> None:
        """Called before a function that is not behind a route: its client can make links."""
        own = engine_of(client).client
        while self._awaits_links and own.links is None:  # noqa: ASYNC110 (nothing signals it)
            await asyncio.sleep(PAUSE)
        links = client.links = own.links
        if isinstance(links, RequestLinks):
            await links.prepare()

    def _binding_for(self, hub: str) -> dict[str, Any]:
        return azure_client.binding(f"{ORIGIN}{self.name}", hub, "-")

    def _opened(self) -> tuple[Gateway, Links | None]:
        """What `perdure.Client` made from a binding's text works with."""
        client = self.client
        return client.gateway, client.links

    @property
    def client(self) -> Client:
        """The client of the function that runs, else one of the hub."""
        found = _CLIENT.get() or self._client
        assert found is not None
        return found if found.links is not None else replace(found, links=RequestLinks())

    async def answer(self, method: str, url: str, body: Any) -> list[Any]:
        """Answer a request of the SDK's client as its HTTP functions do: the status and the JSON of the body."""
        client = self.client
        if asyncio.get_running_loop() is not self._loop:
            asked = asyncio.run_coroutine_threadsafe(self._answer(client, method, url, body), self._loop)
            return await asyncio.wrap_future(asked)
        return await self._answer(client, method, url, body)

    async def _answer(self, client: Client, method: str, url: str, body: Any) -> list[Any]:
        parts = urlsplit(url)
        path = parts.path.removeprefix(f"/{self.name}")
        scope = self._scope(client, method, path, parts.query, body)
        response = await self._routed(scope, body)
        content = await _content(response)
        return [response.status_code, json.loads(content) if content else None]

    def _scope(self, client: Client, method: str, path: str, query: str, body: Any) -> dict[str, Any]:
        headers = [(b"host", b"in-process.perdure.invalid")]
        if body is not None:
            headers.append((b"content-type", b"application/json"))
        return {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": headers,
            "scheme": "http",
            "client": ("127.0.0.1", 0),
            "server": ("in-process.perdure.invalid", 80),
            "app": SimpleNamespace(state=SimpleNamespace(client=client, access=self._access)),
        }

    async def _routed(self, scope: dict[str, Any], body: Any) -> Response:
        assert self._access is not None
        content = b"" if body is None else json.dumps(body).encode()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        for route in self._routes:
            match, more = route.matches(scope)
            if match is Match.FULL:
                request = PlainRequest({**scope, **more}, receive)
                try:
                    return await self._access.serve(request, route.gated)
                except Refused as refused:
                    return json_response({"Message": str(refused)}, refused.status)
                except (PerdureError, TimeoutError) as error:
                    return await on_perdure_error(request, error)
                except HTTPException as error:
                    return await on_http_exception(request, error)
        return json_response({"Message": f"there is no {scope['method']} {scope['path']}"}, 404)


async def _content(response: Response) -> bytes:
    """The body of an answer, also of one that is made while it is sent."""
    if isinstance(response, StreamingResponse):
        return b"".join([part async for part in response.body_iterator])  # type: ignore[misc]
    return bytes(response.body)


def _routes() -> list[GatedRoute]:
    return routes(azure_client.endpoints_of((*management.ENDPOINTS, *entities.ENDPOINTS)), RPC)


def door_of(url: str) -> HubDoor | None:
    """The door that an address leads to, None for one of the network."""
    if not url.startswith(ORIGIN):
        return None
    return _RUNNING.get(url.removeprefix(ORIGIN).partition("/")[0])


def install() -> None:
    """Have the SDK's clients ask here, where their binding is one of this process. Doing it again does nothing."""
    module = sdk.client_module()
    if getattr(module.get_async_request, "is_perdures", False):
        return
    for name, method in _REQUESTS.items():
        setattr(module, name, _asking(method, getattr(module, name)))
    _link_methods(sdk.DurableOrchestrationClient)


_REQUESTS: Final = {
    "get_async_request": "GET",
    "post_async_request": "POST",
    "delete_async_request": "DELETE",
}


def _asking(method: str, elsewhere: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def ask(url: str, data: Any = None, *args: Any, **kwargs: Any) -> Any:
        door = door_of(url)
        if door is not None:
            found = await door.answer(method, url, data if method == "POST" else None)
            return ["" if part is None and method == "GET" else part for part in found]
        if method == "POST":
            return await elsewhere(url, data, *args, **kwargs)
        return await elsewhere(url, *([data] if data is not None else []), *args, **kwargs)

    ask.is_perdures = True  # type: ignore[attr-defined]
    return ask


def _link_methods(kind: Any) -> None:
    """Links that are signed for one instance, in the three methods that give any."""
    plain_links, plain_response = kind.get_client_response_links, kind.create_check_status_response

    def get_client_response_links(self: Any, request: Any, instance_id: str) -> Any:
        door = door_of(str(self._orchestration_bindings.rpc_base_url))
        if door is None:
            return plain_links(self, request, instance_id)
        return door.client.create_http_management_payload(request, instance_id)

    def create_check_status_response(self: Any, request: Any, instance_id: str) -> Any:
        door = door_of(str(self._orchestration_bindings.rpc_base_url))
        if door is None or not azure_requests.is_request(request):
            return plain_response(self, request, instance_id)
        return door.client.create_check_status_response(request, instance_id)

    kind.get_client_response_links = get_client_response_links
    kind.create_check_status_response = create_check_status_response


__all__ = ["ORIGIN", "HubDoor", "door_of", "install"]
