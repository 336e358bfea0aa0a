"""Connections whose address is checked when they are made.

The host name is resolved once, each of its addresses is checked, and the connection goes to one of these addresses.
The name is not resolved again, so an answer that changes in between (DNS rebinding) has no effect. TLS still verifies
the name, because only the connection below it is pinned. Requests after a redirect or a `Location` are checked in the
same way.
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
    """All addresses of a host from the machine's resolver, without duplicates."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(place[0]) for *_, place in found))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects only to addresses that the policy allows."""

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
        raise HttpDenied(f"call_http does not connect to local sockets ({path})")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _admitted(self, host: str, port: int) -> list[Address]:
        """The host's addresses. If one of them is denied, all are, because such an answer is probably an attack."""
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
    """Raise HttpDenied for a host that is not in `HttpPolicy.only`."""
    if policy.exclusive is not None and not policy.exclusive.has_host(host, port):
        raise HttpDenied(
            f"{host}:{port} is not in HttpPolicy.only, which lists the only hosts that can be called"
        )


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Sends httpx2's requests over connections of a `GuardedNetwork`."""

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
    """Adapts a body of httpcore2 to httpx2."""

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
