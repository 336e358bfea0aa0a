"""Server-sent events: one instance as it changes, or the newest instances that match a filter.

A stream sends states, not a log: each frame contains the current state. So a slow reader, or one that reconnects,
gets the newest state and no backlog, and the server keeps nothing for it. The id of a frame identifies the state. A
reader that reconnects with the id in `Last-Event-ID` gets a frame only when the state has changed. The ids are
derived from committed data, so they are valid after a restart and on other servers.
A request without `Accept: text/event-stream` gets the current frames, and the response ends.

A stream takes a place of its caller's share before it starts, or is rejected with 429 or 503. Readers of the same
data share one read (`perdure.http.shared_reads`). The server disconnects a reader that does not read for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, TypedDict

import msgspec
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.responses import Response

from perdure.engine.client.bulk import Which
from perdure.engine.client.watching import IDLE, Sighting, sight, sightings
from perdure.errors import InstanceNotFound, PerdureError, outward
from perdure.http.api.access import access_of
from perdure.http.api.management import endpoint
from perdure.http.api.status_json import document_of
from perdure.http.contract import Answer, Contract
from perdure.http.parameters import FILTERS, Parameter, which, whole
from perdure.http.principal import caller_of
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.model.instances import OrchestrationStatus

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from perdure.engine.client.client import Client
    from perdure.http.shared_reads import SharedReads

Frames = AsyncGenerator[bytes, None]
CHECK: Final = 2.0  # seconds without a frame after which a stream checks the reader's access again
READER_MAY_STALL: Final = 10.0  # seconds that a reader can leave frames unread
PING: Final = 15  # seconds of silence after which a comment keeps the connection alive
PACE: Final = 0.5  # the least seconds between two reads of a list
log = logging.getLogger("perdure.http")
MEDIA: Final = "text/event-stream"
LONGEST_ID: Final = 200


def _frame_id(given: str) -> str:
    if len(given) > LONGEST_ID:
        raise ValueError(f"the id of a frame has at most {LONGEST_ID} characters")
    return given


LAST: Parameter[str | None] = Parameter(
    "Last-Event-ID",
    "the id of the last received frame",
    {"type": "string", "maxLength": LONGEST_ID},
    _frame_id,
    None,
    place="header",
)
LISTED = whole("top", "the number of newest instances", 1, 200, 50)
SLOWER = whole("pace", "the least number of seconds between two looks at the list", 0, 60, 0)


async def instance_events(request: Request) -> Response:
    """GET instances/{id}/events: stream an instance, now and after each change, until it has finished (SSE)."""
    client, instance_id, seen = client_of(request), request.path_params["id"], LAST.of(request) or ""
    found = await sight(client.gateway, instance_id)
    if found is None:
        raise InstanceNotFound(f"there is no instance {instance_id!r} in hub {client.task_hub!r}")
    if found.cursor == seen and found.status.is_finished:
        return Response(status_code=204)  # a browser does not reconnect after 204
    frames = _of_instance(client, access_of(request).looks, instance_id, seen)
    return await _answer(request, frames, 0 if found.cursor == seen else 1)


async def list_events(request: Request) -> Response:
    """GET events: stream the matching instances, then each instance that changes (SSE)."""
    client, seen = client_of(request), LAST.of(request) or ""
    selection, top = which(request), LISTED.of(request)
    page = await client.query(**selection, top=top)  # rejects an invalid query before the stream begins
    count = 0 if list_cursor(page.instances) == seen else 1 + len(page.instances)
    wanted = _Wanted(selection, top)
    frames = _of_list(client, access_of(request).looks, wanted, seen, SLOWER.of(request))
    return await _answer(request, frames, count)


async def _answer(request: Request, frames: Frames, now: int) -> Response:
    if MEDIA in request.headers.get("accept", ""):
        return Stream(request, frames)
    async with aclosing(frames):
        taken = [await anext(frames, None) for _ in range(now)]
    return Response(b"".join(frame for frame in taken if frame is not None), media_type=MEDIA)


class Stream(EventSourceResponse):
    """A stream of frames. It holds a place of its caller's share until it ends. Raises Refused if there is none."""

    def __init__(self, request: Request, frames: Frames) -> None:
        caller, access = caller_of(request), access_of(request)
        self._name, self._shares = caller.who, access.shares
        self._shares.take(self._name, is_admin=caller.may("admin"), is_known=not access.is_open)
        super().__init__(
            _bounded(request, frames),
            ping=PING,
            headers={"Cache-Control": "no-store"},
            send_timeout=READER_MAY_STALL,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            log.info(
                "a stream of %s is closed, because its reader read nothing for %g s",
                self._name,
                READER_MAY_STALL,
            )
        finally:
            self._shares.leave(self._name)


async def _bounded(request: Request, frames: Frames) -> Frames:
    """The frames, as long as the caller has access. An error becomes the last frame."""
    access = access_of(request)
    try:
        async with aclosing(_asked_meanwhile(frames)) as told:
            async for frame in told:
                if not await access.lets_in(request):
                    return
                if frame:
                    yield frame
    except PerdureError as error:
        yield ServerSentEvent(outward(error), event="problem").encode()


async def _asked_meanwhile(frames: Frames) -> Frames:
    """The frames, and b"" after each `CHECK` seconds without one."""
    coming: asyncio.Future[bytes | None] | None = None
    async with aclosing(frames):
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(frames, None))
                await asyncio.wait({coming}, timeout=CHECK)
                if not coming.done():
                    yield b""
                    continue
                frame, coming = coming.result(), None
                if frame is None:
                    return
                yield frame
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})


