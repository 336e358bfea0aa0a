"""The list of instances, with its filters.

It shows the data of the management API and uses the same methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from perdure.engine.client.instance_counts import instance_counts
from perdure.errors import PayloadError
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.api.streams import list_cursor
from perdure.http.pages.action_buttons import DONE
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.model.instances import Page, RuntimeStatus

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client

PAGE = 50
REFRESH = 5


@dataclass(frozen=True)
class InstanceFilters:
    """The filters in the URL of the page."""

    status: str = ""
    name: str = ""
    prefix: str = ""
    waiting_for: str = ""
    parked: str = ""
    continuation: str = ""

    @property
    def any(self) -> bool:
        return bool(self.status or self.name or self.prefix or self.waiting_for or self.parked)

    def address(self, base: str, continuation: str | None = None) -> str:
        """The URL of the page with the same filters that begins at `continuation`."""
        given = {**self.__dict__, "continuation": continuation or ""}
        query = urlencode({name: value for name, value in given.items() if value})
        return f"{base}/instances?{query}" if query else f"{base}/instances"

    def stream(self, base: str) -> str:
        """The URL of the server-sent events for the same filters."""
        given = {
            "runtimeStatus": self.status,
            "name": self.name,
            "instanceIdPrefix": self.prefix,
            "waitingFor": self.waiting_for,
            "parked": self.parked,
            "top": PAGE,
        }
        query = urlencode({name: value for name, value in given.items() if value})
        return f"{base}{MANAGEMENT}/events?{query}"


async def instance_list(request: Request) -> Response:
    """GET /instances: the number of instances in each status, and the instances that match the filters."""
    client, query = client_of(request), request.query_params
    given = {name: query.get(name, "").strip() for name in InstanceFilters.__dataclass_fields__}
    given |= {"status": ",".join(query.getlist("status")), "parked": "true" if given["parked"] else ""}
    asked = InstanceFilters(**given)
    page, problem = await _page(client, asked)
    counted = await client.gateway.read(lambda: instance_counts(client.gateway.store))
    base = base_of(request)
    return draw(
        request,
        "instances.html",
        status=400 if problem else 200,
        done=DONE.get(query.get("done", ""), ""),
        refresh=REFRESH if not asked.continuation else None,
        events=asked.stream(base),
        cursor=list_cursor(page.instances),
        asked=asked,
        counts=[
            (s.value, counted.by_status[s.value]) for s in RuntimeStatus if counted.by_status.get(s.value)
        ],
        total=counted.total,
        parked=counted.parked,
        names=sorted(engine_of(client).registry.orchestrators),
        instances=page.instances,
        problem=problem,
        first=asked.address(base),
        next=asked.address(base, page.continuation) if page.continuation else "",
    )


async def _page(client: Client, asked: InstanceFilters) -> tuple[Page, str]:
    try:
        page = await client.query(
            status=[one.strip() for one in asked.status.split(",") if one.strip()],
            name=asked.name or None,
            prefix=asked.prefix or None,
            waiting_for=asked.waiting_for or None,
            parked=bool(asked.parked),
            top=PAGE,
            continuation=asked.continuation or None,
        )
    except (PayloadError, ValueError) as error:
        return Page([]), str(error)
    return page, ""


ENDPOINTS = (Endpoint("/instances", ("GET",), as_page(instance_list), "read", is_page=True),)

__all__ = ["ENDPOINTS", "InstanceFilters", "instance_list"]
