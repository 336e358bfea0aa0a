"""Connections that are checked where they are made.

The name is resolved once, every address it has is judged, and the connection is made to one of these very
addresses. Nothing resolves the name again, so an answer that changes in between (DNS rebinding) changes nothing.
TLS still verifies the name, since only the connection below it is pinned. Whatever led to the request, a
redirect or a `Location`, comes through here.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Any

import httpcore2
import httpx2

from perdure.errors import HttpDenied
from perdure.outbound.addresses import Address, denial
from perdure.outbound.policy import HttpPolicy

CONNECT = 10.0  # seconds for one address, before the next is tried
Resolve = Callable[[str, int], Awaitable[list[Address]]]


async def system_resolve(host: str, port: int) -> list[Address]:
    """All addresses of a host, as the machine's resolver gives them; each once."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(place[0]) for *_, place in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to addresses the policy admits, and to no other."""

    def __init__(self, policy: HttpPolicy, resolve: Resolve) -> None:
        self._policy = policy
        self._resolve = resolve
        self._plain = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failed: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in await self._admitted(host, port):
            try:
                return await self._plain.connect_tcp(
                    str(address), port, timeout or CONNECT, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    async def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        raise HttpDenied(f"call_http reaches no local socket ({path})")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _admitted(self, host: str, port: int) -> list[Address]:
        """The host's addresses. One that is not admitted condemns them all: such an answer is a trick."""
        demand_listed(self._policy, host, port)
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"{host} cannot be resolved: {error}") from None
        for address in addresses:
            why = denial(host, port, address, self._policy.allowed)
            if why:
                raise HttpDenied(why)
        return addresses


def demand_listed(policy: HttpPolicy, host: str, port: int) -> None:
    """Raise HttpDenied for a host that `HttpPolicy.only` leaves out."""
    if policy.exclusive is not None and not policy.exclusive.has_host(host, port):
        raise HttpDenied(
            f"{host}:{port} is not among the hosts of HttpPolicy.only, and no other may be called"
        )


class GuardedTransport(httpx2.AsyncBaseTransport):
    """httpx2's requests over connections of a `GuardedNetwork`."""

    def __init__(self, policy: HttpPolicy, resolve: Resolve) -> None:
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=policy.tls or httpx2.create_ssl_context(trust_env=False),
            max_connections=100,
            max_keepalive_connections=20,
            keepalive_expiry=15.0,
            network_backend=GuardedNetwork(policy, resolve),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        answered = await self._pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx2.Response(answered.status, headers=answered.headers, stream=_Body(answered.stream))

    async def aclose(self) -> None:
        await self._pool.aclose()


class _Body(httpx2.AsyncByteStream):
    """The body of httpcore2 as httpx2 reads one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


NETWORK_ERRORS: tuple[type[Exception], ...] = (
    httpx2.HTTPError,
    httpcore2.NetworkError,
    httpcore2.ProtocolError,
    httpcore2.TimeoutException,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    OSError,
)