# ----------------------------------------------------------------------------------------------- frames


@dataclass(frozen=True)
class _Drawn(Sighting):
    """The state of an instance, and its frame."""

    frame: bytes


async def _of_instance(client: Client, looks: SharedReads, instance_id: str, seen: str) -> Frames:
    gateway = engine_of(client)

    async def drawn() -> Sighting | None:
        found = await sight(gateway, instance_id)
        if found is None:
            return None
        frame = frame_of("status", document_of(found.status, with_input=False), found.cursor)
        return _Drawn(found.instance_no, found.cursor, found.status, frame)

    watched = sightings(
        gateway,
        instance_id,
        seen,
        look=partial(looks.look, ("instance", instance_id), drawn),
        watching=partial(gateway.watching, is_counted=False),
    )
    async for found in watched:
        assert isinstance(found, _Drawn)
        yield found.frame


class _Wanted:
    """The query of a list. Equal queries have equal keys."""

    def __init__(self, selection: Which, top: int) -> None:
        self.selection, self.top = selection, top
        self.key = ("list", top, repr(sorted(selection.items())))


@dataclass(frozen=True)
class _Shown:
    """The state of a list: its cursor, and the time of the last change and the frame of each instance."""

    cursor: str
    moved: dict[str, Any]
    frames: dict[str, bytes]


async def _look_at(client: Client, wanted: _Wanted) -> _Shown:
    page = await client.query(**wanted.selection, top=wanted.top)
    cursor = list_cursor(page.instances)
    return _Shown(
        cursor,
        {one.instance_id: one.last_updated_time for one in page.instances},
        {
            one.instance_id: frame_of("instance", document_of(one, with_input=False), cursor)
            for one in page.instances
        },
    )


async def _of_list(client: Client, looks: SharedReads, wanted: _Wanted, seen: str, pace: float) -> Frames:
    """First all matching instances, then the changes, in frames `list` (the matching ids) and `instance`.

    A look begins at least `pace` seconds after the one before: a hub that is busy all the time is not read all the
    time for an open page.
    """
    gateway = engine_of(client)
    known: dict[str, Any] | None = None
    with gateway.watching(None, is_counted=False) as bell:
        while not bell.is_closed:
            looked_at = time.monotonic()
            shown = await looks.look(wanted.key, partial(_look_at, client, wanted))
            if known is None and shown.cursor == seen:
                known = shown.moved
            if known is None or shown.moved.keys() != known.keys():
                yield frame_of("list", {"instanceIds": list(shown.moved)}, shown.cursor)
            for instance_id, moved in shown.moved.items():
                if known is None or known.get(instance_id) != moved:
                    yield shown.frames[instance_id]
            known = shown.moved
            await bell.rung(IDLE)
            await asyncio.sleep(max(PACE, looked_at + pace - time.monotonic()))


def list_cursor(instances: list[OrchestrationStatus]) -> str:
    """An id for the state of a list. The same instances in the same states have the same id."""
    said = [(one.instance_id, one.execution_id, one.last_updated_time) for one in instances]
    return sha256(msgspec.json.encode(said)).hexdigest()[:24]


def frame_of(event: str, data: Any, cursor: str) -> bytes:
    return ServerSentEvent(msgspec.json.encode(data).decode(), event=event, id=cursor, sep="\n").encode()


class Frame(TypedDict):
    """One server-sent event. `data` is a JSON document: an instance, or the ids of a list."""

    event: str
    id: str
    data: str


STREAM = Answer(200, Frame, "A stream of server-sent events.", media=MEDIA)
ENDPOINTS = (
    endpoint(
        "/instances/{id}/events",
        "GET",
        instance_events,
        "read",
        Contract(
            (LAST,),
            None,
            (STREAM, Answer(204, None, "The instance has finished, and the reader has its last state.")),
        ),
    ),
    endpoint(
        "/events", "GET", list_events, "read", Contract((*FILTERS, LISTED, SLOWER, LAST), None, (STREAM,))
    ),
)
"""Below /runtime/webhooks/durabletask."""

__all__ = [
    "ENDPOINTS",
    "LAST",
    "LISTED",
    "MEDIA",
    "PACE",
    "STREAM",
    "Frames",
    "Stream",
    "frame_of",
    "list_cursor",
]
