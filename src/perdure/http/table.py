"""A route as a row of a table: path, methods, handler, and the scope that a caller needs.

Every route of this host is such a row. The access check, the API's description, and a test that tries each route with
a wrong key all iterate over the table, so that they include every new route. `perdure.http.routing` turns rows into
routes, with the access check before each handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from perdure.http.contract import Contract

ENDPOINT: Final = "perdure.endpoint"
"""The key in a request's scope for the row that serves it."""
LINK: Final = "perdure.link"
"""The key in a request's scope for the signed link that authorizes it."""
CODE: Final = "perdure.code"
"""The key in a request's scope for the code of an error that was answered with a page."""

Scope = Literal["open", "decide", "function", "metrics", "read", "operate", "admin"]
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """One route.

    Parameters:
        path, methods, handler: as in Starlette.
        scope: the scope that a caller's key needs.
        folded: ignore case and a trailing slash when matching, as Azure's routes do.
        link: the operation whose signed links authorize this route too (see `perdure.http.access.signed_urls`).
        is_page: a page for people. Errors are pages, and the browser's session is accepted for every method.
        function: the name of the client function. A key for this function is accepted.
        hands_out: the links for a caller whose key lacks the scope operate, see `App.route`.
        fits: whether the values in a path are for this route; else the next route is asked.
        name: the name in the audit log. Default: the handler's name.
        contract: the parameters, body and responses. Parameters are checked before the handler runs.
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
    fits: Callable[[Mapping[str, Any]], bool] | None = None
    name: str = ""
    contract: Contract = field(default_factory=Contract)

    @property
    def operation(self) -> str:
        """The name of this route in the audit log."""
        return self.name or getattr(self.handler, "__name__", "").strip("_")


__all__ = ["CODE", "ENDPOINT", "LINK", "Endpoint", "Handler", "Scope"]
