"""What holds for every request and every response, before any route is looked at.

A server on loopback is not private: every page open in the same machine's browser can send it requests.
Three checks keep those out. The Host header must name this server, so that a foreign name rebound to
127.0.0.1 gets nothing (DNS rebinding). A request that may change something must not come from another
origin; browsers say where it comes from in `Origin` and `Sec-Fetch-Site`, programs send neither. And there
is no CORS, so a foreign page cannot read an answer either.

Responses get the headers that take powers away from a page (no foreign scripts, no frames, no sniffing)
unless the handler has set its own: a client function may serve what it likes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from perdure.http.mounting import BASE
from perdure.http.problem import ProblemResponse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    # Not `no-referrer`: with that, browsers send `Origin: null` from our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


_SECRET_PARAMETERS = (b"sig=", b"code=", b"token=")
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_BROWSERS = frozenset({b"origin", b"sec-fetch-site"})
"""The headers that `is_foreign` judges by; a request without them comes from no page."""


class Guard:
    """The outermost ASGI layer: the checks above, then the application, then the headers."""

    def __init__(
        self, app: ASGIApp, allowed_hosts: Iterable[str] = (), header_bytes: int = 32 * 1024
    ) -> None:
        self.app = app
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
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> ProblemResponse | None:
        size = len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])
        if size > self.header_bytes // 2:
            return ProblemResponse(
                414, "this address is longer than any of this server's", code="uri-too-long"
            )
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
                431, "the headers of this request are larger than this server reads", code="headers-too-large"
            )
        if not scope["path"].isascii() and _has_surrogates(scope["path"]):
            return ProblemResponse(400, "this address is not UTF-8", code="malformed-address")
        if len(hosts) > 1:
            return ProblemResponse(400, "a request names one host", code="ambiguous-host")
        host = hosts[0].decode("latin-1") if hosts else ""
        if not self._is_ours(host, scope):
            return ProblemResponse(
                403,
                f"this server does not answer to the name {host[:100]!r}. Open it as localhost, or name "
                "the host: `--allowed-hosts` (PERDURE_ALLOWED_HOSTS), or asgi(allowed_hosts=...)",
                code="foreign-host",
            )
        if is_from_browser and scope["method"] not in SAFE and is_foreign(Headers(scope=scope)):
            return ProblemResponse(
                403,
                "this request would change something and comes from a page of another origin",
                code="foreign-origin",
            )
        return None

    def _is_ours(self, host: str, scope: Scope) -> bool:
        name = _hostname(host)
        bound = scope.get("server") or ("", None)
        return bool(name) and (name in self.allowed_hosts or name == str(bound[0]).lower())


def _with_ours(given: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a response, and behind them those of ours that its handler has not set."""
    own = {name.lower() for name, _ in given}
    return [*given, *[pair for pair in _RAW_HEADERS if pair[0] not in own]]


def _bears_secret(query: bytes) -> bool:
    """Whether this address opens something, so that a page must tell it to nobody."""
    return any(mark in query for mark in _SECRET_PARAMETERS)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@lru_cache(64)
def _hostname(host: str) -> str:
    """The name in a Host header, without port and brackets; "" when it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""


def is_foreign(headers: Headers) -> bool:
    """Whether a browser says that a page of another origin sent this."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        except ValueError:
            return True
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none")


__all__ = ["HEADERS", "Guard", "is_foreign"]
