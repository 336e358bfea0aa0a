"""The URLs of an instance, with Azure's names and the origin of the request.

If callers need a key, each URL is signed for one operation on one instance. A URL never contains a key. The caller
determines which URLs there are. A caller with the scope operate gets all of them, any other caller those that the
route names, by default the status only. If a start found an existing instance, an anonymous caller gets none, unless
the Idempotency-Key of the request proves that the first start was its own. Code that passes no request is the
server's own and gets all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeGuard
from urllib.parse import quote

from starlette.datastructures import URL
from starlette.requests import Request

from perdure.engine.client.client import checked_event_name
from perdure.engine.core.repeats import OCCASION
from perdure.engine.functions.registry import NAMED_EVENT
from perdure.http.access.link_signer import link_of
from perdure.http.api import azure_requests
from perdure.http.api.status_json import brief_document_of, document_of
from perdure.http.mounting import BASE, mounted_at, quoted
from perdure.http.plain_request import PlainRequest
from perdure.http.principal import ANONYMOUS
from perdure.http.request_body import LimitedRequest
from perdure.http.responses import json_response
from perdure.http.table import ENDPOINT
from perdure.model.instances import OrchestrationStatus, RuntimeStatus

if TYPE_CHECKING:
    from perdure.http.access.link_signer import Signer
    from perdure.http.api.status_json import Document
    from perdure.http.principal import Caller
    from perdure.http.table import Endpoint
    from perdure.model.human_tasks import Person

MANAGEMENT = "/runtime/webhooks/durabletask"
DECIDE = "/decide"
RETRY_AFTER_START = "10"
RETRY_AFTER_STATUS = "5"

_LINKS = {
    "statusQueryGetUri": ("inspect", ""),
    "sendEventPostUri": ("raise", "/raiseEvent/{eventName}"),
    "terminatePostUri": ("terminate", "/terminate?reason={text}"),
    "purgeHistoryDeleteUri": ("purge", ""),
    "restartPostUri": ("restart", "/restart"),
    "suspendPostUri": ("suspend", "/suspend?reason={text}"),
    "resumePostUri": ("resume", "/resume?reason={text}"),
    "rewindPostUri": ("rewind", "/rewind?reason={text}"),
}
_OPERATIONS = [operation for operation, _ in _LINKS.values()]
_SIGNED = [
    (name, operation, f"{rest}{'&' if '?' in rest else '?'}sig=")
    for name, (operation, rest) in _LINKS.items()
]
"""For each URL its name, its operation, and its end before the signature."""
OPERATION_LINKS = {
    "status": ("statusQueryGetUri", ""),
    **{operation: (name, rest) for name, (operation, rest) in _LINKS.items() if operation != "inspect"},
}
"""For each word of `App.route(links=...)`: the name of the URL, and its end."""
STATUS_ONLY = ("status",)
_OURS = (PlainRequest, LimitedRequest)
_ADDRESSES = (str, URL)  # types that give the server's address in place of a request


class ManagementPayload(TypedDict):
    """The URLs to query and manage an instance, with Azure's names. Contains only the URLs the caller is allowed."""

    id: str
    statusQueryGetUri: NotRequired[str]
    sendEventPostUri: NotRequired[str]
    sendEventPostUris: NotRequired[dict[str, str]]
    terminatePostUri: NotRequired[str]
    purgeHistoryDeleteUri: NotRequired[str]
    restartPostUri: NotRequired[str]
    suspendPostUri: NotRequired[str]
    resumePostUri: NotRequired[str]
    rewindPostUri: NotRequired[str]


PRESENT: ContextVar[Request | None] = ContextVar("perdure_request", default=None)
"""The current request of a client function, for links that are made without passing a request."""


