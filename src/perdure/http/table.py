"""A route as a row of a table: path, methods, handler, and the scope a caller needs for it.

Everything this host serves is such a row. Whatever has to hold for all of them (the access check, a
description of the API, a test that tries each with a wrong key) is written over the table, so that a new
route cannot escape it. `perdure.http.routing` turns rows into routes, with the gate before each handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from perdure.http.contract import Contract

ENDPOINT: Final = "perdure.endpoint"
"""The key in a request's scope under which the row of the table is found that serves it."""
LINK: Final = "perdure.link"
"""The key in a request's scope under which the signed link it came by is found."""
CODE: Final = "perdure.code"
"""The key in a request's scope under which the code of the error is found that became a page."""

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


__all__ = ["CODE", "ENDPOINT", "LINK", "Endpoint", "Handler", "Scope"]
