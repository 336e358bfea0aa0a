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

from perdure.http.document import document_of
from perdure.http.guard import BASE
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
    """The `Links` of `perdure.engine.client` for Starlette's requests (and for a plain URL)."""

    def __init__(self, signer: Signer | None = None) -> None:
        self._signer = signer

    def management(self, request: Any, instance_id: str) -> dict[str, str]:
        """Azure's management payload for one instance."""
        here = instance_url(request if request is not None else _present(), instance_id)
        signer = self._signer
        signed = signer.sign_all(_OPERATIONS, instance_id) if signer and signer.signs_all else {}
        urls = {name: _with(here + rest, signed.get(operation)) for name, (operation, rest) in _LINKS.items()}
        return {"id": instance_id, **urls}

    async def event_link(
        self, request: Any, instance_id: str, event_name: str, lasts: int, once: bool
    ) -> str:
        """A signed link to the page that decides one event of an instance; `lasts` is in microseconds."""
        signer = self._signer
        if request is None and signer is not None and not signer.public_url:
            request = PRESENT.get()
        if signer is None or not (request is not None or signer.public_url):
            raise RuntimeError(
                "nobody knows yet by which address this server is reached: pass request=, or name a public URL"
            )
        await signer.prepare()
        base = origin_of(request) if request is not None else signer.public_url
        path = f"{base}{DECIDE}/{quoted(instance_id)}/{quoted(event_name)}"
        seconds = max(lasts // 1_000_000, 1)
        return _with(path, signer.sign("decide", instance_id, event_name, lasts=seconds, once=once))

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
    """Scheme, host and the prefix this host is mounted under; `request` may also be a URL.

    A server that was told its public address goes by that.
    """
    if isinstance(request, Request):
        state = getattr(request.scope.get("app"), "state", None)
        public: str = getattr(state, "public_url", "")
        if public:
            return public
        base = request.scope.get(BASE)
        if base is not None:  # it came through the guard: its Host header is a host and nothing else
            return f"{request.scope['scheme']}://{request.headers['host']}{quote(base)}"
        return f"{_origin(request.url)}{quote(request.scope.get('app_root_path', ''))}"
    return _origin(URL(str(getattr(request, "url", request))))


def _origin(url: URL) -> str:
    return f"{url.scheme}://{url.netloc}"


def _with(url: str, sig: str | None) -> str:
    if not sig:
        return url
    return f"{url}{'&' if '?' in url else '?'}sig={sig}"


def instance_url(request: Any, instance_id: str) -> str:
    """The management URL of one instance."""
    return f"{origin_of(request)}{MANAGEMENT}/instances/{quoted(instance_id)}"


def status_url(request: Request, instance_id: str) -> str:
    """Where to ask about an instance. Of the links that an instance has it is the only one made here."""
    signer: Signer = request.app.state.access.signer
    sig = signer.sign("status", instance_id) if signer.signs_all else None
    return _with(instance_url(request, instance_id), sig)


def quoted(segment: str) -> str:
    """One path segment of a URL."""
    return quote(segment, safe=":@!$'()*,;~")


__all__ = [
    "DECIDE",
    "MANAGEMENT",
    "PRESENT",
    "RETRY_AFTER_STATUS",
    "ManagementPayload",
    "RequestLinks",
    "instance_url",
    "json_response",
    "origin_of",
    "quoted",
    "status_url",
]
