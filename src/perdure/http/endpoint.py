"""A route as a row of a table: path, methods, handler, and the scope a caller needs for it.

Everything this host serves is such a row. Whatever has to hold for all of them (an access check, a
description of the API, a test that tries each with a wrong key) is written over the table, so that a new
route cannot escape it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from perdure.engine.client import Client

Scope = Literal["open", "function", "read", "operate", "admin"]
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """One route. `folded` routes match without regard to case and to a slash at the end, as Azure's do."""

    path: str
    methods: tuple[str, ...]
    handler: Handler
    scope: Scope
    folded: bool = False

    def route(self, prefix: str = "") -> Route:
        """The Starlette route, below `prefix`."""
        route = Route(prefix + self.path, self.handler, methods=self.methods)
        if self.folded:
            pattern = route.path_regex.pattern.removesuffix("$") + r"/?$"
            route.path_regex = re.compile(pattern, re.IGNORECASE)
        return route


def routes(endpoints: Iterable[Endpoint], prefix: str = "") -> list[Route]:
    """The Starlette routes of a table, below `prefix`."""
    return [endpoint.route(prefix) for endpoint in endpoints]


def client_of(request: Request) -> Client:
    """The client of the engine behind this host."""
    return cast("Client", request.app.state.client)


__all__ = ["Endpoint", "Handler", "Scope", "client_of", "routes"]
