"""Turns rows of the endpoint table into Starlette routes, with the access check before each handler.

The conversion adds the access check, so no route can be served without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import wraps
from typing import TYPE_CHECKING, Final, Protocol

from starlette.convertors import StringConvertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from perdure.http.parameters import reader_of
from perdure.http.plain_request import PlainRequest
from perdure.http.table import Endpoint, Handler

if TYPE_CHECKING:
    from starlette.types import Receive, Send
    from starlette.types import Scope as ASGIScope

    from perdure.engine.client.client import Client


_ELSEWHERE: Final[tuple[Match, ASGIScope]] = (Match.NONE, {})


class Gate(Protocol):
    """The access check before every handler: `perdure.http.access.gate.Access`."""

    async def serve(self, request: Request, endpoint: Endpoint) -> Response:
        """Call the endpoint's handler, or raise Refused."""


def route_of(row: Endpoint, prefix: str = "") -> GatedRoute:
    """The Starlette route of a row, below `prefix`, with the access check before its handler."""
    whole = prefix if row.folded and row.path == "/" and prefix else prefix + row.path
    route = GatedRoute(replace(row, path=whole))
    # A name in a path can contain any character. The handler checks it, after the access check.
    pattern, flags = route.path_regex.pattern, re.DOTALL
    if row.folded:
        pattern, flags = pattern.removesuffix("$") + r"/?$", flags | re.IGNORECASE
    route.path_regex = re.compile(pattern, flags)
    return route


def routes(endpoints: Iterable[Endpoint], prefix: str = "") -> list[GatedRoute]:
    """The Starlette routes of a table, below `prefix`."""
    return [route_of(row, prefix) for row in endpoints]


class GatedRoute(Route):
    """A route with the access check before its handler.

    `row` is its row of the table, `gated` the same row with the check of its parameters.
    """

    def __init__(self, row: Endpoint) -> None:
        gated = _Gated(row)
        super().__init__(row.path, gated, methods=row.methods, name=row.operation)
        self.row = row
        self.gated = gated.row
        self._served = frozenset(self.methods or ())
        self._converted = [
            (name, convertor.convert)
            for name, convertor in self.param_convertors.items()
            if not isinstance(convertor, StringConvertor)
        ]

    def matches(self, scope: ASGIScope) -> tuple[Match, ASGIScope]:
        """As Starlette's, with less work for the requests that are not for this route: most routes are asked."""
        if scope["type"] != "http" or scope.get("root_path"):
            return super().matches(scope)
        found = self.path_regex.match(scope["path"])
        if found is None:
            return _ELSEWHERE
        given = {**scope.get("path_params", {}), **found.groupdict()}
        for name, convert in self._converted:
            given[name] = convert(given[name])
        if self.row.fits is not None and not self.row.fits(given):
            return _ELSEWHERE
        match = Match.FULL if scope["method"] in self._served else Match.PARTIAL
        return match, {"endpoint": self.endpoint, "path_params": given}


class _Gated:
    """The access check and the handler of a row, as ASGI.

    The application's exception handlers respond to their errors. For a handler that is a plain function, Starlette
    would add a second layer of exception handlers to every request.
    """

    def __init__(self, row: Endpoint) -> None:
        self.row = replace(row, handler=_checking(row), name=row.operation)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        gate: Gate = scope["app"].state.access
        response = await gate.serve(PlainRequest(scope, receive, send), self.row)
        await response(scope, receive, send)


def _checking(endpoint: Endpoint) -> Handler:
    """The handler, with a check of the parameters of its row before it."""
    handler, taken = endpoint.handler, endpoint.contract.takes
    check = reader_of(taken)

    @wraps(handler)
    async def checked(request: Request) -> Response:
        check(request)
        return await handler(request)

    return checked if taken else handler


def client_of(request: Request) -> Client:
    """The client of the engine behind this host."""
    client: Client = request.scope["app"].state.client
    return client


__all__ = ["GatedRoute", "client_of", "route_of", "routes"]
