"""Azure's management API, mapped to the methods of `Client`.

Paths, query parameters, codes, headers and bodies are Azure's. In addition, a status says what the instance waits
for, an id in use gives 409, `Idempotency-Key` makes a request safe to repeat, there are filters by name, tag and
awaited event, and `wait=seconds` delays the response until the instance has finished.
A 2xx response is sent only after the commit of the request, because the methods return only then.
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
from perdure.http.api.access import access_of
from perdure.http.api.instance_urls import RETRY_AFTER_STATUS, ManagementPayload
from perdure.http.api.status_json import InstanceDocument, brief_document_of, document_of
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import (
    BUILT_IN,
    CONTINUATION,
    CONTINUED,
    CREATED_FROM,
    CREATED_TO,
    FILTERS,
    OPERATION_ID,
    ORDER,
    REASON,
    SEARCHED_FROM,
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
from perdure.http.principal import caller_of
from perdure.http.problem import problem_of, shown_path
from perdure.http.request_body import demand_json, read_payload
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.table import Endpoint, Handler
from perdure.model.durations import stamp
from perdure.model.instances import InstanceCount, OrchestrationStatus, RuntimeStatus
from perdure.replay.inputs import given

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.engine.client.client import Client
    from perdure.http.table import Scope

LONGEST_WAIT = 60.0  # seconds that one request waits for an instance to finish

VERSION = text("version", "the version of the orchestrator. Default: the newest")
START_AT = when("startAt", "the earliest time of the start")
ON_EXISTING = choice(
    "onExisting",
    "what to do with an existing instance of this id",
    "replace_finished",
    "return_existing",
    "reject",
)
TIMEOUT = seconds("timeout", "wait up to this long for the instance to finish, and return its output")
NEW_ID = flag("restartWithNewInstanceId", "give the new run a new id instead of the old one", True)
SHOW_INPUT = flag("showInput", "include the input", True)
SHOW_HISTORY = flag("showHistory", "include the history")
SHOW_OUTPUT = flag("showHistoryOutput", "include the results in the history")
ERROR_ON_FAILURE = flag("returnInternalServerErrorOnFailure", "respond with 500 if the instance failed")
WAIT = seconds("wait", "respond when the instance has finished, or after this time (at most 60 seconds)")
EXECUTION = whole("execution", "the execution whose history is returned. Default: the current one", 0, 2**62)
RECURSIVE = flag("recursive", "include all sub-orchestrations")
PURGED_FROM: Parameter[Any] = replace(CREATED_FROM, needed=True)


# --------------------------------------------------------------------------------------------- starting


async def start(request: Request) -> Response:
    """POST orchestrators/{name}[/{id}]: start an orchestration. With `timeout`, wait for its output."""
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
    """POST instances/{id}/restart: restart a finished instance with the same input."""
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
    # The key may have been revoked during the wait.
    if not timeout or not await access_of(request).lets_in(request):
        answer = client.create_check_status_response(request, instance_id)
    return answer


# ----------------------------------------------------------------------------------------------- asking


async def get_instance(request: Request) -> Response:
    """GET instances/{id}: return the status of an instance, with 202 while it is unfinished, 200 afterwards.

    A caller with a status link gets the status without input, history, reasons and tags.
    """
    link = link_of(request)
    is_brief = link is not None and link.operation == "status"
    show_input, wait = SHOW_INPUT.of(request) and not is_brief, WAIT.of(request)
    on_failure = 500 if ERROR_ON_FAILURE.of(request) else 200
    if wait:
        await _until_finished(client_of(request), request.path_params["id"], min(wait, LONGEST_WAIT))
        await access_of(request).demand_still(request)  # its key may have been revoked meanwhile
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
        assert links is not None  # this host set them
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
    """GET instances: list instances. The header x-ms-continuation-token leads to the next page."""
    show_input = SHOW_INPUT.of(request)
    page = await client_of(request).query(
        **which(request),
        order=ORDER.of(request),
        top=TOP.of(request),
        continuation=CONTINUED.of(request),
        show_input=show_input,
    )
    headers = {CONTINUATION: page.continuation} if page.continuation else {}
    if page.searched_from is not None:
        headers[SEARCHED_FROM] = stamp(page.searched_from)
    return json_response([document_of(s, with_input=show_input) for s in page.instances], 200, headers)


async def count(request: Request) -> Response:
    """GET count: return how many instances match the filters of a list."""
    return json_response(await client_of(request).count(**which(request)))


async def counts(request: Request) -> Response:
    """GET counts: return the number of instances in each status."""
    return json_response(await client_of(request).counts(built_in=BUILT_IN.of(request)))


# -------------------------------------------------------------------------------------------- messaging


async def raise_event(request: Request) -> Response:
    """POST instances/{id}/raiseEvent/{event}: raise an event. It is stored until the instance waits for it."""
    body = await read_payload(request)
    if body is not None:
        demand_json(request)
    await client_of(request).raise_event(
        request.path_params["id"],
        request.path_params["event"],
        body,
        event_id=OPERATION_ID.of(request),
        person=caller_of(request).person,
    )
    return Response(status_code=202)


async def terminate(request: Request) -> Response:
    """POST instances/{id}/terminate?reason=: end an instance immediately and permanently."""
    await client_of(request).terminate(
        request.path_params["id"],
        REASON.of(request),
        recursive=RECURSIVE.of(request),
        operation_id=OPERATION_ID.of(request),
    )
    return Response(status_code=202)


async def suspend(request: Request) -> Response:
    """POST instances/{id}/suspend?reason=: suspend an instance until it is resumed."""
    await client_of(request).suspend(
        request.path_params["id"], REASON.of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def resume(request: Request) -> Response:
    """POST instances/{id}/resume?reason=: resume a suspended instance."""
    await client_of(request).resume(
        request.path_params["id"], REASON.of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def rewind(request: Request) -> Response:
    """POST instances/{id}/rewind?reason=: continue a failed instance by retrying the calls that failed."""
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
    """DELETE instances?createdTimeFrom=: delete the matching finished instances, or return 404 if there are none."""
    deleted = await client_of(request).purge_instance_history_by(
        PURGED_FROM.of(request),
        CREATED_TO.of(request),
        STATUSES.of(request),
        recursive=RECURSIVE.of(request),
    )
    return json_response({"instancesDeleted": int(deleted)}, 200 if deleted else 404)


# ----------------------------------------------------------------------------------------------- routes


def same_hub(handler: Handler) -> Handler:
    """Reject a request whose `taskHub` is not the hub of this server."""

    async def checked(request: Request) -> Response:
        named, served = TASK_HUB.of(request), client_of(request).task_hub
        if named and named.casefold() != served.casefold():
            raise InstanceNotFound(
                f"the hub {named[:60]!r} is not here. This server serves the hub {served!r}"
            )
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
    """A management route for the served hub. Links for the operation `link` authorize it too."""
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
    """The number of purged instances."""

    instancesDeleted: int


ACCEPTED = Answer(202, None, "The request is stored.")
_AFTER_START = tuple(
    (operation, "/id")
    for operation in ("get_instance", "raise_event", "suspend", "resume", "terminate", "rewind", "purge")
)
_STARTED = Answer(
    202,
    ManagementPayload,
    "The start is stored.",
    {"Location": "the URL of the status", "Retry-After": "seconds to wait before polling it"},
    _AFTER_START,
)
_FINISHED = (Answer(200, Any, "The output. The instance has finished within `timeout`."),)
_START = Contract(
    (VERSION, START_AT, TAGS, ON_EXISTING, TIMEOUT, OPERATION_ID),
    Body(says="the input"),
    (_STARTED, *_FINISHED, Answer(500, InstanceDocument, "The instance has failed within `timeout`.")),
    (FunctionNotFound, InstanceExists, Overloaded),
)
_ORDER = Contract(
    (REASON, OPERATION_ID), None, (ACCEPTED,), (IllegalTransition, InstanceFinished, Overloaded)
)
SEARCHED = {SEARCHED_FROM: "a filter without an index: the time from which on instances were searched so far"}
CONTINUED_BY = {CONTINUATION: "the value to send for the next page; absent on the last page"}

ENDPOINTS = (
    endpoint("/orchestrators/{name}", "POST", start, "operate", _START),
    endpoint("/orchestrators/{name}/{id}", "POST", start, "operate", _START),
    endpoint(
        "/instances",
        "GET",
        list_instances,
        "read",
        Contract(
            (*FILTERS, ORDER, TOP, CONTINUED, SHOW_INPUT),
            None,
            (Answer(200, list[InstanceDocument], "One page.", {**CONTINUED_BY, **SEARCHED}),),
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
            (
                Answer(200, Deleted, "The number of purged instances."),
                Answer(404, Deleted, "No instance matched."),
            ),
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
                Answer(200, InstanceDocument, "The instance has finished."),
                Answer(202, InstanceDocument, "The instance has not finished.", _STARTED.headers),
                Answer(
                    500,
                    InstanceDocument,
                    "The instance has failed (with `returnInternalServerErrorOnFailure`).",
                ),
            ),
        ),
        link="status",
    ),
    endpoint(
        "/instances/{id}",
        "DELETE",
        purge,
        "admin",
        Contract(
            (OPERATION_ID, RECURSIVE),
            None,
            (Answer(200, Deleted, "The number of purged instances."),),
            (IllegalTransition,),
        ),
        link="purge",
    ),
    endpoint(
        "/instances/{id}/raiseEvent/{event:path}",
        "POST",
        raise_event,
        "operate",
        Contract(
            (OPERATION_ID,), Body(says="the data of the event"), (ACCEPTED,), (InstanceFinished, Overloaded)
        ),
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
        "/count",
        "GET",
        count,
        "read",
        Contract(
            FILTERS, None, (Answer(200, InstanceCount, "The number, and from when on it was searched."),)
        ),
    ),
    endpoint(
        "/counts",
        "GET",
        counts,
        "read",
        Contract((BUILT_IN,), None, (Answer(200, dict[str, int], "The number of instances by status."),)),
    ),
)
"""Azure's routes below /runtime/webhooks/durabletask."""
