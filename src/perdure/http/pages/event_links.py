"""Event links: a person without a key raises one event of one instance.

Opening a link has no effect, because mail programs and chat previews open links by themselves. Only the posted form,
or a POST with a JSON body, raises the event. A link that works once is used up by its event: the operation id of the
event is the link's nonce, and is stored in the same commit for the lifetime of the link. So a second use is detected
on every server, and after a crash.
The page shows the question and nothing else of the instance. It needs no cookie and no script, and its URL is not
sent to other sites as a referrer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from perdure.engine.client.client import checked_event_name
from perdure.engine.client.tasks import tasks_of
from perdure.engine.core.repeats import LINK, bound, id_of
from perdure.errors import (
    IdempotencyConflict,
    InstanceFinished,
    InstanceNotFound,
    LinkSpent,
    PerdureError,
)
from perdure.http.access.link_signer import link_of
from perdure.http.api.access import access_of
from perdure.http.api.instance_urls import DECIDE
from perdure.http.languages import say
from perdure.http.pages.csrf import parse_form, read_form
from perdure.http.pages.forms import Field, fields_of, help_of, read_fields
from perdure.http.pages.instances import answer_to, schema_of
from perdure.http.pages.panels import panel_of
from perdure.http.pages.rendering import as_page, base_of, draw, told
from perdure.http.principal import caller_of
from perdure.http.problem import status_of
from perdure.http.request_body import demand_json, read_payload
from perdure.http.routing import client_of
from perdure.http.table import Endpoint
from perdure.http.task_sentences import deadline_sentence, label_of, urgency
from perdure.model.durations import moment
from perdure.model.events import ABSENT
from perdure.model.human_tasks import in_words
from perdure.model.messages import RaiseEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw
    from starlette.requests import Request

    from perdure.engine.client.tasks import OpenTask
    from perdure.model.instances import OrchestrationStatus

_KEPT = 24 * 3_600 * 1_000_000  # microseconds after its expiry for which a used link is remembered


async def look_at_question(request: Request) -> Response:
    """GET decide/{id}/{event}: show the question as a form."""
    await _demand_unspent(request)
    return await _drawn(request, await _instance(request))


async def decide(request: Request) -> Response:
    """POST decide/{id}/{event}: raise the event, from the form or with a JSON body."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        body = await read_payload(request)
        demand_json(request)
        await _demand_unspent(request)
        await _raise(request, body)
        return Response(status_code=202)
    return await _decide_by_form(request)


async def _by_form(request: Request) -> Response:
    # A foreign page cannot know a link, but it could use a session. So only sessions need the form token.
    form = await (parse_form if caller_of(request).link else read_form)(request)
    await _demand_unspent(request)
    one, task = await _instance(request), await _task(request)
    fields = _fields(request, one)
    try:
        await _raise(request, read_fields(fields, form))
    except (InstanceNotFound, InstanceFinished, LinkSpent):
        raise
    except PerdureError as error:
        return await _drawn(request, one, problem=told(request, error), given=form, status=status_of(error))
    said = [(field.label, _shown(field, form)) for field in fields]
    return draw(
        request,
        "decided.html",
        title=_title(request, task),
        said=[pair for pair in said if pair[1]],
        missing=task.decisions - len(task.given_by) - 1 if task is not None else 0,
        reference=request.path_params["id"],
    )


_decide_by_form = as_page(_by_form, translated=True)


async def _raise(request: Request, body: Raw | None) -> None:
    link, access, person = link_of(request), access_of(request), caller_of(request).person
    nonce = link.nonce if link is not None else ""
    message = RaiseEvent(
        instance_id=request.path_params["id"],
        name=checked_event_name(_event(request)),
        input=body if body is not None else ABSENT,
        operation_id=_name_of(nonce) if nonce else "",
        remembered_until=link.expires_at * 1_000_000 + _KEPT if link is not None and nonce else 0,
        decided_by=person.name if person is not None else "",
        roles=person.roles if person is not None else (),
    )
    if not nonce:
        await client_of(request).gateway.accept(message)
        return
    if nonce in access.deciding:
        raise _spent()
    # For the hub, two uses at the same moment are one operation, so the second is rejected here.
    access.deciding.add(nonce)
    try:
        await client_of(request).gateway.accept(bound(message, LINK))
    except IdempotencyConflict:
        raise _spent() from None
    finally:
        access.deciding.discard(nonce)


