"""Azure's management API over the verbs of `Client`.

Paths, query parameters, codes, headers and bodies are Azure's. What goes beyond: a sentence of what an
instance waits for and more of the like in its status, 409 for an id that is taken, `Idempotency-Key` to make
a request safe to repeat, filters by name, tag and awaited event, and `wait=seconds` to be answered when the
instance has finished.
A 2xx is sent only after the commit that took the request up, because the verbs return only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from perdure.errors import FunctionNotFound, InstanceNotFound, PayloadError
from perdure.http.body import demand_json, read_payload
from perdure.http.document import document_of
from perdure.http.endpoint import Endpoint, Handler, client_of
from perdure.http.instants import unstamp
from perdure.http.links import RETRY_AFTER_STATUS, json_response
from perdure.http.parameters import CONTINUATION
from perdure.http.parameters import flag as _flag
from perdure.http.parameters import on_existing as _on_existing
from perdure.http.parameters import operation_id as _operation_id
from perdure.http.parameters import read as _read
from perdure.http.parameters import reason as _reason
from perdure.http.parameters import seconds as _seconds
from perdure.http.parameters import statuses as _statuses
from perdure.http.parameters import tags as _tags
from perdure.http.parameters import top as _top
from perdure.http.problem import problem_of, shown_path
from perdure.model.instances import OrchestrationStatus, RuntimeStatus

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.engine.client import Client

LONGEST_WAIT = 60.0  # seconds that one request is kept waiting for an instance to finish


# --------------------------------------------------------------------------------------------- starting


async def start(request: Request) -> Response:
    """POST orchestrators/{name}[/{id}]: 202 with the management payload, or the output within `timeout`."""
    client, query = client_of(request), request.query_params
    start_at = _read(query, "startAt", unstamp)
    on_existing = _read(query, "onExisting", _on_existing)
    timeout = _read(query, "timeout", _seconds)
    try:
        instance_id = await client.start_new(
            request.path_params["name"],
            request.path_params.get("id"),
            await read_payload(request),
            version=query.get("version"),
            start_at=start_at,
            tags=_tags(query.getlist("tag")),
            on_existing=on_existing or "replace_finished",
            operation_id=_operation_id(request),
        )
    except FunctionNotFound as error:
        return problem_of(error, status=400, instance=shown_path(request))
    return await _started(client, request, instance_id, timeout)


async def restart(request: Request) -> Response:
    """POST instances/{id}/restart: 202 with the management payload of the new run."""
    client, query = client_of(request), request.query_params
    timeout = _read(query, "timeout", _seconds)
    instance_id = await client.restart(
        request.path_params["id"],
        _flag(query, "restartWithNewInstanceId", True),
        operation_id=_operation_id(request),
    )
    return await _started(client, request, instance_id, timeout)


async def _started(client: Client, request: Request, instance_id: str, timeout: float | None) -> Response:
    answer: Response
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
    """GET instances/{id}: 202 while it is unfinished, 200 afterwards, 500 for a failed one if so asked."""
    query = request.query_params
    show_input = _flag(query, "showInput", True)
    on_failure = 500 if _flag(query, "returnInternalServerErrorOnFailure", False) else 200
    wait = _read(query, "wait", _seconds)
    if wait:
        await _until_finished(client_of(request), request.path_params["id"], min(wait, LONGEST_WAIT))
    status = await _status(
        request,
        show_input=show_input,
        show_history=_flag(query, "showHistory", False),
        show_history_output=_flag(query, "showHistoryOutput", False),
        execution=_read(query, "execution", int),
    )
    document = document_of(status, with_input=show_input)
    if not status.is_finished:
        links = client_of(request).get_client_response_links(request, status.instance_id)
        return json_response(
            document, 202, {"Location": links["statusQueryGetUri"], "Retry-After": RETRY_AFTER_STATUS}
        )
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
    """GET instances: one page as an array; the header x-ms-continuation-token leads to the next."""
    query = request.query_params
    show_input = _flag(query, "showInput", True)
    page = await client_of(request).query(
        status=_read(query, "runtimeStatus", _statuses) or (),
        name=query.get("name"),
        prefix=query.get("instanceIdPrefix"),
        tags=_tags(query.getlist("tag")),
        created_from=_read(query, "createdTimeFrom", unstamp),
        created_to=_read(query, "createdTimeTo", unstamp),
        waiting_for=query.get("waitingFor"),
        top=_top(query),
        continuation=request.headers.get(CONTINUATION) or None,
        show_input=show_input,
    )
    headers = {CONTINUATION: page.continuation} if page.continuation else {}
    return json_response([document_of(s, with_input=show_input) for s in page.instances], 200, headers)


async def counts(request: Request) -> Response:
    """GET counts: how many instances stand in each status."""
    return json_response(await client_of(request).counts())


# -------------------------------------------------------------------------------------------- messaging


async def raise_event(request: Request) -> Response:
    """POST instances/{id}/raiseEvent/{event}: 202 once the event is durable."""
    body = await read_payload(request)
    if body is not None:
        demand_json(request)
    await client_of(request).raise_event(
        request.path_params["id"],
        request.path_params["event"],
        body,
        event_id=_operation_id(request),
    )
    return Response(status_code=202)


async def terminate(request: Request) -> Response:
    """POST instances/{id}/terminate?reason=."""
    recursive = _flag(request.query_params, "recursive", False)
    await client_of(request).terminate(
        request.path_params["id"], _reason(request), recursive=recursive, operation_id=_operation_id(request)
    )
    return Response(status_code=202)


async def suspend(request: Request) -> Response:
    """POST instances/{id}/suspend?reason=."""
    await client_of(request).suspend(
        request.path_params["id"], _reason(request), operation_id=_operation_id(request)
    )
    return Response(status_code=202)


async def resume(request: Request) -> Response:
    """POST instances/{id}/resume?reason=."""
    await client_of(request).resume(
        request.path_params["id"], _reason(request), operation_id=_operation_id(request)
    )
    return Response(status_code=202)


async def rewind(request: Request) -> Response:
    """POST instances/{id}/rewind?reason=: a failed instance goes on."""
    await client_of(request).rewind(
        request.path_params["id"], _reason(request), operation_id=_operation_id(request)
    )
    return Response(status_code=202)


# ---------------------------------------------------------------------------------------------- purging


async def purge(request: Request) -> Response:
    """DELETE instances/{id}: the finished instance and its history."""
    instance_id = request.path_params["id"]
    deleted = await client_of(request).purge_instance_history(
        instance_id, operation_id=_operation_id(request)
    )
    if not deleted:
        raise InstanceNotFound(f"there is no instance {instance_id!r} to purge")
    return json_response({"instancesDeleted": int(deleted)})


async def purge_many(request: Request) -> Response:
    """DELETE instances?createdTimeFrom=: the finished ones that match; 404 when there were none."""
    query = request.query_params
    created_from = _read(query, "createdTimeFrom", unstamp)
    if created_from is None:
        raise PayloadError("purging several instances needs createdTimeFrom, as a safeguard")
    deleted = await client_of(request).purge_instance_history_by(
        created_from,
        _read(query, "createdTimeTo", unstamp),
        _read(query, "runtimeStatus", _statuses) or (),
    )
    return json_response({"instancesDeleted": int(deleted)}, 200 if deleted else 404)


# ----------------------------------------------------------------------------------------------- routes


def same_hub(handler: Handler) -> Handler:
    """Refuse a request that names another task hub, instead of answering it about this one."""

    async def checked(request: Request) -> Response:
        named, served = request.query_params.get("taskHub"), client_of(request).task_hub
        if named and named.casefold() != served.casefold():
            raise InstanceNotFound(f"this server serves the hub {served!r}, not {named[:60]!r}")
        return await handler(request)

    checked.__doc__, checked.__name__ = handler.__doc__, handler.__name__
    return checked


def endpoint(path: str, method: str, handler: Handler, scope: Any, link: str = "") -> Endpoint:
    """A management route, for requests about the hub that is served; `link` opens it too."""
    return Endpoint(path, (method,), same_hub(handler), scope, folded=True, link=link)


ENDPOINTS = (
    endpoint("/orchestrators/{name}", "POST", start, "operate"),
    endpoint("/orchestrators/{name}/{id}", "POST", start, "operate"),
    endpoint("/instances", "GET", list_instances, "read"),
    endpoint("/instances", "DELETE", purge_many, "admin"),
    endpoint("/instances/{id}", "GET", get_instance, "read", "status"),
    endpoint("/instances/{id}", "DELETE", purge, "admin", "purge"),
    endpoint("/instances/{id}/raiseEvent/{event:path}", "POST", raise_event, "operate", "raise"),
    endpoint("/instances/{id}/terminate", "POST", terminate, "operate", "terminate"),
    endpoint("/instances/{id}/suspend", "POST", suspend, "operate", "suspend"),
    endpoint("/instances/{id}/resume", "POST", resume, "operate", "resume"),
    endpoint("/instances/{id}/rewind", "POST", rewind, "operate", "rewind"),
    endpoint("/instances/{id}/restart", "POST", restart, "operate", "restart"),
    endpoint("/counts", "GET", counts, "read"),
)
"""Azure's routes below /runtime/webhooks/durabletask."""