class RequestLinks:
    """The `Links` of a client, for requests of Starlette, FastAPI and Azure, and for a plain URL.

    Parameters:
        signer: signs the links. Without a signer, links need no signature.
        host: the host that a site mounts, to find its path in the site's routes.
        public_url: the address that every link begins with, instead of the request's.
        callers: returns the caller of a request, who determines the links. Without it every caller gets all links.
        is_azure: give every caller all links, as Azure does.
    """

    def __init__(
        self,
        signer: Signer | None = None,
        *,
        host: object = None,
        public_url: str = "",
        callers: Callable[[Request], Caller] | None = None,
        is_azure: bool = False,
    ) -> None:
        self._signer = signer
        self._callers = callers
        self._is_azure = is_azure
        self._host = host
        self._public_url = public_url

    async def prepare(self) -> None:
        """Make sure that links can be signed, for code that runs without a request."""
        if self._signer is not None:
            await self._signer.prepare()

    def management(self, request: Any, instance_id: str) -> dict[str, Any]:
        """Azure's management payload for one instance, with the URLs that the request's caller is allowed."""
        answered = _answered(request)
        allowed = self._allowed(answered, instance_id)
        here = f"{self._origin(answered)}{MANAGEMENT}/instances/{quoted(instance_id)}"
        if allowed is None:
            return {"id": instance_id, **self._all(here, instance_id, self._owner(answered))}
        return {"id": instance_id, **self._some(here, instance_id, allowed, self._owner(answered))}

    def _all(self, here: str, instance_id: str, owner: str) -> dict[str, str]:
        signed = self._signed(_OPERATIONS, instance_id, owner=owner)
        if not signed:
            return {name: here + rest for name, (_, rest) in _LINKS.items()}
        return {name: f"{here}{ending}{signed[operation]}" for name, operation, ending in _SIGNED}

    def _some(self, here: str, instance_id: str, allowed: Sequence[str], owner: str) -> dict[str, Any]:
        """The URLs that a route gives out. Each event that the route names has its own URL."""
        events = [one.removeprefix(NAMED_EVENT) for one in allowed if one.startswith(NAMED_EVENT)]
        plain = [one for one in allowed if one in OPERATION_LINKS]
        signed = self._signed(plain, instance_id, owner=owner)
        urls: dict[str, Any] = {
            name: _with(here + rest, signed.get(operation))
            for operation, (name, rest) in OPERATION_LINKS.items()
            if operation in plain
        }
        if events:
            raised = {
                event: _with(
                    f"{here}/raiseEvent/{quoted(event)}",
                    self._signed(["raise"], instance_id, event, owner=owner).get("raise"),
                )
                for event in events
            }
            urls.setdefault("sendEventPostUri", raised[events[0]])
            urls["sendEventPostUris"] = raised
        return urls

    def _signed(
        self, operations: list[str], instance_id: str, event: str = "", *, owner: str = ""
    ) -> dict[str, str]:
        signer = self._signer
        if signer is None or not signer.signs_all or not operations:
            return {}
        return signer.sign_all(operations, instance_id, event, owner=owner, unborn=self._is_azure)

    def _allowed(self, request: Any, instance_id: str) -> Sequence[str] | None:
        """The links that the caller of a request is allowed, in the words of `App.route`; None for all.

        Where no request is given, it is the server's own code that asks.
        """
        if self._is_own_code(request):
            return None
        caller = self._caller(request)
        if caller.may("operate"):
            return None
        if _is_stranger(caller, instance_id):
            return ()
        if not _is_request(request):
            return STATUS_ONLY
        endpoint: Endpoint | None = request.scope.get(ENDPOINT)
        return STATUS_ONLY if endpoint is None else endpoint.hands_out

    def hides(self, request: Any, instance_id: str) -> bool:
        """Whether to hide an instance from the caller, because their start found it instead of creating it."""
        answered = _answered(request)
        if self._is_own_code(answered):
            return False
        caller = self._caller(answered)
        return not caller.may("operate") and _is_stranger(caller, instance_id)

    def _is_own_code(self, request: Any) -> bool:
        """Whether every link is given out: to the server's own code, or to every caller as in Azure."""
        return self._callers is None or self._is_azure or request is None or isinstance(request, _ADDRESSES)

    def _caller(self, request: Any) -> Caller:
        """The caller of a request. The caller of another framework's request is not known, so it is anonymous."""
        if self._callers is None or not _is_request(request):
            return ANONYMOUS
        return self._callers(request)

    def _owner(self, request: Any) -> str:
        """The id of the caller's key; "" if there is none."""
        link = link_of(request) if _is_request(request) else None
        return link.owner if link is not None else self._caller(request).key_id

    def status_url(self, request: Any, instance_id: str) -> str:
        """The URL of the instance's status."""
        here = f"{self._origin(request)}{MANAGEMENT}/instances/{quoted(instance_id)}"
        has_query = _is_request(request) and request.scope["query_string"]
        shown = request.query_params.get("sig") if has_query else None
        if shown is not None:  # a link must not produce a link that lasts longer
            return _with(here, quoted(shown))  # quoted, because a caller with a key can send any text here
        is_operator = self._allowed(request, instance_id) is None
        operation = "inspect" if is_operator else "status"
        return _with(here, self._signed([operation], instance_id, owner=self._owner(request)).get(operation))

    async def event_link(
        self,
        request: Any,
        instance_id: str,
        event_name: str,
        lasts: int,
        once: bool,
        person: Person | None = None,
    ) -> str:
        """A signed link to the page that raises one event of an instance. `lasts` is in microseconds."""
        checked_event_name(event_name)
        signer = self._signer
        request = _answered(request)
        if request is None and signer is not None and not signer.public_url:
            request = PRESENT.get()
        if signer is None or not (request is not None or signer.public_url):
            raise RuntimeError(
                "the link needs the public address of this server, which is not known. Pass request=, or set "
                "PERDURE_PUBLIC_URL"
            )
        await signer.prepare()
        base = self._origin(request) if request is not None else signer.public_url
        path = f"{base}{DECIDE}/{quoted(instance_id)}/{quoted(event_name)}"
        seconds = max(lasts // 1_000_000, 1)
        owner = self._owner(request)
        sig = signer.sign(
            "decide", instance_id, event_name, lasts=seconds, once=once, owner=owner, person=person
        )
        return _with(path, sig)

    def check_status_response(self, request: Any, instance_id: str) -> Any:
        """202 with the status URL, the time to poll it, and the management payload that the caller is allowed."""
        management = self.management(request, instance_id)
        where = management.get("statusQueryGetUri")
        headers = {"Location": where, "Retry-After": RETRY_AFTER_START} if where else {}
        response = json_response(management, 202, headers)
        return azure_requests.response_of(response) if azure_requests.is_request(request) else response

    def completed_response(self, request: Any, status: OrchestrationStatus) -> Any:
        """200 with the output of a completed instance, or else its status, with 500 if it failed.

        A caller without the scope read gets the same status as the holder of a status link.
        """
        is_complete = status.runtime_status is RuntimeStatus.Completed
        failed = status.runtime_status is RuntimeStatus.Failed
        content = status.output if is_complete else self._shown(request, status)
        response = json_response(content, 500 if failed else 200)
        if not azure_requests.is_request(request):
            return response
        # In Azure, a string is the body itself, without the quotes of JSON.
        return azure_requests.response_of(response, content if isinstance(content, str) else None)

    def _shown(self, request: Any, status: OrchestrationStatus) -> Document:
        answered = _answered(request)
        may_read = self._is_own_code(answered) or self._caller(answered).may("read")
        return document_of(status) if may_read else brief_document_of(status)

    def _origin(self, request: Any) -> str:
        """Scheme, host and path prefix of this host. `request` can be a request or a URL."""
        if self._public_url and not isinstance(request, _ADDRESSES):
            return self._public_url
        request = PRESENT.get() if request is None else request
        if request is None:
            return self._address()
        if _is_request(request):
            base = request.scope.get(BASE)
            if base is not None:  # the guard has checked that the Host header is a host and nothing else
                return f"{request.scope['scheme']}://{request.headers['host']}{quote(base)}"
            return f"{request.url.scheme}://{request.url.netloc}{quote(self._prefix(request))}"
        url = URL(str(getattr(request, "url", request)))
        return f"{url.scheme}://{url.netloc}"

    def _address(self) -> str:
        """The server's own address, for code that runs without a request. Raises RuntimeError if it is not known."""
        if self._signer is None or not self._signer.public_url:
            raise RuntimeError(
                "these URLs need the server's address, which is not known here. Call this inside a route, pass the "
                "request or the server's URL, or set PERDURE_PUBLIC_URL"
            )
        return self._signer.public_url

    def _prefix(self, request: Request) -> str:
        scope = request.scope
        site = scope.get("app_root_path", scope.get("root_path", ""))
        routes = getattr(scope.get("router") or scope.get("app"), "routes", ())
        return f"{site}{mounted_at(routes, self._host) or ''}" if self._host is not None else str(site)


def _is_stranger(caller: Caller, instance_id: str) -> bool:
    here = OCCASION.get()
    return not caller.key_id and not caller.scopes and here is not None and here.has_met(instance_id)


def _is_request(value: Any) -> TypeGuard[Request]:
    """Whether a value is a Starlette request. perdure's own classes are compared by type, because ABCs are slow."""
    return type(value) in _OURS or isinstance(value, Request)


def _answered(request: Any) -> Any:
    """The Starlette request behind a request. For one of Azure's, this is the current request."""
    return (PRESENT.get() or request) if azure_requests.is_request(request) else request


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
]
