"""Server-sent events: one instance as it changes, or the newest that match a filter.

What is sent is state, not a log: a frame says how things are now. So a reader that is slow, or was away, gets the
newest and never a backlog, and nothing is kept for anybody. The id of a frame names the state; a reader that
comes back with it in `Last-Event-ID` is told nothing until that has changed, and otherwise is told anew. The ids
come from what is committed, so they hold across restarts and on other servers.
Who asks without `Accept: text/event-stream` gets the frames there are at this moment, and the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from perdure.engine.bulk import Which
from perdure.engine.watching import IDLE, sight, sightings
from perdure.errors import InstanceNotFound, PerdureError, outward
from perdure.http.access.api import access_of
from perdure.http.contract import Answer, Contract
from perdure.http.document import document_of
from perdure.http.endpoint import client_of
from perdure.http.management import endpoint
from perdure.http.parameters import FILTERS, Parameter, which, whole
from perdure.model.instances import OrchestrationStatus

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.engine.client import Client

PING: Final = 15  # seconds of silence after which a comment keeps the connection alive
PACE: Final = 0.5  # seconds between two looks at a list, however much happens
MEDIA: Final = "text/event-stream"
LONGEST_ID: Final = 200


def _frame_id(given: str) -> str:
    if len(given) > LONGEST_ID:
        raise ValueError(f"the ids of frames have at most {LONGEST_ID} characters")
    return given


LAST: Parameter[str | None] = Parameter(
    "Last-Event-ID",
    "the id of the last frame that was received",
    {"type": "string", "maxLength": LONGEST_ID},
    _frame_id,
    None,
    place="header",
)
LISTED = whole("top", "at most so many of the newest", 1, 200, 50)


async def instance_events(request: Request) -> Response:
    """GET instances/{id}/events: the instance now and after each change, until it has finished (SSE)."""
    client, instance_id, seen = client_of(request), request.path_params["id"], LAST.of(request) or ""
    found = await sight(client.gateway, instance_id)
    if found is None:
        raise InstanceNotFound(f"there is no instance {instance_id!r} in hub {client.task_hub!r}")
    if found.cursor == seen and found.status.is_finished:
        return Response(status_code=204)  # this tells a browser not to come back
    return await _answer(request, _of_instance(client, instance_id, seen), 0 if found.cursor == seen else 1)


async def list_events(request: Request) -> Response:
    """GET events: which instances match, then each that has changed, as long as one listens (SSE)."""
    client, seen = client_of(request), LAST.of(request) or ""
    selection, top = which(request), LISTED.of(request)
    page = await client.query(
        **selection, top=top
    )  # what cannot be asked is refused before the stream begins
    frames = 0 if _digest(page.instances) == seen else 1 + len(page.instances)
    return await _answer(request, _of_list(client, selection, top, seen), frames)


async def _answer(request: Request, frames: AsyncGenerator[ServerSentEvent, None], now: int) -> Response:
    if MEDIA in request.headers.get("accept", ""):
        return EventSourceResponse(
            _bounded(request, frames), ping=PING, headers={"Cache-Control": "no-store"}
        )
    async with aclosing(frames):
        taken = [await anext(frames, None) for _ in range(now)]
    return Response(b"".join(frame.encode() for frame in taken if frame is not None), media_type=MEDIA)


async def _bounded(
    request: Request, frames: AsyncGenerator[ServerSentEvent, None]
) -> AsyncGenerator[ServerSentEvent, None]:
    """The frames, as long as who asked for them may read; what goes wrong meanwhile is told as one, and ends it."""
    access = access_of(request)
    try:
        async with aclosing(frames):
            async for frame in frames:
                if not access.lets_in(request):
                    return
                yield frame
    except PerdureError as error:
        yield ServerSentEvent(outward(error), event="problem")


# ------------------------------------------------------------------------------------------- what is sent


async def _of_instance(client: Client, instance_id: str, seen: str) -> AsyncGenerator[ServerSentEvent, None]:
    async for found in sightings(client.gateway, instance_id, seen):
        yield _frame("status", document_of(found.status, with_input=False), found.cursor)


async def _of_list(
    client: Client, selection: Which, top: int, seen: str
) -> AsyncGenerator[ServerSentEvent, None]:
    """First all that match, then what changes: `list` names those that match now, `instance` tells of one."""
    known: dict[str, Any] | None = None
    with client.gateway.watching(None) as bell:
        while not bell.is_closed:
            page = await client.query(**selection, top=top)
            cursor = _digest(page.instances)
            news = {one.instance_id: one.last_updated_time for one in page.instances}
            if known is None and cursor == seen:
                known = news
            if known is None or news.keys() != known.keys():
                yield _frame("list", {"instanceIds": list(news)}, cursor)
            for one in page.instances:
                if known is None or known.get(one.instance_id) != one.last_updated_time:
                    yield _frame("instance", document_of(one, with_input=False), cursor)
            known = news
            await bell.rung(IDLE)
            await asyncio.sleep(PACE)


def _digest(instances: list[OrchestrationStatus]) -> str:
    """Names what a list says: the same instances in the same states have the same name."""
    said = [(one.instance_id, one.execution_id, one.last_updated_time) for one in instances]
    return sha256(msgspec.json.encode(said)).hexdigest()[:24]


def _frame(event: str, data: Any, cursor: str) -> ServerSentEvent:
    return ServerSentEvent(msgspec.json.encode(data).decode(), event=event, id=cursor, sep="\n")


class Frame(TypedDict):
    """One server-sent event; `data` is a JSON document: an instance, or the ids of a list."""

    event: str
    id: str
    data: str


_STREAM = Answer(200, Frame, "A stream of server-sent events.", media=MEDIA)
ENDPOINTS = (
    endpoint(
        "/instances/{id}/events",
        "GET",
        instance_events,
        "read",
        Contract((LAST,), None, (_STREAM, Answer(204, None, "It has finished, and that is known."))),
    ),
    endpoint("/events", "GET", list_events, "read", Contract((*FILTERS, LISTED, LAST), None, (_STREAM,))),
)
"""Below /runtime/webhooks/durabletask."""

__all__ = ["ENDPOINTS", "MEDIA"]
