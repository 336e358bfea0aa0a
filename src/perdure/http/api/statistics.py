"""What the hub did in the last hour or day, over the management API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from perdure.http.api.management import endpoint
from perdure.http.contract import Answer, Contract
from perdure.http.parameters import choice
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.model.statistics import WINDOWS, HubStatistics

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LAST: Final = choice("last", "the time that the statistics cover; an hour without it", *WINDOWS)


async def statistics(request: Request) -> Response:
    """GET statistics: count what instances did in the last hour, by minute, or in the last day, by hour."""
    return json_response(await client_of(request).statistics(LAST.of(request) or "hour"))


ENDPOINTS = (
    endpoint(
        "/statistics",
        "GET",
        statistics,
        "read",
        Contract((LAST,), None, (Answer(200, HubStatistics, "The statistics, the oldest interval first."),)),
    ),
)
"""Below /runtime/webhooks/durabletask."""

__all__ = ["ENDPOINTS"]
