"""Client functions over HTTP: the user's own routes, below /api.

A route's parameters are filled by their types: the request, the client, the resources of the application's lifespan.
A parameter with the name of a path parameter gets its value, converted to the annotation. The remaining parameter
gets the JSON body, decoded to its annotation. Without an annotation it gets the request, as Azure's `req` does. A
parameter of the type `azure.functions.HttpRequest` gets a request of that class.
`def` functions run in a thread, with the blocking client.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from perdure.engine.client.sync_client import SyncClient
from perdure.engine.core.repeats import OCCASION, Occasion, digest_of
from perdure.engine.functions.callables import is_async, signature_of
from perdure.engine.functions.registry import CallPlan, Route, plan_of
from perdure.errors import InstanceExists, PayloadError, PerdureError
from perdure.http.api import azure_requests
from perdure.http.api.instance_urls import PRESENT
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import OPERATION_ID, Parameter
from perdure.http.principal import caller_of
from perdure.http.problem import shown_path
from perdure.http.request_body import LimitedRequest
from perdure.http.table import Endpoint, Scope
from perdure.model import payload
from perdure.model.events import ABSENT
from perdure.replay.inputs import NO_DEFAULT, Input

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from perdure.engine.client.client import Client

log = logging.getLogger("perdure.http")

_SCOPES: dict[str, Scope] = {"anonymous": "open", "function": "function", "admin": "admin"}
_EXISTS = "an instance with this id already exists, and this request does not replace it"
"""The error for a caller without the scope read. The engine's own error contains the status of the instance."""
_UNTYPED = (Any, object, inspect.Parameter.empty)


def endpoints_of(
    routes: Iterable[Route], client: Client, resources: Sequence[object]
) -> tuple[Endpoint, ...]:
    """The rows of the application's routes. Raises RegistrationError for a parameter that cannot be filled."""
    return tuple(_endpoint(route, client, resources) for route in routes)


def _endpoint(route: Route, client: Client, resources: Sequence[object]) -> Endpoint:
    in_path = _in_path(route)
    requests = (LimitedRequest, *azure_requests.request_types())
    plan = plan_of(route, (*requests, type(client), SyncClient, *map(type, resources)), apart=in_path.keys())
    return Endpoint(
        _path(route),
        route.methods,
        _handler(plan, in_path, client, resources),
        _SCOPES[route.auth],
        folded=route.folded,
        function=route.name,
        hands_out=route.links,
        fits=route.fits,
        contract=_contract(plan, in_path),
    )


def _in_path(route: Route) -> dict[str, Parameter[Any]]:
    """The function's parameters that are also in the path."""
    hints = route.hints()
    wanted = set(signature_of(route.function))
    names = [name for name in re.findall(r"\{(\w+)(?::\w+)?\}", route.path) if name in wanted]
    return {name: _path_parameter(name, hints.get(name, str)) for name in names}


def _path_parameter(name: str, kind: Any) -> Parameter[Any]:
    def read(found: Any) -> Any:
        try:
            return found if kind in _UNTYPED else msgspec.convert(found, kind, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error

    schema = payload.schema_of(kind) or {"type": "string"}
    return Parameter(name, name, schema, read, None, place="path", needed=True)


def _contract(plan: CallPlan[Route], in_path: dict[str, Parameter[Any]]) -> Contract:
    typed = plan.input if plan.input is not None and plan.input.type not in _UNTYPED else None
    output = plan.output_type
    ready = (Response, str, *azure_requests.response_types())
    told = output not in _UNTYPED and not (isinstance(output, type) and issubclass(output, ready))
    return Contract(
        takes=tuple(in_path.values()),
        body=Body(typed.type, needed=typed.default is NO_DEFAULT) if typed is not None else None,
        answers=(Answer(200, output),) if told and output is not type(None) and output is not None else (),
        errors=(PayloadError,),
    )


def _path(route: Route) -> str:
    return route.path if route.path.startswith("/") else f"/{route.path}"


def _handler(
    plan: CallPlan[Route], in_path: dict[str, Parameter[Any]], client: Client, resources: Sequence[object]
) -> Callable[[Request], Awaitable[Response]]:
    route = plan.definition
    given = {type(resource): resource for resource in resources}
    given |= {type(client): client, SyncClient: SyncClient(client, asyncio.get_running_loop())}
    call, runs_on_loop = plan.by_name, is_async(route.function)

    async def handle(request: Request) -> Response:
        limited = LimitedRequest(request.scope, request.receive)
        PRESENT.set(limited)
        OCCASION.set(_occasion(limited))
        arguments = await _arguments(plan, limited, given)
        arguments |= {name: parameter.of(request) for name, parameter in in_path.items()}
        try:
            result = await (
                call(**arguments) if runs_on_loop else run_in_threadpool(partial(call, **arguments))
            )
        except InstanceExists:
            if caller_of(request).may("read"):
                raise
            raise InstanceExists(_EXISTS) from None
        except (PerdureError, HTTPException, TimeoutError):
            raise
        except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit):  # sys.exit() ends the request only
            log.exception("%s %s: the function %r failed", request.method, shown_path(request), route.name)
            raise HTTPException(
                500, f"the function {route.name!r} failed. The server's log has the traceback"
            ) from None
        return _response(result, route.name)

    handle.__doc__, handle.__name__ = route.function.__doc__, route.name
    return handle


def _occasion(request: LimitedRequest) -> Occasion:
    """The request as the cause of starts, which derive their ids from its Idempotency-Key."""

    def content() -> str:
        body = getattr(request, "_body", None)
        scope = request.scope
        return "" if body is None else digest_of(scope["method"], scope["path"], scope["query_string"], body)

    try:
        key = OPERATION_ID.read(request) or ""
    except PayloadError:  # a malformed header can belong to the application
        key = ""
    return Occasion(key, caller_of(request).who, content)


async def _arguments(
    plan: CallPlan[Route], request: LimitedRequest, given: dict[type, Any]
) -> dict[str, Any]:
    here = {**given, LimitedRequest: request}
    for kind in azure_requests.request_types():
        if kind in plan.given.values():
            here[kind] = azure_requests.request_of(request, await request.body())
    arguments = {name: here[kind] for name, kind in plan.given.items()}
    if plan.input is not None:
        untyped = plan.input.type in _UNTYPED
        arguments[plan.input.name] = request if untyped else await _read(request, plan.input)
    return arguments


async def _read(request: LimitedRequest, parameter: Input) -> Any:
    body = await request.body()
    given = payload.check(body) if body.strip() else ABSENT
    try:
        return parameter.read(given)
    except PayloadError as error:
        raise PayloadError(
            f"the body does not fit the parameter {parameter.name!r}: {error}", error.pointer
        ) from None


def _response(result: Any, name: str) -> Response:
    match result:
        case Response():
            return result
        case _ if isinstance(result, azure_requests.response_types()):
            return azure_requests.sent(result)
        case None:
            return Response(status_code=204)
        case str():
            return PlainTextResponse(result)
    try:
        return Response(payload.encode(result), media_type="application/json")
    except PayloadError as error:
        log.error("the function %r returned a value that is not JSON: %s", name, error)
        raise HTTPException(
            500, f"the function {name!r} returned a value that is not JSON: {error}"
        ) from error


__all__ = ["endpoints_of"]
