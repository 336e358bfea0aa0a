"""The path under which a site mounts this host, for links and cookies.

A request that goes through the host contains it (`root_path`). A request to another route of the site does not. Then
the site's routes are searched for the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from starlette.routing import Mount

BASE: Final = "perdure.base"
"""The key in a request's scope for the path prefix of this host."""


def quoted(segment: str) -> str:
    """One path segment of a URL."""
    if segment.isascii() and segment.isalnum():
        return segment  # as the ids that are made up here
    return quote(segment, safe=":@!$'()*,;~")


def prefix_of(scope: Mapping[str, Any]) -> str:
    """The path prefix of the host that a request went through, quoted for a URL."""
    return "/".join(quoted(segment) for segment in scope.get(BASE, "").split("/"))


def mounted_at(routes: Iterable[Any], host: object) -> str | None:
    """The path under which routes lead to a host; None if none does."""
    for route in routes:
        if not isinstance(route, Mount):
            continue
        if host in (route.app, getattr(route, "_base_app", None)):
            return route.path
        inside = mounted_at(getattr(route, "routes", None) or (), host)
        if inside is not None:
            return route.path + inside
    return None


__all__ = ["BASE", "mounted_at", "prefix_of", "quoted"]
