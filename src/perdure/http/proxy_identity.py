"""Sign-in by a reverse proxy: it tells in headers who is signed in, and is believed only if it is listed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from perdure.model.access import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perdure.model.access import Identify

BY_PROXY: Final = "perdure.by-proxy"
"""The key in a request's scope that says that a listed proxy sent it."""


def proxy_identity(
    header: str, *, roles_header: str = "", scopes: Mapping[str, tuple[str, ...]] | None = None
) -> Identify:
    """A sign-in for `App(identify=...)` that believes the headers of a reverse proxy, such as oauth2-proxy.

    The headers count only in requests of a proxy that `trusted_proxies` lists. In other requests they are ignored,
    because every client can send them. The proxy must replace these headers in the requests of its clients.

    Parameters:
        header: the header with the person's name, such as "X-Auth-Request-Email".
        roles_header: the header with the person's roles, separated by commas, such as "X-Auth-Request-Groups".
        scopes: for some roles, what people with this role may do besides seeing and deciding tasks, as the scopes of
            a key: `{"operations": ("operate",)}`.

    A request with two lines of one of the headers is rejected: the proxy passes on what its client sent.
    """
    granted = dict(scopes or {})

    def identify(request: Any) -> Identity | None:
        if not request.scope.get(BY_PROXY):
            return None
        name = _only(request, header)
        if not name:
            return None
        listed = _only(request, roles_header) if roles_header else ""
        roles = tuple(role for part in listed.split(",") if (role := part.strip()))
        more = (scope for role in roles for scope in granted.get(role, ()))
        return Identity(name, roles, tuple(dict.fromkeys(("decide", *more))))

    return identify


def _only(request: Any, header: str) -> str:
    found = request.headers.getlist(header)
    if len(found) > 1:
        raise ValueError(
            f"the proxy sent the header {header} {len(found)} times. Let it replace the header that clients send"
        )
    return found[0].strip() if found else ""


__all__ = ["BY_PROXY", "proxy_identity"]
