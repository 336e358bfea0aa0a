"""A route as a row of a table: path, methods, handler, and the scope a caller needs for it.

Everything this host serves is such a row. Whatever has to hold for all of them (the access check, a
description of the API, a test that tries each with a wrong key) is written over the table, so that a new
route cannot escape it: turning a row into a route is what puts the gate before its handler.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Final, Literal

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.http.contract import Contract
from perdure.http.parameters import check

if TYPE_CHECKING:
    from starlette.types import Receive, Send
    from starlette.types import Scope as ASGIScope

    from perdure.engine.client.client import Client
    from perdure.http.access.gate import Access

_NO_QUERY: Final = QueryParams()
Scope = Literal["open", "function", "read", "operate", "admin"]
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """One route.

    Parameters:
        path, methods, handler: as Starlette has them.
        scope: what a caller's key must open.
        folded: match without regard to case and to a slash at the end, as Azure's routes do.
        link: the operation whose signed links open this route too (see `perdure.http.access.signed_urls`).
        is_page: for people: errors are pages, and the browser's session counts for every method.
        function: the client function behind it; a key for this one function opens it.
        hands_out: the links that a caller gets whose key does not operate, see `App.route`.
        name: what the audit log calls it; default the handler's name.
        contract: what it takes and answers. Its parameters are checked before the handler runs.
    """

    path: str
    methods: tuple[str, ...]
    handler: Handler
    scope: Scope
    folded: bool = False
    link: str = ""
    is_page: bool = False
    function: str = ""
    hands_out: tuple[str, ...] = ("status",)
    name: str = ""
    contract: Contract = field(default_factory=Contract)

    @property
    def operation(self) -> str:
        """What the audit log calls a request for this route."""
        return self.name or getattr(self.handler, "__name__", "").strip("_")

    def route(self, prefix: str = "") -> GatedRoute:
        """The Starlette route, below `prefix`, with the gate before its handler."""
        placed = replace(self, path=prefix + self.path)
        route = GatedRoute(placed)
        # A name may have any character in it; whether it is one is for the handler to say, behind the gate.
        pattern, flags = route.path_regex.pattern, re.DOTALL
        if self.folded:
            pattern, flags = pattern.removesuffix("$") + r"/?$", flags | re.IGNORECASE
        route.path_regex = re.compile(pattern, flags)
        return route


class GatedRoute(Route):
    """A route with the gate before its handler. `row` is the row of the table it comes from."""

    def __init__(self, row: Endpoint) -> None:
        super().__init__(row.path, _Gated(row), methods=row.methods, name=row.operation)
        self.row = row


class _Gated:
    """The gate, and behind it the handler of a row, as ASGI.

    What they raise is answered by the application's exception handlers. Starlette would put a second layer of
    those around a handler that is a plain function, at every request.
    """

    def __init__(self, row: Endpoint) -> None:
        self._row = replace(row, handler=_checking(row), name=row.operation)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        access: Access = scope["app"].state.access
        response = await access.serve(PlainRequest(scope, receive, send), self._row)
        await response(scope, receive, send)


class PlainRequest(Request):
    """A request; of those without a query, which are most, nothing is parsed to find that out."""

    @property
    def query_params(self) -> QueryParams:
        return super().query_params if self.scope["query_string"] else _NO_QUERY


def _checking(endpoint: Endpoint) -> Handler:
    """The handler, behind the check of the parameters that its row takes."""
    handler, taken = endpoint.handler, endpoint.contract.takes

    @wraps(handler)
    async def checked(request: Request) -> Response:
        check(request, taken)
        return await handler(request)

    return checked if taken else handler


def routes(endpoints: Iterable[Endpoint], prefix: str = "") -> list[GatedRoute]:
    """The Starlette routes of a table, below `prefix`."""
    return [endpoint.route(prefix) for endpoint in endpoints]


def client_of(request: Request) -> Client:
    """The client of the engine behind this host."""
    client: Client = request.scope["app"].state.client
    return client


__all__ = ["Endpoint", "GatedRoute", "Handler", "Scope", "client_of", "routes"]
