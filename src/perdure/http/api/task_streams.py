"""Server-sent events of people's tasks: those that the caller may see, and each change.

As in `perdure.http.api.streams`, a stream sends states, not a log. A reader that reconnects gets the open tasks as
they are now, unless nothing has changed since the frame that it names. A task that is no longer in the list was
decided, has expired, was withdrawn, or is for another role now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from perdure.engine.client.watching import IDLE
from perdure.http.api.access import access_of
from perdure.http.api.management import endpoint
from perdure.http.api.streams import LAST, LISTED, MEDIA, PACE, STREAM, Frames, Stream, frame_of
from perdure.http.api.tasks import TASK_FILTERS, WantedTasks, document_of, wanted_tasks
from perdure.http.contract import Contract
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.engine.client.client import Client
    from perdure.http.shared_reads import SharedReads


async def task_events(request: Request) -> Response:
    """GET tasks/events: stream the open tasks, due first, then each task that changes (SSE)."""
    client, seen = client_of(request), LAST.of(request) or ""
    wanted, top = wanted_tasks(request), LISTED.of(request)
    shown = await _look_at(client, wanted, top)  # rejects an invalid query before the stream begins
    if MEDIA in request.headers.get("accept", ""):
        return Stream(request, _of_tasks(client, access_of(request).looks, wanted, top, seen))
    now = () if shown.cursor == seen else _changes(shown, None)
    return Response(b"".join(now), media_type=MEDIA)


@dataclass(frozen=True)
class _Shown:
    """The state of a list: its cursor, and each task as JSON."""

    cursor: str
    documents: dict[str, dict[str, Any]]


async def _look_at(client: Client, wanted: WantedTasks, top: int) -> _Shown:
    page = await client.list_tasks(**wanted, top=top)
    documents = [document_of(task) for task in page.tasks]
    return _Shown(_cursor_of(documents), {one["id"]: one for one in documents})


async def _of_tasks(client: Client, looks: SharedReads, wanted: WantedTasks, top: int, seen: str) -> Frames:
    """First all matching tasks, then the changes, in frames `list` (the ids, due first) and `task`."""
    key = ("tasks", top, repr(sorted(wanted.items(), key=lambda item: item[0])))
    known: dict[str, dict[str, Any]] | None = None
    with engine_of(client).watching(None, is_counted=False) as bell:
        while not bell.is_closed:
            shown = await looks.look(key, partial(_look_at, client, wanted, top))
            if known is None and shown.cursor == seen:
                known = shown.documents
            for frame in _changes(shown, known):
                yield frame
            known = shown.documents
            await bell.rung(IDLE)
            await asyncio.sleep(PACE)


def _changes(shown: _Shown, known: dict[str, dict[str, Any]] | None) -> Iterator[bytes]:
    """The frames that lead from what a reader knows to the present state."""
    if known is None or list(shown.documents) != list(known):
        yield frame_of("list", {"taskIds": list(shown.documents)}, shown.cursor)
    for task_id, document in shown.documents.items():
        if known is None or known.get(task_id) != document:
            yield frame_of("task", document, shown.cursor)


def _cursor_of(documents: Sequence[dict[str, Any]]) -> str:
    """An id for the state of a list. The same tasks in the same state have the same id on every server."""
    return sha256(msgspec.json.encode(documents)).hexdigest()[:24]


ENDPOINTS = (
    endpoint(
        "/tasks/events",
        "GET",
        task_events,
        "decide",
        Contract((*TASK_FILTERS, LISTED, LAST), None, (STREAM,)),
    ),
)
"""Below /runtime/webhooks/durabletask, before the routes of one task."""

__all__ = ["ENDPOINTS"]
