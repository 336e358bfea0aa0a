"""The list of instances: filters, views that a visitor saves, an order, and one line for each instance.

It shows the data of the management API and uses the same methods. Its filters are those of the API, in the address of
the page, so that a view is a link.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from perdure.engine.client.instance_counts import instance_counts, own_counts
from perdure.engine.client.searching import ORDERS
from perdure.errors import PayloadError
from perdure.http import formatting
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.api.streams import list_cursor
from perdure.http.pages.action_buttons import DONE
from perdure.http.pages.csrf import read_form
from perdure.http.pages.looks import LIST_VIEWS, keep_view, saved_views, speech_of
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.principal import caller_of
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.http.timestamps import unstamp
from perdure.model.durations import moment
from perdure.model.http_calls import BUILT_IN
from perdure.model.instances import OrchestrationStatus, Page, RuntimeStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import tzinfo

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from perdure.engine.client.bulk import Which
    from perdure.engine.client.client import Client

PAGE: Final = 50
REFRESH: Final = 5  # seconds
PACE: Final = 3  # seconds between two updates of a list that changes all the time
SHORT: Final = 24  # characters of a custom status that is shown as the outcome
S = RuntimeStatus


@dataclass(frozen=True)
class InstanceFilters:
    """The filters in the address of the page, as they were typed."""

    status: str = ""
    name: str = ""
    prefix: str = ""
    tag: str = ""
    waiting_for: str = ""
    failure: str = ""
    parent: str = ""
    created_from: str = ""
    created_to: str = ""
    ended_from: str = ""
    ended_to: str = ""
    parked: str = ""
    built_in: str = ""
    order: str = ""
    continuation: str = ""

    @classmethod
    def of(cls, query: QueryParams) -> InstanceFilters:
        given = {name: query.get(name, "").strip() for name in cls.__dataclass_fields__}
        flags = {name: "true" if given[name] else "" for name in ("parked", "built_in")}
        order = given["order"] if given["order"] != "newest" else ""
        return cls(**{**given, **flags, "order": order, "status": ",".join(query.getlist("status"))})

    @property
    def any(self) -> bool:
        """Whether a filter selects."""
        return any(getattr(self, name) for name in _SHOWN)

    @property
    def query(self) -> str:
        """The query of the page with these filters."""
        given = {name: value for name, value in self.__dict__.items() if value}
        return f"?{urlencode(given)}" if given else ""

    def address(self, base: str, continuation: str | None = None) -> str:
        """The URL of the page with the same filters that begins at `continuation`."""
        return f"{base}/instances{replace(self, continuation=continuation or '').query}"

    def chips(self, base: str) -> list[tuple[str, str, str]]:
        """Each filter that is set: its label, its value, and the address without it."""
        return [
            (label, _value(getattr(self, name)), replace(self, **{name: ""}).address(base))
            for name, label in _SHOWN.items()
            if getattr(self, name)
        ]

    def which(self, zone: tzinfo) -> Which:
        """The filter. Raises PayloadError and ValueError for what makes no sense."""
        shows_own = bool(self.built_in or self.parked or self.name.startswith(BUILT_IN) or self.parent)
        return {
            "status": [one.strip() for one in self.status.split(",") if one.strip()],
            "name": self.name or None,
            "prefix": self.prefix or None,
            "tags": dict([_tag(one) for one in self.tag.split(",") if one.strip()]) or None,
            "created_from": _time(self.created_from, zone),
            "created_to": _time(self.created_to, zone),
            "ended_from": _time(self.ended_from, zone),
            "ended_to": _time(self.ended_to, zone),
            "waiting_for": self.waiting_for or None,
            "parked": bool(self.parked),
            "failure": self.failure or None,
            "parent": self.parent or None,
            "built_in": shows_own,
        }


_SHOWN: Final = {
    "status": "status",
    "name": "orchestrator",
    "prefix": "id begins with",
    "tag": "tag",
    "waiting_for": "waits for",
    "failure": "error contains",
    "parent": "called by",
    "created_from": "started from",
    "created_to": "started until",
    "ended_from": "ended from",
    "ended_to": "ended until",
    "parked": "parked",
    "built_in": "with perdure's own",
}
"""The filters that select, with the words of the page."""
_ORDERS: Final = dict(
    zip(ORDERS, ("Newest first", "Oldest first", "Ended last", "Longest of the last 1,000"), strict=True)
)


def _value(text: str) -> str:
    return "" if text == "true" else text


def _tag(text: str) -> tuple[str, str]:
    name, mark, value = text.strip().partition("=")
    if not mark:
        raise PayloadError(f"{text!r} is not a tag: write name=value")
    return name, value


def _time(text: str, zone: tzinfo) -> datetime | None:
    """A time as a form sends it, in the visitor's time zone, or as the API does."""
    if not text:
        return None
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        return unstamp(text)
    return (local.replace(tzinfo=zone) if local.tzinfo is None else local).astimezone(UTC)


