"""Checks of every request and headers of every response, before the routes.

A server on loopback is not private, because every page in a browser on the same machine can send it requests. Three
rules keep such requests out. The Host header must name this server, so that a foreign name that resolves to 127.0.0.1
is rejected (DNS rebinding). A request that can change something must not come from another origin. Browsers send the
origin in `Origin` and `Sec-Fetch-Site`, programs send neither. And the server sends no CORS headers, so a foreign
page cannot read a response. An Azure Functions app can name origins whose pages its routes serve (`cross_origin`).

Responses get headers that restrict a page (no foreign scripts, no frames, no sniffing). A handler can set its own
values, so a client function can serve any content.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from perdure.http.mounting import BASE
from perdure.http.problem import ProblemResponse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`, because browsers then send `Origin: null` from perdure's own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


_SECRET_PARAMETERS = (b"sig=", b"code=", b"token=")
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_BROWSERS = frozenset({b"origin", b"sec-fetch-site"})
"""The headers that `is_foreign` reads. A request without them does not come from a page."""


class Guard:
    """An ASGI layer that checks requests and adds headers to responses.

    Parameters:
        allowed_hosts: the names of this server besides those of loopback.
        header_bytes: the most bytes of a request's headers.
        admits: whether a page of another origin may send this request, which can change something.
        denied: called with the code of the error for each request that this layer denies.
    """

    def __init__(
        self,
        app: ASGIApp,
        allowed_hosts: Iterable[str] = (),
        header_bytes: int = 32 * 1024,
        admits: Callable[[Scope], bool] = lambda scope: False,
        denied: Callable[[str], None] = lambda code: None,
    ) -> None:
        self.app = app
        self._denied = denied
        self._admits = admits
        self.header_bytes = header_bytes
        self.allowed_hosts = LOOPBACK | {host.lower().strip("[]") for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[BASE] = scope.get("root_path", "")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if scope["query_string"] and _bears_secret(scope["query_string"]):
                    MutableHeaders(scope=message)["Referrer-Policy"] = "strict-origin"
                message["headers"] = _with_ours(message["headers"])
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            self._denied(refusal.problem["code"])
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ProblemResponse | None:
        size = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if size > self.header_bytes // 2:
            return ProblemResponse(414, "the URL is too long for this server", code="uri-too-long")
        hosts: list[bytes] = []
        is_from_browser = False
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name == b"host":
                hosts.append(value)
            elif name in _BROWSERS:
                is_from_browser = True
        if size > self.header_bytes:
            return ProblemResponse(
                431, "the headers of the request are too large for this server", code="headers-too-large"
            )
        if not scope["path"].isascii() and _has_surrogates(scope["path"]):
            return ProblemResponse(400, "the path of the URL is not UTF-8", code="malformed-address")
        if len(hosts) > 1:
            return ProblemResponse(400, "the request has more than one Host header", code="ambiguous-host")
        host = hosts[0].decode("latin-1") if hosts else ""
        if not self._is_ours(host, scope):
            return ProblemResponse(
                403,
                f"this server does not accept requests for the host {host[:100]!r}. Open it as localhost, or add "
                "the host with --allowed-hosts (PERDURE_ALLOWED_HOSTS) or asgi(allowed_hosts=...)",
                code="foreign-host",
            )
        changes = is_from_browser and scope["method"] not in SAFE
        if changes and is_foreign(Headers(scope=scope)) and not self._admits(scope):
            return ProblemResponse(
                403,
                "this request can change data and comes from a page of another origin",
                code="foreign-origin",
            )
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        name = _hostname(host)
        bound = scope.get("server") or ("", None)
        return bool(name) and (name in self.allowed_hosts or name == str(bound[0]).lower())


def _with_ours(given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a response, and the guard's own headers that the handler has not set."""
    own = {name.lower() for name, _ in given}
    return [*given, *[pair for pair in _RAW_HEADERS if pair[0] not in own]]


def _bears_secret(query: bytes) -> bool:
    """Whether the URL contains a credential, so that a page must not pass it on as a referrer."""
    return any(mark in query for mark in _SECRET_PARAMETERS)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@lru_cache(64)
def _hostname(host: str) -> str:
    """The name in a Host header, without port and brackets; "" if the header is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""


def is_foreign(headers: Headers) -> bool:
    """Whether a page of another origin sent the request, according to the browser."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        except ValueError:
            return True
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


__all__ = ["HEADERS", "Guard", "is_foreign"]
