"""Azure's management API over the verbs of `Client`.

Paths, query parameters, codes, headers and bodies are Azure's. What goes beyond: a sentence of what an
instance waits for and more of the like in its status, 409 for an id that is taken, `Idempotency-Key` to make
a request safe to repeat, filters by name, tag and awaited event, and `wait=seconds` to be answered when the
instance has finished.
A 2xx is sent only after the commit that took the request up, because the verbs return only then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from starlette.responses import Response

from perdure.errors import (
    FunctionNotFound,
    IdempotencyConflict,
    IllegalTransition,
    InstanceExists,
    InstanceFinished,
    InstanceNotFound,
    Overloaded,
    PayloadError,
)
from perdure.http.access.link_signer import link_of
from perdure.http.api.instance_urls import RETRY_AFTER_STATUS, ManagementPayload
from perdure.http.api.status_json import InstanceDocument, brief_document_of, document_of
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import (
    CONTINUATION,
    CONTINUED,
    CREATED_FROM,
    CREATED_TO,
    FILTERS,
    OPERATION_ID,
    REASON,
    STATUSES,
    TAGS,
    TASK_HUB,
    TOP,
    Parameter,
    choice,
    flag,
    seconds,
    text,
    when,
    which,
    whole,
)
from perdure.http.problem import problem_of, shown_path
from perdure.http.request_body import demand_json, read_payload
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.table import Endpoint, Handler
from perdure.model.instances import OrchestrationStatus, RuntimeStatus
from perdure.replay.inputs import given

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.engine.client.client import Client
    from perdure.http.table import Scope

LONGEST_WAIT = 60.0  # seconds that one request is kept waiting for an instance to finish

VERSION = text("version", "the orchestrator's version; default the newest")
START_AT = when("startAt", "not before this instant")
ON_EXISTING = choice(
    "onExisting",
    "what becomes of an instance that has this id already",
    "replace_finished",
    "return_existing",
    "reject",
)
TIMEOUT = seconds("timeout", "wait so long for it to finish, and answer with its output")
NEW_ID = flag("restartWithNewInstanceId", "run it under a new id, not under its own", True)
SHOW_INPUT = flag("showInput", "with the input", True)
SHOW_HISTORY = flag("showHistory", "with the history")
SHOW_OUTPUT = flag("showHistoryOutput", "with the results in the history")
ERROR_ON_FAILURE = flag("returnInternalServerErrorOnFailure", "answer 500 when it has failed")
WAIT = seconds("wait", "be answered when it has finished, or after so many seconds (60 at most)")
EXECUTION = whole("execution", "the history of this execution instead of the current one", 0, 2**62)
RECURSIVE = flag("recursive", "also its sub-orchestrations, and theirs")
PURGED_FROM: Parameter[Any] = replace(CREATED_FROM, needed=True)


# --------------------------------------------------------------------------------------------- starting


async def start(request: Request) -> Response:
    """POST orchestrators/{name}[/{id}]: start an orchestration; with `timeout`, wait for its output."""
    client = client_of(request)
    try:
        instance_id = await client.start_new(
            request.path_params["name"],
            request.path_params.get("id"),
            given(await read_payload(request)),
            version=VERSION.of(request),
            start_at=START_AT.of(request),
            tags=TAGS.of(request),
            on_existing=ON_EXISTING.of(request) or "replace_finished",
            operation_id=OPERATION_ID.of(request),
        )
    except FunctionNotFound as error:
        return problem_of(error, status=400, instance=shown_path(request))
    return await _started(client, request, instance_id)


async def restart(request: Request) -> Response:
    """POST instances/{id}/restart: run it again, with the same input."""
    client = client_of(request)
    instance_id = await client.restart(
        request.path_params["id"], NEW_ID.of(request), operation_id=OPERATION_ID.of(request)
    )
    return await _started(client, request, instance_id)


async def _started(client: Client, request: Request, instance_id: str) -> Response:
    answer: Response
    timeout = TIMEOUT.of(request)
    if timeout:
        milliseconds = int(min(timeout, LONGEST_WAIT) * 1_000)
        answer = await client.wait_for_completion_or_create_check_status_response(
            request, instance_id, milliseconds
        )
    else:
        answer = client.create_check_status_response(request, instance_id)
    return answer


# ----------------------------------------------------------------------------------------------- asking


async def get_instance(request: Request) -> Response:
    """GET instances/{id}: where an instance stands: 202 while it is unfinished, 200 afterwards.

    Who comes by a link that shows the status gets that: no input, no history, nothing that operators wrote.
    """
    link = link_of(request)
    is_brief = link is not None and link.operation == "status"
    show_input, wait = SHOW_INPUT.of(request) and not is_brief, WAIT.of(request)
    on_failure = 500 if ERROR_ON_FAILURE.of(request) else 200
    if wait:
        await _until_finished(client_of(request), request.path_params["id"], min(wait, LONGEST_WAIT))
    status = await _status(
        request,
        show_input=show_input,
        show_history=SHOW_HISTORY.of(request) and not is_brief,
        show_history_output=SHOW_OUTPUT.of(request) and not is_brief,
        execution=None if is_brief else EXECUTION.of(request),
    )
    document = brief_document_of(status) if is_brief else document_of(status, with_input=show_input)
    if not status.is_finished:
        links = client_of(request).links
        assert links is not None  # this host gave them
        where = links.status_url(request, status.instance_id)
        headers = {"Location": where, "Retry-After": RETRY_AFTER_STATUS}
        return json_response(document, 202, headers)
    return json_response(document, on_failure if status.runtime_status is RuntimeStatus.Failed else 200)


async def _until_finished(client: Client, instance_id: str, seconds: float) -> None:
    try:
        await client.wait_for_completion(instance_id, seconds)
    except TimeoutError:
        pass


async def _status(request: Request, **detail: Any) -> OrchestrationStatus:
    instance_id = request.path_params["id"]
    status = await client_of(request).get_status(instance_id, **detail)
    if status is None:
        raise InstanceNotFound(f"there is no instance {instance_id!r} in hub {client_of(request).task_hub!r}")
    return status


async def list_instances(request: Request) -> Response:
    """GET instances: list instances; the header x-ms-continuation-token leads to the next page."""
    show_input = SHOW_INPUT.of(request)
    page = await client_of(request).query(
        **which(request), top=TOP.of(request), continuation=CONTINUED.of(request), show_input=show_input
    )
    headers = {CONTINUATION: page.continuation} if page.continuation else {}
    return json_response([document_of(s, with_input=show_input) for s in page.instances], 200, headers)


async def counts(request: Request) -> Response:
    """GET counts: how many instances stand in each status."""
    return json_response(await client_of(request).counts())


# -------------------------------------------------------------------------------------------- messaging


async def raise_event(request: Request) -> Response:
    """POST instances/{id}/raiseEvent/{event}: send an event; it is kept until it is waited for."""
    body = await read_payload(request)
    if body is not None:
        demand_json(request)
    await client_of(request).raise_event(
        request.path_params["id"],
        request.path_params["event"],
        body,
        event_id=OPERATION_ID.of(request),
    )
    return Response(status_code=202)


async def terminate(request: Request) -> Response:
    """POST instances/{id}/terminate?reason=: end an instance now, for good."""
    await client_of(request).terminate(
        request.path_params["id"],
        REASON.of(request),
        recursive=RECURSIVE.of(request),
        operation_id=OPERATION_ID.of(request),
    )
    return Response(status_code=202)


async def suspend(request: Request) -> Response:
    """POST instances/{id}/suspend?reason=: run nothing of an instance until it is resumed."""
    await client_of(request).suspend(
        request.path_params["id"], REASON.of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def resume(request: Request) -> Response:
    """POST instances/{id}/resume?reason=: let a suspended instance go on."""
    await client_of(request).resume(
        request.path_params["id"], REASON.of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def rewind(request: Request) -> Response:
    """POST instances/{id}/rewind?reason=: let a failed instance go on where it failed."""
    await client_of(request).rewind(
        request.path_params["id"], REASON.of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


# ---------------------------------------------------------------------------------------------- purging


async def purge(request: Request) -> Response:
    """DELETE instances/{id}: delete a finished instance and its history."""
    instance_id = request.path_params["id"]
    deleted = await client_of(request).purge_instance_history(
        instance_id, recursive=RECURSIVE.of(request), operation_id=OPERATION_ID.of(request)
    )
    if not deleted:
        raise InstanceNotFound(f"there is no instance {instance_id!r} to purge")
    return json_response({"instancesDeleted": int(deleted)})


async def purge_many(request: Request) -> Response:
    """DELETE instances?createdTimeFrom=: delete the finished instances that match; 404 when there were none."""
    deleted = await client_of(request).purge_instance_history_by(
        PURGED_FROM.of(request),
        CREATED_TO.of(request),
        STATUSES.of(request),
        recursive=RECURSIVE.of(request),
    )
    return json_response({"instancesDeleted": int(deleted)}, 200 if deleted else 404)


# ----------------------------------------------------------------------------------------------- routes


def same_hub(handler: Handler) -> Handler:
    """Refuse a request that names another task hub, instead of answering it about this one."""

    async def checked(request: Request) -> Response:
        named, served = TASK_HUB.of(request), client_of(request).task_hub
        if named and named.casefold() != served.casefold():
            raise InstanceNotFound(f"this server serves the hub {served!r}, not {named[:60]!r}")
        return await handler(request)

    checked.__doc__, checked.__name__ = handler.__doc__, handler.__name__
    return checked


def endpoint(
    path: str,
    method: str,
    handler: Handler,
    scope: Scope,
    contract: Contract,
    *,
    link: str = "",
    name: str = "",
) -> Endpoint:
    """A management route, for requests about the hub that is served; `link` opens it too."""
    conflict = (IdempotencyConflict,) if OPERATION_ID in contract.takes else ()
    told = replace(
        contract,
        takes=(*contract.takes, TASK_HUB),
        errors=(*contract.errors, *conflict, PayloadError, InstanceNotFound),
    )
    return Endpoint(
        path, (method,), same_hub(handler), scope, folded=True, link=link, name=name, contract=told
    )


class Deleted(TypedDict):
    """How many instances were purged."""

    instancesDeleted: int


ACCEPTED = Answer(202, None, "It is durable.")
_AFTER_START = tuple(
    (operation, "/id")
    for operation in ("get_instance", "raise_event", "suspend", "resume", "terminate", "rewind", "purge")
)
_STARTED = Answer(
    202,
    ManagementPayload,
    "The start is durable.",
    {"Location": "where to ask about it", "Retry-After": "seconds until that is worth while"},
    _AFTER_START,
)
_FINISHED = (Answer(200, Any, "It has finished within `timeout`: its output."),)
_START = Contract(
    (VERSION, START_AT, TAGS, ON_EXISTING, TIMEOUT, OPERATION_ID),
    Body(says="the input"),
    (_STARTED, *_FINISHED, Answer(500, InstanceDocument, "It has failed within `timeout`.")),
    (FunctionNotFound, InstanceExists, Overloaded),
)
_ORDER = Contract(
    (REASON, OPERATION_ID), None, (ACCEPTED,), (IllegalTransition, InstanceFinished, Overloaded)
)
CONTINUED_BY = {CONTINUATION: "what the next page is asked for with; absent on the last one"}

ENDPOINTS = (
    endpoint("/orchestrators/{name}", "POST", start, "operate", _START),
    endpoint("/orchestrators/{name}/{id}", "POST", start, "operate", _START),
    endpoint(
        "/instances",
        "GET",
        list_instances,
        "read",
        Contract(
            (*FILTERS, TOP, CONTINUED, SHOW_INPUT),
            None,
            (Answer(200, list[InstanceDocument], "One page.", CONTINUED_BY),),
        ),
    ),
    endpoint(
        "/instances",
        "DELETE",
        purge_many,
        "admin",
        Contract(
            (PURGED_FROM, CREATED_TO, STATUSES, RECURSIVE),
            None,
            (Answer(200, Deleted, "Purged."), Answer(404, Deleted, "None matched.")),
        ),
    ),
    endpoint(
        "/instances/{id}",
        "GET",
        get_instance,
        "read",
        Contract(
            (SHOW_INPUT, SHOW_HISTORY, SHOW_OUTPUT, ERROR_ON_FAILURE, WAIT, EXECUTION),
            None,
            (
                Answer(200, InstanceDocument, "It has finished."),
                Answer(202, InstanceDocument, "It has not finished.", _STARTED.headers),
                Answer(500, InstanceDocument, "It has failed, and 500 was asked for."),
            ),
        ),
        link="status",
    ),
    endpoint(
        "/instances/{id}",
        "DELETE",
        purge,
        "admin",
        Contract((OPERATION_ID, RECURSIVE), None, (Answer(200, Deleted, "Purged."),), (IllegalTransition,)),
        link="purge",
    ),
    endpoint(
        "/instances/{id}/raiseEvent/{event:path}",
        "POST",
        raise_event,
        "operate",
        Contract((OPERATION_ID,), Body(says="the event's data"), (ACCEPTED,), (InstanceFinished, Overloaded)),
        link="raise",
    ),
    endpoint(
        "/instances/{id}/terminate",
        "POST",
        terminate,
        "operate",
        replace(_ORDER, takes=(*_ORDER.takes, RECURSIVE)),
        link="terminate",
    ),
    endpoint("/instances/{id}/suspend", "POST", suspend, "operate", _ORDER, link="suspend"),
    endpoint("/instances/{id}/resume", "POST", resume, "operate", _ORDER, link="resume"),
    endpoint("/instances/{id}/rewind", "POST", rewind, "operate", _ORDER, link="rewind"),
    endpoint(
        "/instances/{id}/restart",
        "POST",
        restart,
        "operate",
        Contract(
            (NEW_ID, TIMEOUT, OPERATION_ID),
            None,
            (_STARTED, *_FINISHED),
            (FunctionNotFound, IllegalTransition, Overloaded),
        ),
        link="restart",
    ),
    endpoint(
        "/counts", "GET", counts, "read", Contract((), None, (Answer(200, dict[str, int], "By status."),))
    ),
)
"""Azure's routes below /runtime/webhooks/durabletask."""
