"""URLs that lead to an instance, as Azure names them, with the origin the request came in by.

Access keys and signatures will be added to these URLs here, and nowhere else.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response

from perdure.http.document import document_of
from perdure.http.guard import BASE
from perdure.model.instances import OrchestrationStatus, RuntimeStatus

MANAGEMENT = "/runtime/webhooks/durabletask"
RETRY_AFTER_START = "10"
RETRY_AFTER_STATUS = "5"

_LINKS = {
    "statusQueryGetUri": "",
    "sendEventPostUri": "/raiseEvent/{eventName}",
    "terminatePostUri": "/terminate?reason={text}",
    "purgeHistoryDeleteUri": "",
    "restartPostUri": "/restart",
    "suspendPostUri": "/suspend?reason={text}",
    "resumePostUri": "/resume?reason={text}",
}


PRESENT: ContextVar[Request | None] = ContextVar("perdure_request", default=None)
"""The request that a client function is answering, for links that are asked for without naming it."""


class RequestLinks:
    """The `Links` of `perdure.engine.client` for Starlette's requests (and for a plain URL)."""

    def management(self, request: Any, instance_id: str) -> dict[str, str]:
        """Azure's management payload for one instance."""
        here = instance_url(request if request is not None else _present(), instance_id)
        return {"id": instance_id, **{name: here + rest for name, rest in _LINKS.items()}}

    def check_status_response(self, request: Any, instance_id: str) -> Response:
        """202, where to ask, when to ask again, and the management payload."""
        management = self.management(request, instance_id)
        headers = {"Location": management["statusQueryGetUri"], "Retry-After": RETRY_AFTER_START}
        return json_response(management, 202, headers)

    def completed_response(self, status: OrchestrationStatus) -> Response:
        """200 with the output; for an instance that did not complete its status, 500 if it failed."""
        if status.runtime_status is RuntimeStatus.Completed:
            return json_response(status.output)
        failed = status.runtime_status is RuntimeStatus.Failed
        return json_response(document_of(status), 500 if failed else 200)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response; a body that is already encoded (`msgspec.Raw`) passes as it is."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")


def _present() -> Request:
    request = PRESENT.get()
    if request is None:
        raise RuntimeError(
            "these URLs begin with the server's address, which only a request tells: ask for them inside a "
            "route, or pass the request or the server's URL"
        )
    return request


def origin_of(request: Any) -> str:
    """Scheme, host and the prefix this host is mounted under; `request` may also be a URL."""
    if isinstance(request, Request):
        base = request.scope.get(BASE, request.scope.get("app_root_path", ""))
        return f"{request.url.scheme}://{request.url.netloc}{quote(base)}"
    url = URL(str(getattr(request, "url", request)))
    return f"{url.scheme}://{url.netloc}"


def instance_url(request: Any, instance_id: str) -> str:
    """The management URL of one instance."""
    return f"{origin_of(request)}{MANAGEMENT}/instances/{quoted(instance_id)}"


def quoted(segment: str) -> str:
    """One path segment of a URL."""
    return quote(segment, safe=":@!$'()*,;~")


__all__ = [
    "MANAGEMENT",
    "PRESENT",
    "RETRY_AFTER_STATUS",
    "RequestLinks",
    "instance_url",
    "json_response",
    "origin_of",
    "quoted",
]
