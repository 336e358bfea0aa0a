"""Requests through a proxy: the real address of the caller, and the address that the caller used.

`X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host` are trusted from listed proxies only. Of each list, only
the part that the last listed proxy has seen itself is trusted: the caller is the rightmost address that is not a
listed proxy, because everything to its left can be forged. From any other peer the headers are removed, so that no
later code relies on them. A request from a listed proxy without X-Forwarded-For is never treated as local.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from perdure.http.proxy_identity import BY_PROXY

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

NOBODY: Final = "0.0.0.0"
"""The address of a caller that a listed proxy does not report. It never counts as this machine."""
_FORWARDED: Final = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"})


class Proxies:
    """The outermost ASGI layer: replaces the connection's addresses by those that listed proxies report.

    Parameters:
        app: the application behind it.
        trusted: addresses and networks (10.0.0.0/8) of proxies.
    """

    def __init__(self, app: ASGIApp, trusted: Iterable[str] = ()) -> None:
        self.app = app
        self._trusted = [ip_network(name, strict=False) for name in trusted]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self._seen_through(scope)
        await self.app(scope, receive, send)

    def _seen_through(self, scope: Scope) -> Scope:
        headers = [pair for pair in scope["headers"] if pair[0] not in _FORWARDED]
        if not self._trusted or not self._is_trusted((scope.get("client") or ("", 0))[0]):
            return scope if len(headers) == len(scope["headers"]) else {**scope, "headers": headers}
        told = {**scope, "client": (self._caller(scope), 0), BY_PROXY: True}
        scheme = _last(scope, b"x-forwarded-proto").lower()
        if scheme in ("http", "https"):
            told["scheme"] = scheme
        host = _last(scope, b"x-forwarded-host")
        if host:
            headers = [pair for pair in headers if pair[0] != b"host"] + [(b"host", host.encode("latin-1"))]
        return {**told, "headers": headers}

    def _caller(self, scope: Scope) -> str:
        for hop in reversed(_listed(scope, b"x-forwarded-for")):
            address = _address(hop)
            if address is None:
                return NOBODY
            if not self._is_trusted(str(address)):
                return str(address)
        return NOBODY

    def _is_trusted(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(address in network for network in self._trusted)


def _listed(scope: Scope, name: bytes) -> list[str]:
    """The values of a header in order, from all its lines."""
    lines = [value.decode("latin-1") for found, value in scope["headers"] if found == name]
    return [part.strip() for line in lines for part in line.split(",") if part.strip()]


def _last(scope: Scope, name: bytes) -> str:
    return next(reversed(_listed(scope, name)), "")


@lru_cache(256)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Parse the address of one hop: 10.0.0.1, 10.0.0.1:4711, ::1, [::1]:4711. None for any other text."""
    bare = text.strip()
    if bare.startswith("["):
        bare = bare[1:].partition("]")[0]
    elif bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        found = ip_address(bare)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


__all__ = ["NOBODY", "Proxies"]