# ---------------------------------------------------------------------------------------------- one line


@dataclass(frozen=True)
class Line:
    """One instance: `mark` is the class of its status, `outcome` a badge in its place."""

    one: OrchestrationStatus
    mark: str
    status: str
    outcome: str
    strong: str
    sentence: str
    lasted: str


def line_of(one: OrchestrationStatus, now: datetime, outcome: str = "") -> Line:
    """What the list says of an instance."""
    mark, status = _state(one)
    strong, sentence = _told(one, now)
    end = one.completed_time or now
    return Line(
        one=one,
        mark=mark,
        status=status,
        outcome=outcome or _outcome(one),
        strong=strong,
        sentence=sentence,
        lasted=formatting.lasting((end - one.created_time).total_seconds()),
    )


def _state(one: OrchestrationStatus) -> tuple[str, str]:
    """The class and the word of the status. Retrying and waiting are kinds of Running."""
    waiting = one.waiting
    if one.is_parked:
        return "parked", "Parked"
    if one.runtime_status is S.Running and waiting is not None:
        if waiting.retries or any(activity.attempt > 1 for activity in waiting.activities):
            return "retrying", "Retrying"
        if waiting.events and not waiting.activities:
            return "waiting", "Waiting"
    return one.runtime_status.value.lower(), one.runtime_status.value


def _outcome(one: OrchestrationStatus) -> str:
    """A short custom status of a completed instance, which its orchestrator has set as its outcome."""
    status = one.custom_status
    is_short = isinstance(status, str) and 0 < len(status) <= SHORT and status.isprintable()
    return status if is_short and one.runtime_status is S.Completed else ""


def _told(one: OrchestrationStatus, now: datetime) -> tuple[str, str]:
    """The sentence of the line, and what comes before it in bold."""
    if one.waiting is not None and one.waiting.retries:
        retry = one.waiting.retries[0]
        when = formatting.ago(moment(retry.at), now)
        return f"Attempt {retry.attempt} of {retry.name} {when}", formatting.without_module(retry.error)
    if one.failure is not None:
        return "", formatting.without_module(formatting.went_wrong(one))[:300]
    if one.is_parked:
        return "", one.reason
    if one.waiting_for:
        return "", one.waiting_for
    if one.runtime_status is S.Terminated:
        return "", str(one.output or "")
    return "", formatting.in_short(one.output) if one.output is not None else ""


# ---------------------------------------------------------------------------------------------- the page


