"""The page of schedules, queues and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.http.drawing import as_page, draw
from perdure.http.endpoint import Endpoint, client_of
from perdure.http.triggers import dead_letters, queues_of
from perdure.triggers.schedules import Schedules

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LETTERS = 100


async def triggers_page(request: Request) -> Response:
    """GET /triggers: when schedules fire, how many messages stand where, which are dead."""
    client = client_of(request)
    return draw(
        request,
        "triggers.html",
        schedules=await Schedules(client).list(),
        queues=await queues_of(client),
        letters=await dead_letters(client, None, LETTERS),
    )


ENDPOINTS = (Endpoint("/triggers", ("GET",), as_page(triggers_page), "read", is_page=True),)

__all__ = ["ENDPOINTS"]
