"""The page of workers: the processes that serve the hub, and the partitions each of them owns."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from perdure.http.pages.rendering import as_page, draw
from perdure.http.routing import client_of
from perdure.http.table import Endpoint

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def workers_page(request: Request) -> Response:
    """GET /workers: the workers of the hub and their partitions."""
    client = client_of(request)
    partitions = await client.partitions()
    return draw(
        request,
        "workers.html",
        workers=await client.workers(),
        partitions=partitions,
        free=Counter(one.owner for one in partitions)[""],
        refresh=10,
    )


ENDPOINTS = (Endpoint("/workers", ("GET",), as_page(workers_page), "read", is_page=True),)

__all__ = ["ENDPOINTS"]
