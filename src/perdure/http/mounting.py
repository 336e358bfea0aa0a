"""Where this host hangs in somebody's site: the path before all of its own, for links and cookies.

A request that comes through the host tells it (`root_path`). One that the site around it answers does not: then the
site's own routes are looked through for the place where the host is mounted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from starlette.routing import Mount

BASE: Final = "perdure.base"
"""The key in a request's scope under which the path prefix of this host is remembered."""


def quoted(segment: str) -> str:
    """One path segment of a URL."""
    if segment.isascii() and segment.isalnum():
        return segment  # as the ids that are made up here
    return quote(segment, safe=":@!$'()*,;~")


def prefix_of(scope: Mapping[str, Any]) -> str:
    """The prefix of the host that a request came through, as it stands in a URL."""
    return "/".join(quoted(segment) for segment in scope.get(BASE, "").split("/"))


def mounted_at(routes: Iterable[Any], host: object) -> str | None:
    """The path under which routes lead to a host; None when they do not."""
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
