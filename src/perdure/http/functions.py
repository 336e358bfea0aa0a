"""Client functions behind HTTP: the user's own routes, below /api.

A route's parameters are filled by their types: the request, the client, the resources of the application's
lifespan. The parameter that is left over takes the JSON body, decoded to its annotation; without one it takes
the request, as Azure's `req` does. `def` functions run in a thread, with the blocking client.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from perdure.engine.portal import SyncClient
from perdure.engine.registry import Plan, Route, plan_of
from perdure.errors import PayloadError, PerdureError
from perdure.http.body import LimitedRequest
from perdure.http.endpoint import Endpoint, Scope
from perdure.http.links import PRESENT
from perdure.model import payload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from perdure.engine.client import Client

log = logging.getLogger("perdure.http")

PREFIX = "/api"
_SCOPES: dict[str, Scope] = {"anonymous": "open", "function": "function", "admin": "admin"}
_UNTYPED = (Any, object, inspect.Parameter.empty)


def endpoints_of(routes: list[Route], client: Client, resources: list[Any]) -> tuple[Endpoint, ...]:
    """The rows of the application's routes. Raises RegistrationError for a parameter that nothing fills."""
    return tuple(
        Endpoint(
            _path(route),
            route.methods,
            _handler(route, client, resources),
            _SCOPES[route.auth],
            function=route.name,
        )
        for route in routes
    )


def _path(route: Route) -> str:
    return route.path if route.path.startswith("/") else f"/{route.path}"


def _handler(route: Route, client: Client, resources: list[Any]) -> Callable[[Request], Awaitable[Response]]:
    plan = plan_of(route, (LimitedRequest, type(client), SyncClient, *map(type, resources)))
    given = {type(resource): resource for resource in resources}
    given |= {type(client): client, SyncClient: SyncClient(client, asyncio.get_running_loop())}
    is_async = inspect.iscoroutinefunction(inspect.unwrap(route.function))

    async def handle(request: Request) -> Response:
        limited = LimitedRequest(request.scope, request.receive)
        PRESENT.set(limited)
        arguments = await _arguments(plan, limited, given)
        try:
            result = await (
                route.function(**arguments) if is_async else run_in_threadpool(route.function, **arguments)
            )
        except (PerdureError, HTTPException, TimeoutError):
            raise
        except Exception:
            log.exception("%s %s: the function %r failed", request.method, request.url.path, route.name)
            raise HTTPException(
                500, f"the function {route.name!r} failed; the server's log says how"
            ) from None
        return _response(result, route.name)

    return handle


async def _arguments(plan: Plan[Route], request: LimitedRequest, given: dict[type, Any]) -> dict[str, Any]:
    here = {**given, LimitedRequest: request}
    arguments = {name: here[kind] for name, kind in plan.given.items()}
    if plan.input_name is not None:
        untyped = plan.input_type in _UNTYPED
        arguments[plan.input_name] = request if untyped else await _input(request, plan.input_type)
    return arguments


async def _input(request: LimitedRequest, expected: Any) -> Any:
    body = await request.body()
    return payload.decode(payload.check(body) if body.strip() else b"null", expected)


def _response(result: Any, name: str) -> Response:
    match result:
        case Response():
            return result
        case None:
            return Response(status_code=204)
        case str():
            return PlainTextResponse(result)
    try:
        return Response(payload.encode(result), media_type="application/json")
    except PayloadError as error:
        log.error("the function %r returned what JSON cannot carry: %s", name, error)
        raise HTTPException(500, f"the function {name!r} returned what JSON cannot carry: {error}") from error


__all__ = ["PREFIX", "endpoints_of"]
