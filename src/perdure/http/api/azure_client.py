"""The base path for Azure's own Python client: the same routes, with the credential in the path and its encoding.

`azure-functions-durable` 1.x sends no key, so its credential can only be in the base URL:
`/durabletask/{credential}/…`. And it sends JSON inside a JSON string: an input of {"a": 1} arrives as
"{\\"a\\": 1}". Only below this path, such a string is unwrapped. (Azure's host passes events on as strings. So does
this server for apps that were written for Azure, see `azure_events`.) `perdure binding` prints the argument for the
client's constructor.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response, StreamingResponse

from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.mounting import quoted
from perdure.http.parameters import CONTINUATION
from perdure.http.plain_request import PlainRequest
from perdure.http.request_body import WRAPPED
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint, Handler
from perdure.model.http_calls import BUILT_IN

if TYPE_CHECKING:
    from starlette.requests import Request

RPC: Final = "/durabletask"
PAGE: Final = 1_000
"""How many rows of a list are read at a time."""
_OWN: Final = b'{"name":"%s' % BUILT_IN.encode()
"""What the status of an instance of perdure's own begins with."""
INSTANCE: Final = "INSTANCEID"
"""The placeholder for the instance id in the URLs of a binding. The client replaces it."""


def endpoints_of(management: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The rows of the management API below a path that contains the credential."""
    return tuple(
        replace(
            endpoint,
            path=f"/{{credential}}{endpoint.path}",
            handler=_adapted(endpoint.handler),
            link="",
            name=endpoint.operation,
        )
        for endpoint in management
    )


def _adapted(handler: Handler) -> Handler:
    """The handler for Azure's client: `_AS_AZURE` says which operations answer that client differently."""
    answered = _AS_AZURE.get(handler.__name__, _unwrapped)

    async def adapted(request: Request) -> Response:
        request.scope[WRAPPED] = True
        return await answered(handler, request)

    adapted.__doc__, adapted.__name__ = handler.__doc__, handler.__name__
    return adapted


async def _unwrapped(handler: Handler, request: Request) -> Response:
    return await handler(request)


async def _event(handler: Handler, request: Request) -> Response:
    """An Azure Functions app gets the data of an event as the string itself, as in Azure."""
    request.scope[WRAPPED] = engine_of(client_of(request)).registry.events == "data"
    return await handler(request)


def _asks_for_a_page(request: Request) -> bool:
    """Whether the caller knows of pages, which Azure's client does not."""
    return "top" in request.query_params or CONTINUATION in request.headers


async def _all_pages(handler: Handler, request: Request) -> Response:
    """Every row of a list, page by page. Azure's client takes one answer for all there is.

    Instances of perdure's own, such as those of schedules, are left out: Azure has none, and programs terminate what
    they find.
    """
    if _asks_for_a_page(request):
        return await handler(request)
    query = request.scope["query_string"]
    scope = {**request.scope, "query_string": (query + b"&" if query else b"") + b"top=%d" % PAGE}
    first = await handler(PlainRequest(scope, request.receive))
    if first.status_code != 200:
        return first
    if CONTINUATION not in first.headers:
        return json_response(msgspec.Raw(_without_own(bytes(first.body))))

    async def rows() -> AsyncIterator[bytes]:
        answer, between = first, b"["
        while True:
            if more := _without_own(bytes(answer.body))[1:-1]:
                yield between + more
                between = b","
            token = answer.headers.get(CONTINUATION)
            if token is None:
                break
            headers = [*scope["headers"], (CONTINUATION.encode(), token.encode())]
            answer = await handler(PlainRequest({**scope, "headers": headers}, request.receive))
        yield b"[]" if between == b"[" else b"]"

    return StreamingResponse(rows(), media_type="application/json")


def _without_own(rows: bytes) -> bytes:
    """A list of statuses without perdure's own instances."""
    if _OWN not in rows:
        return rows
    decoded = msgspec.json.decode(rows, type=list[msgspec.Raw])
    return msgspec.json.encode([one for one in decoded if not bytes(one).startswith(_OWN)])


async def _only_id(handler: Handler, request: Request) -> Response:
    """The response of a restart with the id alone, because the client takes the whole body as the new id."""
    answer = await handler(request)
    if answer.status_code != 202:
        return answer
    return json_response(json.loads(bytes(answer.body))["id"], 202)


_AS_AZURE: Final[Mapping[str, Callable[[Handler, Request], Awaitable[Response]]]] = {
    "list_instances": _all_pages,
    "list_entities": _all_pages,
    "raise_event": _event,
    "restart": _only_id,
}


def binding(address: str, hub: str, credential: str) -> dict[str, Any]:
    """The `durableClient` binding for the constructor of Azure's client, as JSON-ready data.

    Parameters:
        address: the address of the server, such as http://localhost:7071.
        hub: the hub that the server serves.
        credential: a key. A program that has the binding has all the scopes of the key.
    """
    base = f"{address.rstrip('/')}{MANAGEMENT}"
    code = f"code={quoted(credential)}"
    instance = f"{base}/instances/{INSTANCE}"
    return {
        "taskHubName": hub,
        "creationUrls": {
            "createNewInstancePostUri": f"{base}/orchestrators/{{functionName}}[/{{instanceId}}]?{code}",
            "createAndWaitOnNewInstancePostUri": f"{base}/orchestrators/{{functionName}}[/{{instanceId}}]"
            f"?timeout={{timeoutInSeconds}}&pollingInterval={{intervalInSeconds}}&{code}",
        },
        "managementUrls": {"id": INSTANCE, **_management_urls(instance, code)},
        "baseUrl": base,
        "requiredQueryStringParameters": code,
        "rpcBaseUrl": f"{address.rstrip('/')}{RPC}/{quoted(credential)}/",
    }


def _management_urls(instance: str, code: str) -> Mapping[str, str]:
    return {
        "statusQueryGetUri": f"{instance}?{code}",
        "sendEventPostUri": f"{instance}/raiseEvent/{{eventName}}?{code}",
        "terminatePostUri": f"{instance}/terminate?reason={{text}}&{code}",
        "rewindPostUri": f"{instance}/rewind?reason={{text}}&{code}",
        "suspendPostUri": f"{instance}/suspend?reason={{text}}&{code}",
        "resumePostUri": f"{instance}/resume?reason={{text}}&{code}",
        "restartPostUri": f"{instance}/restart?{code}",
        "purgeHistoryDeleteUri": f"{instance}?{code}",
    }


__all__ = ["INSTANCE", "RPC", "binding", "endpoints_of"]
