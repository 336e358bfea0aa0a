"""Errors as responses: one table from error to status, and one format for all errors.

The format is the problem document of RFC 9457. Its `type` is the path of a page on this server that explains the
error (`perdure.http.pages.error_pages`). It also has the members `Message` and `ExceptionMessage`, which Azure's
clients read. `code` is the stable code of the error, from which `perdure.http.remote.gateway` raises the same error
in the client. `number` is the number of the page, here and in the documentation. An unexpected error reveals no
internals. The store's own message, with its address or file, is only logged.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from perdure.error_numbers import number_of
from perdure.errors import (
    AccessRefused,
    EngineStopped,
    ExtraMissing,
    FunctionNotFound,
    IdempotencyConflict,
    IllegalTransition,
    InstanceExists,
    InstanceFinished,
    InstanceNotFound,
    InvalidInstanceId,
    KeyNotFound,
    LinkSpent,
    OutcomeUnknown,
    Overloaded,
    PayloadError,
    PerdureError,
    RateLimited,
    StoreError,
    StoreFull,
    TaskClosed,
    TaskHeld,
    TaskRefused,
    Unauthenticated,
    holder_told,
    outward,
)
from perdure.http.formatting import plain
from perdure.http.mounting import prefix_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

log = logging.getLogger("perdure.http")

STATUS: dict[type[BaseException], int] = {
    PayloadError: 400,  # EventRefused too
    InvalidInstanceId: 400,
    FunctionNotFound: 404,  # 400 for the function to start, as in Azure
    InstanceNotFound: 404,
    TimeoutError: 408,
    AccessRefused: 403,
    Unauthenticated: 401,
    LinkSpent: 410,
    RateLimited: 429,
    KeyNotFound: 404,
    InstanceExists: 409,
    IllegalTransition: 409,
    IdempotencyConflict: 422,
    TaskClosed: 409,
    TaskHeld: 409,
    TaskRefused: 403,
    InstanceFinished: 410,
    Overloaded: 429,
    PerdureError: 500,
    ExtraMissing: 501,
    EngineStopped: 503,
    OutcomeUnknown: 503,
    StoreError: 503,
    StoreFull: 507,
}
ERRORS = "/errors"
"""The path of the pages that explain errors."""
RETRY_AFTER = {429: "1", 503: "5", 507: "30"}
TITLE = {413: "Content Too Large", 422: "Unprocessable Content"}


SAME_PAGE = {
    "key-expired": "unauthenticated",
    "key-revoked": "unauthenticated",
    "no-keys": "unauthenticated",
    "ambiguous-credentials": "unauthenticated",
    "too-many-failures": "rate-limited",
    "bad-link": "forbidden",
    "foreign-host": "forbidden",
    "foreign-origin": "forbidden",
}
"""Codes that are explained on the page of another code."""


class ProblemResponse(Response):
    """A problem document."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str,
        headers: dict[str, str] | None = None,
        exception_type: str = "",
        **more: Any,
    ) -> None:
        number = number_of(SAME_PAGE.get(code, code)) or number_of("http")
        self.problem = {
            "type": f"{ERRORS}/{number}",
            "title": title_of(status),
            "status": status,
            "detail": detail,
            "code": code,
            "number": number,
            **{name: value for name, value in more.items() if value},
            "Message": title_of(status),
            "ExceptionMessage": detail,
            "ExceptionType": exception_type,
        }
        waits = {"Retry-After": RETRY_AFTER[status]} if status in RETRY_AFTER else {}
        super().__init__(msgspec.json.encode(self.problem), status, {**waits, **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the document. If the host is mounted below a path, add the path to `type`."""
        prefix = prefix_of(scope)
        if prefix:
            self.problem["type"] = f"{prefix}{ERRORS}/{self.problem['number']}"
            self.body = msgspec.json.encode(self.problem)
            self.headers["Content-Length"] = str(len(self.body))
        await super().__call__(scope, receive, send)


def shown_path(request: Request) -> str:
    """The request's path for people and logs, without the credential that Azure's client puts into it."""
    credential = request.path_params.get("credential")
    path = str(request.url.path)
    if credential is not None:
        path = path.replace(quote(credential), "…").replace(credential, "…")
    return plain(path, "")


def problem_of(error: Exception, *, status: int | None = None, instance: str = "") -> ProblemResponse:
    """The problem document of a PerdureError or a TimeoutError."""
    kind = type(error)
    return ProblemResponse(
        status or status_of(error),
        outward(error) or title_of(status_of(error)),
        code=error.code if isinstance(error, PerdureError) else "timeout",
        exception_type=f"{kind.__module__}.{kind.__qualname__}",
        pointer=getattr(error, "pointer", ""),
        holder=holder_told(error),
        instance=instance,
    )


def status_of(error: BaseException) -> int:
    """The HTTP status of an error: that of its class or its nearest ancestor in the table."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def title_of(status: int) -> str:
    """The phrase for a status."""
    return TITLE.get(status) or HTTPStatus(status).phrase


async def on_perdure_error(request: Request, error: Exception) -> Response:
    """The response to a PerdureError or TimeoutError from a handler."""
    answer = problem_of(error, instance=shown_path(request))
    if answer.status_code >= 500:
        log.error("%s %s: %s", request.method, shown_path(request), error)
    return answer


async def on_http_exception(request: Request, error: Exception) -> Response:
    """The response to Starlette's HTTPException from routing or a client function."""
    assert isinstance(error, HTTPException)
    if error.status_code in (204, 304):
        return Response(status_code=error.status_code, headers=error.headers)
    return ProblemResponse(
        error.status_code,
        error.detail or title_of(error.status_code),
        code=title_of(error.status_code).lower().replace(" ", "-").replace("'", ""),
        headers=dict(error.headers or {}),
        instance=shown_path(request),
    )


async def on_disconnect(request: Request, error: Exception) -> Response:
    """The response for a client that disconnected within its request. The client does not read it."""
    return ProblemResponse(400, "the request ended before it was complete", code="incomplete-request")


async def on_surprise(request: Request, error: Exception) -> Response:
    """The response to an unexpected error. The server logs the error and does not show it to the caller."""
    return ProblemResponse(
        500,
        "The server failed with an internal error. The request may or may not have taken effect. The server's log "
        "has the traceback.",
        code="internal",
        instance=shown_path(request),
    )


__all__ = [
    "ERRORS",
    "STATUS",
    "ProblemResponse",
    "on_disconnect",
    "on_http_exception",
    "on_perdure_error",
    "on_surprise",
    "problem_of",
    "status_of",
    "title_of",
]
