"""Sends one request: inserts secrets, follows redirects, limits the body, and reports errors without secrets.

It uses httpx2's transports without its client. A client would share cookies between unrelated instances, and would
follow redirects and use proxies without a check.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from perdure.errors import HttpCallError, HttpDenied, SecretNotFound, needing
from perdure.model.http_calls import HttpRequest, HttpResponse, body_of, check_uri, onward, origin
from perdure.outbound import bodies
from perdure.outbound.addresses import denial
from perdure.outbound.policy import ENVIRONMENT, HttpPolicy
from perdure.outbound.secrets import Revealed, look_up, reveal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    import httpx2

    from perdure.outbound.network import Resolve

REDIRECTS = frozenset({301, 302, 303, 307, 308})
OF_THE_TRANSFER = frozenset(
    {"content-encoding", "content-length", "transfer-encoding", "connection", "keep-alive"}
)
"""Headers about the transfer of the body. They no longer apply to the decompressed body."""


class Sender:
    """Sends the HTTP calls of one application under its policy. An async context manager, to close connections."""

    def __init__(self, policy: HttpPolicy, *, resolve: Resolve | None = None) -> None:
        self.policy = policy
        self._resolve = resolve
        self._transports: dict[str, httpx2.AsyncBaseTransport] = {}
        self._tokens: Any = policy.tokens
        self.trace_headers: Callable[[], Mapping[str, str]] = dict
        """The headers that carry the current trace; none unless a tracer sets this."""

    async def __aenter__(self) -> Sender:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._transports:
            await self._transports.popitem()[1].aclose()

    async def send(self, request: HttpRequest, key: str) -> HttpResponse:
        """Send a request and return the response, whatever its status.

        Parameters:
            request: the request.
            key: the name of the logical call, for the header `Idempotency-Key`.

        Raises:
            HttpDenied, SecretNotFound, HttpCallError, TimeoutError, ExtraMissing.
        """
        seconds = request.timeout or self.policy.seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(request, key)
        except TimeoutError:
            raise TimeoutError(f"{_shown(request)} got no complete response within {seconds:g} s") from None

    async def _follow(self, request: HttpRequest, key: str) -> HttpResponse:
        revealed = await self._revealed(request)
        for _ in range(self.policy.max_redirects + 1):
            response = await self._exchange(request, key, revealed)
            location = response.header("location")
            if response.status_code not in REDIRECTS or not location or not self.policy.max_redirects:
                return response
            request = _redirected(request, response.status_code, location)
        raise HttpCallError(
            f"{_shown(request)} was redirected more than {self.policy.max_redirects} times "
            "(HttpPolicy.max_redirects)"
        )

    async def _revealed(self, request: HttpRequest) -> Revealed:
        revealed = await reveal(request, self.policy)
        if not request.token_resource:
            return revealed
        if self._tokens is None:
            _need_httpx()
            from perdure.outbound.tokens import ManagedIdentity

            self._tokens = ManagedIdentity()
        token = await look_up(self._tokens, request.token_resource)
        if not isinstance(token, str) or not token.isprintable() or not token:
            raise SecretNotFound(f"HttpPolicy.tokens returned no token for {request.token_resource!r}")
        return Revealed(revealed.sent, (token, *revealed.values))

    async def _exchange(self, request: HttpRequest, key: str, revealed: Revealed) -> HttpResponse:
        """Send one request and return its response. Errors contain no secrets and no causes."""
        _need_httpx()
        from perdure.outbound.network import NETWORK_ERRORS

        body = body_of(request, revealed.sent)
        if len(body) > self.policy.max_request:
            raise HttpDenied(
                f"the body of {_shown(request)} has {len(body)} bytes. HttpPolicy.max_request allows "
                f"{self.policy.max_request}"
            )
        try:
            return await self._carried(
                request, _headers_of(request, key, revealed, self.trace_headers()), body, revealed
            )
        except NETWORK_ERRORS as error:
            told = revealed.blot(str(error)) or type(error).__name__
            raise HttpCallError(f"{_shown(request)} got no response: {told}") from None

    async def _carried(
        self, request: HttpRequest, headers: list[tuple[str, str]], body: bytes, revealed: Revealed
    ) -> HttpResponse:
        import httpx2

        try:
            built = httpx2.Request(request.method, request.uri, headers=headers, content=body or None)
            check_uri(str(built.url))  # the URL as httpx2 parses it
        except (httpx2.InvalidURL, ValueError) as error:
            raise HttpDenied(f"{_shown(request)} cannot be sent: {revealed.blot(str(error))}") from None
        answered = await self._transport(built.url).handle_async_request(built)
        try:
            packing = answered.headers.get("content-encoding", "")
            nothing = request.method == "HEAD" or answered.status_code in (204, 304)
            read = await bodies.read_body(
                answered.stream,  # type: ignore[arg-type]
                "" if nothing else packing,
                self.policy.max_response,
            )
        finally:
            await answered.aclose()
        return _response(answered, read, str(built.url), revealed)

    def _transport(self, url: httpx2.URL) -> httpx2.AsyncBaseTransport:
        from perdure.outbound import network

        proxy = self._proxy(url)
        if proxy:
            _judge_without_resolving(self.policy, url)
        found = self._transports.get(proxy)
        if found is None:
            if proxy:
                import httpx2

                found = httpx2.AsyncHTTPTransport(
                    verify=self.policy.tls or True, trust_env=False, proxy=proxy
                )
            else:
                found = network.GuardedTransport(self.policy, self._resolve or network.system_resolve)
            self._transports[proxy] = found
        return found

    def _proxy(self, url: httpx2.URL) -> str:
        """The proxy for a URL; "" for none."""
        if self.policy.proxy != ENVIRONMENT:
            return self.policy.proxy or ""
        import urllib.request  # slow to import, and seldom needed

        if urllib.request.proxy_bypass(url.host):
            return ""
        proxies = urllib.request.getproxies()
        return proxies.get(url.scheme) or proxies.get("all") or ""


def _judge_without_resolving(policy: HttpPolicy, url: httpx2.URL) -> None:
    """Check a request that goes to a proxy, which resolves names itself: check literal addresses and `only`."""
    from ipaddress import ip_address

    from perdure.outbound.network import demand_listed

    port = origin(str(url))[2]
    demand_listed(policy, url.host, port)
    try:
        address = ip_address(url.host.strip("[]"))
    except ValueError:
        return
    why = denial(url.host, port, address, policy.allowed)
    if why:
        raise HttpDenied(why)


def _headers_of(
    request: HttpRequest, key: str, revealed: Revealed, trace: Mapping[str, str]
) -> list[tuple[str, str]]:
    given = {**request.headers, **{use.header: revealed.sent[use] for use in request.secrets if use.header}}
    defaults = {"User-Agent": "perdure", "Accept": "*/*", "Accept-Encoding": bodies.ACCEPTED}
    if request.token_resource:
        defaults["Authorization"] = f"Bearer {revealed.values[0]}"
    if request.idempotent:
        defaults["Idempotency-Key"] = quote(key, safe=":-_.~")
    named = {name.lower() for name in given}
    if not named & trace.keys():  # a tracestate belongs to its traceparent
        defaults.update(trace)
    return [*given.items(), *((n, v) for n, v in defaults.items() if n.lower() not in named)]


def _redirected(request: HttpRequest, status: int, location: str) -> HttpRequest:
    """The request after a redirect (RFC 9110, 15.4). A POST becomes a GET, except for 307 and 308."""
    address = urljoin(request.uri, location)
    try:
        check_uri(address)
    except ValueError as error:
        raise HttpDenied(
            f"{_shown(request)} was redirected to an address that call_http does not follow: {error}"
        ) from None
    changes = (status == 303 and request.method != "HEAD") or (
        status in (301, 302) and request.method == "POST"
    )
    following = onward(request, address, method="GET" if changes else request.method)
    lost = {use.pointer for use in request.secrets if use.pointer} - {
        use.pointer for use in following.secrets
    }
    if lost and following.form:
        raise HttpDenied(
            f"{_shown(request)} was redirected to another origin ({_shown(following)}), which must not receive the "
            "secret in the body"
        )
    return following


def _response(answered: httpx2.Response, body: bytes, url: str, revealed: Revealed) -> HttpResponse:
    headers: dict[str, str] = {}
    for name, value in answered.headers.multi_items():
        folded = name.lower()
        if folded not in OF_THE_TRANSFER:
            headers[folded] = f"{headers[folded]}, {value}" if folded in headers else value
    kind, charset = _kind(headers.get("content-type", ""))
    content, is_base64 = bodies.as_content(revealed.blot_bytes(body), kind, charset)
    return HttpResponse(
        answered.status_code,
        {name: revealed.blot(value) for name, value in headers.items()},
        content,
        revealed.blot(url),
        is_base64,
    )


def _kind(content_type: str) -> tuple[str, str]:
    """The media type and its charset."""
    kind, _, parameters = content_type.partition(";")
    charset = next(
        (
            value.strip().strip('"')
            for name, _, value in _pairs(parameters)
            if name.strip().lower() == "charset"
        ),
        "",
    )
    return kind.strip().lower(), charset


def _pairs(parameters: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in parameters.split(";")]


def _shown(request: HttpRequest) -> str:
    """A request as text for errors, without its query, which often contains keys."""
    parts = urlsplit(request.uri)
    return f"{request.method} {parts.scheme}://{parts.netloc}{parts.path}"


def _need_httpx() -> None:
    with needing("server", "call_http"):
        import httpx2  # noqa: F401