async def _demand_unspent(request: Request) -> None:
    link = link_of(request)
    if link is None or not link.nonce:
        return
    gateway = client_of(request).gateway
    name, place = _name_of(link.nonce), (request.path_params["id"], _event(request))
    # Links that were used with earlier versions are remembered under the name itself.
    names = (id_of(LINK, "raise", place, name), name)
    found = await gateway.read(lambda: [gateway.store.answered(one) for one in names], brief=True)
    if any(known is not None and known.expires_at > gateway.now() for known in found):
        raise _spent()


def _name_of(nonce: str) -> str:
    return f"link-{nonce}"


def _spent() -> LinkSpent:
    return LinkSpent(say("This link works only once and has been used. The first answer counts."))


async def _instance(request: Request) -> OrchestrationStatus:
    one = await client_of(request).get_status(request.path_params["id"])
    if one is None:
        raise InstanceNotFound(say("The instance of this link no longer exists."))
    if one.is_finished:
        raise InstanceFinished(
            say("The instance of this link has finished, so there is nothing left to decide.")
        )
    return one


def _fields(request: Request, one: OrchestrationStatus) -> tuple[Field, ...]:
    client, event = client_of(request), _event(request)
    waits = one.waiting.events if one.waiting else ()
    wait = next((wait for wait in waits if wait.name == event), None)
    return (
        answer_to(client, one, wait).fields if wait is not None else fields_of(schema_of(client, one, event))
    )


async def _task(request: Request) -> OpenTask | None:
    """The task that the link is for, if the instance waits for its event now."""
    tasks = await tasks_of(client_of(request).gateway, request.path_params["id"])
    return next((task for task in tasks if task.event == _event(request)), None)


def _title(request: Request, task: OpenTask | None) -> str:
    return task.title if task is not None else in_words(_event(request))


async def _drawn(
    request: Request,
    one: OrchestrationStatus,
    *,
    problem: str = "",
    given: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    fields, task, client = _fields(request, one), await _task(request), client_of(request)
    now = moment(client.gateway.now())
    first = fields[0] if fields else None
    # A single question with few answers gets a button for each answer.
    buttons = first if first is not None and len(fields) == 1 and first.is_short else None
    return draw(
        request,
        "decide.html",
        status=status,
        title=_title(request, task),
        task=task,
        sentence=deadline_sentence(task, now) if task is not None and (task.due or task.escalation) else "",
        urgency=urgency(task, now) if task is not None else "",
        panel=await panel_of(client, task, base_of(request), by_link=True),
        label_of=label_of,
        help=help_of(task.schema) if task is not None else "",
        fields=fields,
        buttons=buttons,
        values=dict(given or {}),
        problem=problem,
        once=bool((link := link_of(request)) and link.nonce),
        action=f"?{request.url.query}",
    )


def _shown(field: Field, form: Mapping[str, str]) -> str:
    typed = form.get(field.input_name, "")
    return dict(field.choices).get(typed, typed)


def _event(request: Request) -> str:
    event: Any = request.path_params["event"]
    return str(event)


_PATH = DECIDE + "/{id}/{event:path}"
ENDPOINTS = (
    Endpoint(
        _PATH, ("GET",), as_page(look_at_question, translated=True), "read", link="decide", is_page=True
    ),
    Endpoint(_PATH, ("POST",), decide, "operate", link="decide", is_page=True),
)

__all__ = ["ENDPOINTS"]
