"""The forms of the instance page: answers to awaited events, other events, and the action buttons.

The form for an awaited event is rejected if the instance no longer waits for the event. So if two people decide at
the same time, the second gets an error. The same form sent twice is one operation.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response

from perdure.engine.core.audit import NOTE
from perdure.errors import InstanceNotFound, PerdureError
from perdure.http.mounting import quoted
from perdure.http.pages.action_buttons import VERBS, Verb
from perdure.http.pages.csrf import read_form
from perdure.http.pages.forms import fields_of, read_fields
from perdure.http.pages.instances import EventForm, answer_to, instance_page, unknown
from perdure.http.pages.rendering import as_page, base_of, told
from perdure.http.principal import caller_of
from perdure.http.problem import status_of
from perdure.http.routing import client_of
from perdure.http.table import Endpoint, Handler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw
    from starlette.requests import Request


async def answer(request: Request) -> Response:
    """POST /instances/{id}/answer: the form of an awaited event."""
    client, form = client_of(request), await read_form(request)
    event = form.get("event", "")
    one = await client.get_status(request.path_params["id"])
    if one is None:
        raise unknown(request)
    wait = next((wait for wait in (one.waiting.events if one.waiting else ()) if wait.name == event), None)
    if wait is None:
        problem = (
            f"Nothing was sent, because this instance no longer waits for {event!r}. "
            "Another person may have answered."
        )
        return await instance_page(request, problem=problem, status=409)
    asked = answer_to(client, one, wait)
    try:
        await _raise(request, form, event, asked)
    except PerdureError as error:
        typed = {field.input_name: form.get(field.input_name, "") for field in asked.fields}
        refused = replace(asked, values=typed, problem=told(request, error))
        return await instance_page(request, refused=refused, status=status_of(error))
    return _see(request, one.instance_id, "event")


async def raise_event(request: Request) -> Response:
    """POST /instances/{id}/event: any event, even if the instance does not wait for it."""
    form = await read_form(request)
    try:
        await _raise(request, form, form.get("event", "").strip(), EventForm("", fields_of(None)))
    except InstanceNotFound:
        raise unknown(request) from None
    except PerdureError as error:
        return await instance_page(request, problem=told(request, error), status=status_of(error))
    return _see(request, request.path_params["id"], "event")


async def _raise(request: Request, form: Mapping[str, str], event: str, asked: EventForm) -> None:
    body = read_fields(asked.fields, form)
    note = NOTE.get()
    if note is not None:
        note.detail = event
    await client_of(request).raise_event(
        request.path_params["id"],
        event,
        body,
        event_id=operation_of(form, event, body),
        person=caller_of(request).person,
    )


def _press(verb: Verb) -> Handler:
    """POST /instances/{id}/{verb}: a button."""

    async def press(request: Request) -> Response:
        form = await read_form(request)
        instance_id = request.path_params["id"]
        try:
            shown = await verb.do(client_of(request), instance_id, form, operation_of(form, verb.name, None))
        except InstanceNotFound:
            raise unknown(request) from None
        except PerdureError as error:
            return await instance_page(request, problem=told(request, error), status=status_of(error))
        return _see(request, shown, verb.name)

    return press


def operation_of(form: Mapping[str, str], what: str, body: Raw | None) -> str:
    """The operation id of a form. Another button or other content gives another id."""
    content = "\0".join((form.get("operation", ""), what, sha256(bytes(body or b"")).hexdigest()))
    return f"page-{sha256(content.encode()).hexdigest()[:40]}"


def _see(request: Request, instance_id: str, done: str) -> Response:
    path = f"/instances/{quoted(instance_id)}" if instance_id else "/"
    return RedirectResponse(f"{base_of(request)}{path}?done={done}", 303)


ENDPOINTS = (
    Endpoint(
        "/instances/{id}/answer", ("POST",), as_page(answer), "operate", is_page=True, name="raise_event"
    ),
    Endpoint("/instances/{id}/event", ("POST",), as_page(raise_event), "operate", is_page=True),
    *(
        Endpoint(
            f"/instances/{{id}}/{verb.name}",
            ("POST",),
            as_page(_press(verb)),
            verb.scope,
            is_page=True,
            name=verb.name,
        )
        for verb in VERBS.values()
    ),
)

__all__ = ["ENDPOINTS", "operation_of"]
