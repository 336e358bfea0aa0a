"""URLs that lead to an instance, as Azure names them, with the origin the request came in by.

Where callers have to show a key, each URL is signed for its one operation on its one instance: no key is ever
put into a URL here.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import quote

import msgspec
from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import Response

from perdure.engine.client import checked_event_name
from perdure.http import azure_requests
from perdure.http.document import document_of
from perdure.http.mounting import BASE, mounted_at, quoted
from perdure.model.instances import OrchestrationStatus, RuntimeStatus

if TYPE_CHECKING:
    from perdure.http.access.signing import Signer

MANAGEMENT = "/runtime/webhooks/durabletask"
DECIDE = "/decide"
RETRY_AFTER_START = "10"
RETRY_AFTER_STATUS = "5"

_LINKS = {
    "statusQueryGetUri": ("status", ""),
    "sendEventPostUri": ("raise", "/raiseEvent/{eventName}"),
    "terminatePostUri": ("terminate", "/terminate?reason={text}"),
    "purgeHistoryDeleteUri": ("purge", ""),
    "restartPostUri": ("restart", "/restart"),
    "suspendPostUri": ("suspend", "/suspend?reason={text}"),
    "resumePostUri": ("resume", "/resume?reason={text}"),
    "rewindPostUri": ("rewind", "/rewind?reason={text}"),
}
_OPERATIONS = [operation for operation, _ in _LINKS.values()]


class ManagementPayload(TypedDict):
    """The URLs by which an instance is asked about and managed, as Azure names them."""

    id: str
    statusQueryGetUri: str
    sendEventPostUri: str
    terminatePostUri: str
    purgeHistoryDeleteUri: str
    restartPostUri: str
    suspendPostUri: str
    resumePostUri: str
    rewindPostUri: str


PRESENT: ContextVar[Request | None] = ContextVar("perdure_request", default=None)
"""The request that a client function is answering, for links that are asked for without naming it."""


class RequestLinks:
    """The `Links` of `perdure.engine.client` for requests of Starlette, FastAPI and Azure, and for a plain URL.

    Parameters:
        signer: signs the links; without one they need no signature.
        host: what a site mounts, to find the way to it from the site's own routes.
        public_url: the address that every link begins with, whatever a request says.
    """

    def __init__(self, signer: Signer | None = None, *, host: object = None, public_url: str = "") -> None:
        self._signer = signer
        self._host = host
        self._public_url = public_url

    def management(self, request: Any, instance_id: str) -> dict[str, str]:
        """Azure's management payload for one instance."""
        origin = self._origin(_answered(request))
        here = f"{origin}{MANAGEMENT}/instances/{quoted(instance_id)}"
        signer = self._signer
        signed = signer.sign_all(_OPERATIONS, instance_id) if signer and signer.signs_all else {}
        urls = {name: _with(here + rest, signed.get(operation)) for name, (operation, rest) in _LINKS.items()}
        return {"id": instance_id, **urls}

    def status_url(self, request: Any, instance_id: str) -> str:
        """Where to ask about an instance. Of the links that it has this is the only one made here."""
        signer = self._signer
        sig = signer.sign("status", instance_id) if signer is not None and signer.signs_all else None
        return _with(f"{self._origin(request)}{MANAGEMENT}/instances/{quoted(instance_id)}", sig)

    async def event_link(
        self, request: Any, instance_id: str, event_name: str, lasts: int, once: bool
    ) -> str:
        """A signed link to the page that decides one event of an instance; `lasts` is in microseconds."""
        checked_event_name(event_name)
        signer = self._signer
        request = _answered(request)
        if request is None and signer is not None and not signer.public_url:
            request = PRESENT.get()
        if signer is None or not (request is not None or signer.public_url):
            raise RuntimeError(
                "nobody knows yet by which address this server is reached: pass request=, or name a public URL"
            )
        await signer.prepare()
        base = self._origin(request) if request is not None else signer.public_url
        path = f"{base}{DECIDE}/{quoted(instance_id)}/{quoted(event_name)}"
        seconds = max(lasts // 1_000_000, 1)
        return _with(path, signer.sign("decide", instance_id, event_name, lasts=seconds, once=once))

    def check_status_response(self, request: Any, instance_id: str) -> Any:
        """202, where to ask, when to ask again, and the management payload."""
        management = self.management(request, instance_id)
        headers = {"Location": management["statusQueryGetUri"], "Retry-After": RETRY_AFTER_START}
        response = json_response(management, 202, headers)
        return azure_requests.response_of(response) if azure_requests.is_request(request) else response

    def completed_response(self, request: Any, status: OrchestrationStatus) -> Any:
        """200 with the output; for an instance that did not complete its status, 500 if it failed."""
        is_complete = status.runtime_status is RuntimeStatus.Completed
        failed = status.runtime_status is RuntimeStatus.Failed
        content = status.output if is_complete else document_of(status)
        response = json_response(content, 500 if failed else 200)
        if not azure_requests.is_request(request):
            return response
        # There a text is the body itself, without the quotes of JSON.
        return azure_requests.response_of(response, content if isinstance(content, str) else None)

    def _origin(self, request: Any) -> str:
        """Scheme, host and the prefix this host is mounted under; `request` may also be a URL, which then counts."""
        if self._public_url and not isinstance(request, str | URL):
            return self._public_url
        request = _present() if request is None else request
        if isinstance(request, Request):
            base = request.scope.get(BASE)
            if base is not None:  # it came through the guard: its Host header is a host and nothing else
                return f"{request.scope['scheme']}://{request.headers['host']}{quote(base)}"
            return f"{request.url.scheme}://{request.url.netloc}{quote(self._prefix(request))}"
        url = URL(str(getattr(request, "url", request)))
        return f"{url.scheme}://{url.netloc}"

    def _prefix(self, request: Request) -> str:
        scope = request.scope
        site = scope.get("app_root_path", scope.get("root_path", ""))
        routes = getattr(scope.get("router") or scope.get("app"), "routes", ())
        return f"{site}{mounted_at(routes, self._host) or ''}" if self._host is not None else str(site)


def _answered(request: Any) -> Any:
    """The request to answer. One of Azure's that a client function was handed stands for the one that has come."""
    return (PRESENT.get() or request) if azure_requests.is_request(request) else request


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


def _with(url: str, sig: str | None) -> str:
    if not sig:
        return url
    return f"{url}{'&' if '?' in url else '?'}sig={sig}"


__all__ = [
    "DECIDE",
    "MANAGEMENT",
    "PRESENT",
    "RETRY_AFTER_STATUS",
    "ManagementPayload",
    "RequestLinks",
    "json_response",
    "quoted",
]
