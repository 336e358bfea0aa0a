"""Schedules and queues over the management API: the operators' queries and commands of `perdure.triggers`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import msgspec
from starlette.responses import Response

from perdure.errors import InstanceFinished, InvalidInstanceId, Overloaded
from perdure.http.api.management import ACCEPTED, endpoint
from perdure.http.api.status_json import Instant
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import OPERATION_ID, REASON, Parameter, text, when, whole
from perdure.http.request_body import read_payload
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.model.durations import moment, stamp
from perdure.replay.inputs import given
from perdure.triggers.definitions import Queue
from perdure.triggers.queue_admin import AGAIN, DeadLetter, Queues, QueueStatus
from perdure.triggers.schedule_admin import Schedules, ScheduleStatus

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.engine.client.client import Client
    from perdure.http.table import Handler

AFTER: Parameter[Any] = replace(when("after", "only ticks later than this time"), needed=True)
UNTIL: Parameter[Any] = replace(when("until", "only ticks not later than this time"), needed=True)
AT = when("at", "the earliest time of the delivery")
MESSAGE_ID = text(
    "messageId", "an id for the message. A second message with the same id is not delivered", 150
)
LETTERS = whole("top", "the number of newest dead letters", 1, 500, 100)


class FiringDocument(TypedDict):
    """One run of a schedule."""

    at: Instant
    instanceId: str
    cause: str
    outcome: str


class ScheduleDocument(TypedDict):
    """One schedule: its definition and its progress."""

    name: str
    cron: str
    timezone: str
    words: str
    instanceId: str
    status: str
    paused: str
    next: list[Instant]
    recent: list[FiringDocument]
    waiting: int
    fired: int
    skipped: int


class QueueDocument(TypedDict):
    """One queue: the numbers of its open, handled and dead messages.

    `served` says whether this application has a function for the queue. Without a function its messages wait.
    """

    name: str
    open: int
    handled: int
    dead: int
    served: bool


class DeadLetterDocument(TypedDict):
    """A message whose last attempt failed."""

    instanceId: str
    queue: str
    since: Instant
    reason: NotRequired[str]


class Sent(TypedDict):
    """The instance of a message."""

    id: str


class Ticks(TypedDict):
    """The number of ticks of a backfill."""

    ticks: int


async def list_schedules(request: Request) -> Response:
    """GET schedules: list the schedules of the hub with their next ticks and last runs."""
    return json_response([schedule_document(one) for one in await Schedules(client_of(request)).list()])


def _order(verb: str) -> Handler:
    async def order(request: Request) -> Response:
        schedules, name = Schedules(client_of(request)), request.path_params["name"]
        reasons = (REASON.of(request),) if verb == "pause" else ()
        await getattr(schedules, verb)(name, *reasons, operation_id=OPERATION_ID.of(request))
        return Response(status_code=202)

    order.__doc__, order.__name__ = f"POST schedules/{{name}}/{verb}: {_ORDERS[verb]}", f"{verb}_schedule"
    return order


_ORDERS = {
    "pause": "pause a schedule until it is resumed. Ticks that pass meanwhile are skipped.",
    "resume": "resume a paused schedule. It fires again at its next tick.",
    "run": "fire a schedule now, in addition to its ticks.",
}


async def backfill_schedule(request: Request) -> Response:
    """POST schedules/{name}/backfill: fire a schedule for past ticks, in order."""
    ticks = await Schedules(client_of(request)).backfill(
        request.path_params["name"],
        AFTER.of(request),
        UNTIL.of(request),
        operation_id=OPERATION_ID.of(request),
    )
    return json_response({"ticks": ticks}, 202)


async def list_queues(request: Request) -> Response:
    """GET queues: list queues with the number of open, handled and dead messages. Counting stops at 1,000 of each."""
    client = client_of(request)
    served = {queue.name for queue in queues_by_name(client)}
    return json_response([queue_document(one, one.name in served) for one in await queues_of(client)])


async def send_message(request: Request) -> Response:
    """POST queues/{queue}: put a message into a queue of the hub."""
    instance_id = await Queues(client_of(request)).send(
        request.path_params["queue"],
        given(await read_payload(request)),
        message_id=MESSAGE_ID.of(request),
        at=AT.of(request),
        operation_id=OPERATION_ID.of(request),
    )
    return json_response({"id": instance_id}, 202)


async def list_dead_letters(request: Request) -> Response:
    """GET queues/{queue}/dead: list the messages whose last attempt failed, newest first."""
    letters = await dead_letters(client_of(request), request.path_params["queue"], LETTERS.of(request))
    return json_response([letter_document(one) for one in letters])


async def redeliver_message(request: Request) -> Response:
    """POST queues/{queue}/dead/{id}/redeliver: redeliver a dead letter to its function."""
    await Queues(client_of(request)).redeliver(
        request.path_params["id"], REASON.of(request) or AGAIN, operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def queues_of(client: Client) -> list[QueueStatus]:
    """The message counts of each queue that has a function here or messages in the hub."""
    names = {queue.name for queue in queues_by_name(client)}
    return [await Queues(client).status(name) for name in sorted(names.union(await Queues(client).names()))]


def queues_by_name(client: Client) -> list[Queue]:
    """The queues that the application of this engine has functions for."""
    found = [one for one in engine_of(client).registry.triggers if isinstance(one, Queue)]
    return sorted(found, key=lambda one: one.name)


async def dead_letters(client: Client, queue: str | None, most: int) -> list[DeadLetter]:
    """The newest dead letters of one queue, or of all."""
    found: list[DeadLetter] = []
    async for letter in Queues(client).dead_letters(queue):
        found.append(letter)
        if len(found) >= most:
            break
    return found


def schedule_document(one: ScheduleStatus) -> dict[str, Any]:
    """A schedule as JSON-ready data."""
    return {
        "name": one.name,
        "cron": one.cron,
        "timezone": one.timezone,
        "words": one.words,
        "instanceId": one.instance_id,
        "status": one.status,
        "paused": one.paused,
        "next": [stamp(at) for at in one.next],
        "recent": [
            {
                "at": stamp(moment(fired.tick)),
                "instanceId": fired.instance_id,
                "cause": fired.cause,
                "outcome": fired.outcome,
            }
            for fired in one.recent
        ],
        "waiting": one.waiting,
        "fired": one.fired,
        "skipped": one.skipped,
    }


def queue_document(one: QueueStatus, served: bool) -> dict[str, Any]:
    """A queue as JSON-ready data."""
    return {**msgspec.to_builtins(one), "served": served}


def letter_document(one: DeadLetter) -> dict[str, Any]:
    """A dead letter as JSON-ready data."""
    return {
        "instanceId": one.instance_id,
        "queue": one.queue,
        "since": stamp(one.since),
        "reason": one.reason,
    }


_ORDERED = Contract((OPERATION_ID,), None, (ACCEPTED,), (InstanceFinished, Overloaded))
_LETTERS = (Answer(200, list[DeadLetterDocument], "The newest dead letters."),)
ENDPOINTS = (
    endpoint(
        "/schedules",
        "GET",
        list_schedules,
        "read",
        Contract((), None, (Answer(200, list[ScheduleDocument], "The schedules, by name."),)),
    ),
    endpoint(
        "/schedules/{name}/pause",
        "POST",
        _order("pause"),
        "operate",
        replace(_ORDERED, takes=(REASON, OPERATION_ID)),
    ),
    endpoint("/schedules/{name}/resume", "POST", _order("resume"), "operate", _ORDERED),
    endpoint("/schedules/{name}/run", "POST", _order("run"), "operate", _ORDERED),
    endpoint(
        "/schedules/{name}/backfill",
        "POST",
        backfill_schedule,
        "operate",
        Contract(
            (AFTER, UNTIL, OPERATION_ID),
            None,
            (Answer(202, Ticks, "The request is stored."),),
            _ORDERED.errors,
        ),
    ),
    endpoint(
        "/queues",
        "GET",
        list_queues,
        "read",
        Contract((), None, (Answer(200, list[QueueDocument], "The queues, by name."),)),
    ),
    endpoint(
        "/queues/{queue}",
        "POST",
        send_message,
        "operate",
        Contract(
            (MESSAGE_ID, AT, OPERATION_ID),
            Body(says="the message"),
            (Answer(202, Sent, "The message is stored."),),
            (InvalidInstanceId, Overloaded),
        ),
    ),
    endpoint("/queues/{queue}/dead", "GET", list_dead_letters, "read", Contract((LETTERS,), None, _LETTERS)),
    endpoint(
        "/queues/{queue}/dead/{id}/redeliver",
        "POST",
        redeliver_message,
        "operate",
        replace(_ORDERED, takes=(REASON, OPERATION_ID), errors=(*_ORDERED.errors, InvalidInstanceId)),
    ),
)
"""Below /runtime/webhooks/durabletask."""

__all__ = [
    "ENDPOINTS",
    "dead_letters",
    "letter_document",
    "queue_document",
    "queues_by_name",
    "queues_of",
    "schedule_document",
]