async def instance_list(request: Request) -> Response:
    """GET /instances: the number of instances in each status, and the instances that match the filters."""
    client, asked = client_of(request), InstanceFilters.of(request.query_params)
    page, problem = await _page(client, asked, speech_of(request).zone)
    counting = instance_counts if asked.built_in else own_counts
    counted = await client.gateway.read(lambda: counting(client.gateway.store))
    base, now = base_of(request), moment(client.gateway.now())
    saved = saved_views(request, LIST_VIEWS)
    caller = caller_of(request)
    here = replace(asked, continuation="").query
    return draw(
        request,
        "instances.html",
        status=400 if problem else 200,
        done=DONE.get(request.query_params.get("done", ""), ""),
        refresh=REFRESH if not asked.continuation else None,
        events=_stream(asked, base),
        cursor=list_cursor(page.instances),
        asked=asked,
        counts=[
            (s.value, counted.by_status[s.value]) for s in RuntimeStatus if counted.by_status.get(s.value)
        ],
        total=counted.total,
        parked=counted.parked,
        names=sorted(engine_of(client).registry.orchestrators),
        starters=_starters(client) if caller.may("operate") else [],
        lines=[line_of(one, now, summary_of(client, one)) for one in page.instances],
        searched_from=page.searched_from,
        problem=problem,
        orders=_ORDERS,
        saved=saved,
        known=next((name for name, query in saved if query == here), ""),
        chips=replace(asked, continuation="").chips(base),
        here=here,
        verbs=[verb for verb in BULK if caller.may("admin" if verb == "purge" else "operate")],
        first=asked.address(base),
        next=asked.address(base, page.continuation) if page.continuation else "",
        with_own=replace(asked, built_in="" if asked.built_in else "true", continuation="").address(base),
        sorted_by=lambda order: replace(asked, order=order, continuation="").address(base),
    )


_NOT_FOLLOWED: Final = ("tag", "failure", "created_from", "created_to", "ended_from", "ended_to")
BULK: Final = ("suspend", "resume", "rewind", "terminate", "purge")


async def _page(client: Client, asked: InstanceFilters, zone: tzinfo) -> tuple[Page, str]:
    try:
        page = await client.query(
            **asked.which(zone),
            order=asked.order or "newest",  # type: ignore[arg-type]
            top=PAGE,
            continuation=asked.continuation or None,
        )
    except (PayloadError, ValueError) as error:
        return Page([]), str(error)
    return page, ""


def _stream(asked: InstanceFilters, base: str) -> str:
    """The URL of the server-sent events for the same filters; "" for filters that read many instances."""
    if any(getattr(asked, name) for name in _NOT_FOLLOWED):
        return ""
    given: Mapping[str, Any] = {
        "runtimeStatus": asked.status,
        "name": asked.name,
        "instanceIdPrefix": asked.prefix,
        "waitingFor": asked.waiting_for,
        "parked": asked.parked,
        "parent": asked.parent,
        "builtIn": "true" if asked.which(UTC)["built_in"] else "false",
        "top": PAGE,
        "pace": PACE,
    }
    query = urlencode({name: value for name, value in given.items() if value})
    return f"{base}{MANAGEMENT}/events?{query}"


def summary_of(client: Client, one: OrchestrationStatus) -> str:
    """The outcome in the words of the orchestrator's own `summary`, if this server has one that works."""
    if one.runtime_status is not S.Completed:
        return ""
    try:
        summary = engine_of(client).registry.orchestrator(one.name, one.version).summary
        return str(summary(one.output))[: 2 * SHORT] if summary is not None else ""
    except Exception:  # not registered here, or the application's own code fails for this output
        return ""


def _starters(client: Client) -> Sequence[str]:
    """The orchestrators that a person can start."""
    return sorted(name for name in engine_of(client).registry.orchestrators if not name.startswith(BUILT_IN))


async def save_list_view(request: Request) -> Response:
    """POST /instances: keep the present filter as a view, in a cookie of the person's browser, or forget one."""
    here = replace(InstanceFilters.of(request.query_params), continuation="").query
    response = RedirectResponse(f"{base_of(request)}/instances{here}", 303)
    keep_view(request, response, await read_form(request), here, LIST_VIEWS)
    return response


ENDPOINTS = (
    Endpoint("/instances", ("GET",), as_page(instance_list), "read", is_page=True),
    Endpoint("/instances", ("POST",), as_page(save_list_view), "read", is_page=True),
)

__all__ = ["BULK", "ENDPOINTS", "InstanceFilters", "Line", "instance_list", "line_of"]
