"""The page of schedules, queues and dead letters. Its forms are in `perdure.http.pages.trigger_actions`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.engine.client.sync_client import SyncClient
from perdure.engine.functions.registry import plan_of
from perdure.http.api.triggers import dead_letters, queues_by_name, queues_of
from perdure.http.pages.forms import Field, fields_of
from perdure.http.pages.rendering import as_page, draw
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.model import payload
from perdure.replay.activity_context import ActivityContext
from perdure.triggers.queue_admin import COUNTED, QueueStatus
from perdure.triggers.schedule_admin import Schedules

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client
    from perdure.triggers.definitions import Queue

LETTERS = 100
UPCOMING = 3
REFRESH = 5
DONE = {
    "pause": "The schedule is paused until it is resumed.",
    "resume": "The schedule is resumed. It fires again at its next tick.",
    "run": "The schedule fires now.",
    "backfill": "The past ticks fire now, in order.",
    "send": "The message was accepted.",
    "redeliver": "The message is redelivered.",
    "redeliver_all": "The dead letters of the queue are redelivered.",
}
"""The page's message after a form was accepted, by the parameter `done` in the URL."""


CAUSES = {"manual": "manual run", "backfill": "backfill", "missed": "catch-up of a missed tick"}
"""The causes of a run that is not an ordinary tick."""


@dataclass(frozen=True)
class RefusedAction:
    """A rejected form: the problem, the schedule or queue, and the posted values."""

    problem: str
    status: int
    about: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class QueueView:
    """A queue on the page: its counts, its broker, and the form for a message.

    A queue without a function has no form. Its messages wait for a worker with the function.
    """

    status: QueueStatus
    broker: str = ""
    fields: tuple[Field, ...] = ()
    is_served: bool = False


async def triggers_page(request: Request, refused: RefusedAction | None = None) -> Response:
    """GET /triggers: schedules with their ticks, queues with their message counts, and dead letters."""
    client = client_of(request)
    return draw(
        request,
        "triggers.html",
        status=refused.status if refused else 200,
        done=DONE.get(request.query_params.get("done", ""), ""),
        refresh=None if refused else REFRESH,
        schedules=await Schedules(client).list(upcoming=UPCOMING),
        queues=await _queues(client),
        letters=await dead_letters(client, None, LETTERS),
        refused=refused,
        causes=CAUSES,
        many=_many,
        operation=secrets.token_urlsafe(12),
    )


async def _triggers_page(request: Request) -> Response:
    return await triggers_page(request)


def _many(number: int) -> str:
    """A count of messages, with a plus if counting stopped there."""
    return f"{number:,}" if number < COUNTED else f"{number:,}+"


async def _queues(client: Client) -> list[QueueView]:
    served = {queue.name: queue for queue in queues_by_name(client)}
    return [_shown(client, status, served.get(status.name)) for status in await queues_of(client)]


def _shown(client: Client, status: QueueStatus, queue: Queue | None) -> QueueView:
    if queue is None:
        return QueueView(status)
    broker = type(queue.source).__name__ if queue.source is not None else ""
    return QueueView(status, broker, message_fields(client, queue.name), is_served=True)


def message_fields(client: Client, queue: str) -> tuple[Field, ...]:
    """The form for a message, by the type that the queue's function takes; one JSON field without a type."""
    kinds: tuple[type, ...] = (
        ActivityContext,
        type(client),
        SyncClient,
        *map(type, engine_of(client).resources),
    )
    for one in queues_by_name(client):
        if one.name == queue:
            kind = plan_of(one.activity, kinds).input_type
            return fields_of(None if kind is Any else payload.schema_of(kind))
    return fields_of(None)


ENDPOINTS = (
    Endpoint("/triggers", ("GET",), as_page(_triggers_page), "read", is_page=True, name="triggers_page"),
)

__all__ = ["ENDPOINTS", "RefusedAction", "message_fields", "triggers_page"]
