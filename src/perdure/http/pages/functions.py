"""The page of functions: what the application of this server registers, in which versions, and where in its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.http.pages.rendering import as_page, draw
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.model.http_calls import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.functions.registry import Definition, Registry


@dataclass(frozen=True)
class Registered:
    """A function on the page: its kind, its names and versions, and its place in the code."""

    kind: str
    name: str
    module: str
    versions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    pool: str = ""


async def functions_page(request: Request) -> Response:
    """GET /functions: the orchestrators, activities and entities of the application."""
    registry = engine_of(client_of(request)).registry
    return draw(
        request,
        "functions.html",
        functions=[one for one in _registered(registry) if not one.name.startswith(BUILT_IN)],
    )


def _registered(registry: Registry) -> Iterator[Registered]:
    for name, orchestrator in sorted(registry.orchestrators.items()):
        if name == orchestrator.name:
            versions = tuple(version for version in registry.versions[name] if version)
            yield Registered("orchestrator", name, _module(orchestrator), versions, orchestrator.aliases)
    for name, activity in sorted(registry.activities.items()):
        if name == activity.name:
            yield Registered(
                "activity", name, _module(activity), aliases=activity.aliases, pool=activity.pool
            )
    for name, entity in sorted(registry.entities.items()):
        yield Registered("entity", name, _module(entity))


def _module(definition: Definition) -> str:
    function = definition.function
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}".strip(".")


ENDPOINTS = (Endpoint("/functions", ("GET",), as_page(functions_page), "read", is_page=True),)

__all__ = ["ENDPOINTS"]
