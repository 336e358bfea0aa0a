"""Lets pages of named origins call the application's routes and the management API: CORS.

Only an Azure Functions app names origins, in its local.settings.json. The pages for people are never open to other
origins, and a session of theirs authorises no request of a foreign page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable
    from re import Pattern

    from starlette.types import ASGIApp, Receive, Scope, Send

    from perdure.engine.functions.registry import Origins

ANY: Final = "*"


class CrossOrigin:
    """An ASGI layer that answers preflight requests, and adds the headers that let a page read a response.

    Parameters:
        origins: the origins whose pages are allowed.
        paths: the paths that they can call.
    """

    def __init__(self, app: ASGIApp, origins: Origins, paths: Iterable[Pattern[str]]) -> None:
        self._app = app
        self._origins = origins
        self._paths = tuple(paths)
        self._sharing = CORSMiddleware(
            app,
            allow_origins=sorted(origins.named),
            allow_methods=["*"],
            allow_headers=["*"],
            allow_credentials=origins.with_credentials,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shares = scope["type"] == "http" and self._is_shared(scope)
        await (self._sharing if shares else self._app)(scope, receive, send)

    def admits(self, scope: Scope) -> bool:
        """Whether a page of an allowed origin sent this request to a path that it can call."""
        origin = Headers(scope=scope).get("origin", "")
        is_named = ANY in self._origins.named or origin.lower() in self._origins.named
        return bool(origin) and is_named and self._is_shared(scope)

    def _is_shared(self, scope: Scope) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return any(pattern.match(path) for pattern in self._paths)


__all__ = ["ANY", "CrossOrigin"]
