"""Requests and responses of the package azure-functions, for programs that were written for it.

A client function that takes `azure.functions.HttpRequest` gets one and can return `HttpResponse`. A response to such
a request is of that class too. This module never imports the package, because a program that uses its classes has
imported it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

_LENGTHS = {"content-length", "content-type"}  # Starlette sets them itself


def request_types() -> tuple[type, ...]:
    """The class of the requests; empty if the package is not imported."""
    package = _package()
    return (package.HttpRequest,) if package is not None else ()


def response_types() -> tuple[type, ...]:
    """The class of the responses; empty if the package is not imported."""
    package = _package()
    return (package.HttpResponse,) if package is not None else ()


def is_request(value: object) -> bool:
    package = _package()
    return package is not None and isinstance(value, package.HttpRequest)


def request_of(request: Request, body: bytes) -> Any:
    """The package's request for a Starlette request."""
    return _package().HttpRequest(
        method=request.method,
        url=str(request.url),
        headers=dict(request.headers),
        params=dict(request.query_params),
        route_params={name: str(value) for name, value in request.path_params.items()},
        body=body,
    )


def response_of(response: Response, body: str | None = None) -> Any:
    """The package's response for a Starlette response. `body` replaces the response's own body."""
    return _package().HttpResponse(
        body=bytes(response.body) if body is None else body,
        status_code=response.status_code,
        headers={name: value for name, value in response.headers.items() if name != "content-length"},
        mimetype=response.media_type,
    )


def sent(response: Any) -> Response:
    """The Starlette response for the package's response."""
    headers = {name: value for name, value in response.headers.items() if name.lower() not in _LENGTHS}
    kind = response.headers.get("Content-Type") or response.mimetype
    if kind.startswith("text/") and "charset" not in kind:
        kind = f"{kind}; charset={response.charset}"
    return Response(response.get_body(), response.status_code, {**headers, "Content-Type": kind})


def _package() -> Any:
    return sys.modules.get("azure.functions")


__all__ = ["is_request", "request_of", "request_types", "response_of", "response_types", "sent"]
