"""People's tasks: list, show, claim, release, assign, and answer one.

The caller acts as the person of their key, session or sign-in. Nothing in a request can name another person. A person
without the scope `read` sees the tasks that they may decide, and no others.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from starlette.responses import Response

from perdure.engine.client.tasks import OpenTask
from perdure.errors import Overloaded, TaskClosed, TaskHeld, TaskRefused
from perdure.http.api.management import ACCEPTED, CONTINUED_BY, endpoint
from perdure.http.api.status_json import Instant
from perdure.http.contract import Answer, Body, Contract
from perdure.http.parameters import CONTINUATION, OPERATION_ID, TAGS, TOP, Parameter, flag, text, when
from perdure.http.principal import Caller, caller_of
from perdure.http.problem import problem_of, shown_path
from perdure.http.request_body import demand_json, read_payload
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.timestamps import stamp, unstamp
from perdure.model.human_tasks import Person

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

MINE = flag("mine", "only tasks that the caller has claimed, or that are assigned to the caller")
PERSON = text("person", "only tasks that this person has claimed, or that are assigned to this person")
ROLE = text("role", "only tasks that this role may decide now")
ORCHESTRATOR = text("orchestrator", "only tasks of this orchestrator")
EVENT = text("event", "only tasks that this event answers")
DUE_BEFORE = when("dueBefore", "only tasks with an earlier deadline")
TITLE = text("text", "only tasks whose title contains this text")
TO: Parameter[Any] = replace(text("to", "the person to whom the task is assigned"), needed=True)
TASKS_CONTINUED = Parameter(
    CONTINUATION,
    "the value of this header in the previous response; continues after that page",
    {"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}-[0-9]{1,19}$"},
    str,
    None,
    place="header",
)


class Escalation(TypedDict):
    """When the task goes to another role."""

    at: Instant
    role: str


class TaskDocument(TypedDict):
    """One open task."""

    id: str
    instanceId: str
    orchestrator: str
    event: str
    title: str
    since: Instant
    due: Instant | None
    facts: dict[str, Any]
    roles: list[str]
    assignee: str
    holder: str
    heldSince: Instant | None
    decisions: int
    givenBy: list[str]
    escalation: Escalation | None
    then: str
    schema: dict[str, Any] | None
    tags: dict[str, str]
    needsPerson: bool


async def list_tasks(request: Request) -> Response:
    """GET tasks: list open tasks, due first. The header x-ms-continuation-token leads to the next page."""
    page = await client_of(request).list_tasks(
        **wanted_tasks(request), top=TOP.of(request), continuation=TASKS_CONTINUED.of(request)
    )
    headers = {CONTINUATION: page.continuation} if page.continuation else {}
    return json_response([document_of(task) for task in page.tasks], 200, headers)


class WantedTasks(TypedDict):
    """The filters of a list of tasks, with whose tasks the caller may see."""

    person: str
    role: str
    orchestrator: str
    event: str
    due_before: datetime | None
    tags: dict[str, str] | None
    text: str
    visible_to: Person | None


def wanted_tasks(request: Request) -> WantedTasks:
    """The tasks that a request asks for."""
    caller = caller_of(request)
    person = caller.person.name if MINE.of(request) and caller.person is not None else PERSON.of(request)
    return WantedTasks(
        person=person or "",
        role=ROLE.of(request) or "",
        orchestrator=ORCHESTRATOR.of(request) or "",
        event=EVENT.of(request) or "",
        due_before=DUE_BEFORE.of(request),
        tags=TAGS.of(request),
        text=TITLE.of(request) or "",
        visible_to=visible_to(caller),
    )


async def get_task(request: Request) -> Response:
    """GET tasks/{task}: return one open task, or 404."""
    try:
        return json_response(document_of(await task_of(request)))
    except TaskClosed as closed:
        return problem_of(closed, status=404, instance=shown_path(request))


async def claim_task(request: Request) -> Response:
    """POST tasks/{task}/claim: claim a task for the caller."""
    await client_of(request).claim_task(
        request.path_params["task"], person_of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def release_task(request: Request) -> Response:
    """POST tasks/{task}/release: give a claimed task back."""
    await client_of(request).release_task(
        request.path_params["task"], person_of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def assign_task(request: Request) -> Response:
    """POST tasks/{task}/assign?to=: assign a task to another person."""
    await client_of(request).assign_task(
        request.path_params["task"], person_of(request), TO.of(request), operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def complete_task(request: Request) -> Response:
    """POST tasks/{task}/complete: answer a task."""
    caller = caller_of(request)
    body = await read_payload(request)
    if body is not None:
        demand_json(request)
    if caller.person is None and not caller.may("operate"):
        person_of(request)
    await client_of(request).complete_task(
        request.path_params["task"], caller.person, body, operation_id=OPERATION_ID.of(request)
    )
    return Response(status_code=202)


async def task_of(request: Request) -> OpenTask:
    """The task in the path. Raises TaskClosed when it is not open, or the caller may not see it."""
    task = await visible_task(request)
    if task is None:
        task_id = request.path_params["task"]
        raise TaskClosed(
            f"there is no open task {task_id!r} for you: it was decided, has expired, or is for another role"
        )
    return task


async def visible_task(request: Request) -> OpenTask | None:
    """The task in the path, if it is open and the caller may see it; None for a path without a task."""
    task_id = request.path_params.get("task")
    found = await client_of(request).get_task(task_id) if task_id else None
    limited = visible_to(caller_of(request))
    return found if found is None or limited is None or found.may_be_decided_by(limited) else None


def person_of(request: Request) -> Person:
    """The caller's person. Raises TaskRefused for a caller who is not known as one."""
    caller = caller_of(request)
    if caller.person is None:
        raise TaskRefused(
            f"{caller.who} is not known as a person. Use a key with the scope `decide`, whose name is the person's, "
            "or the application's sign-in"
        )
    return caller.person


def visible_to(caller: Caller) -> Person | None:
    """Whose tasks the caller may see; None for all."""
    return None if caller.may("read") or caller.person is None else caller.person


def document_of(task: OpenTask) -> dict[str, Any]:
    """A task as JSON."""
    escalation = task.escalation
    return {
        "id": task.id,
        "instanceId": task.instance_id,
        "orchestrator": task.orchestrator,
        "event": task.event,
        "title": task.title,
        "since": stamp(task.since),
        "due": stamp(task.due) if task.due is not None else None,
        "facts": task.facts,
        "roles": list(task.roles),
        "assignee": task.assignee,
        "holder": task.holder,
        "heldSince": stamp(task.held_since) if task.held_since is not None else None,
        "decisions": task.decisions,
        "givenBy": list(task.given_by),
        "escalation": {"at": stamp(escalation[0]), "role": escalation[1]} if escalation is not None else None,
        "then": task.then,
        "schema": task.schema,
        "tags": task.tags,
        "needsPerson": task.needs_person,
    }


def task_from(document: Mapping[str, Any]) -> OpenTask:
    """The task in a document."""
    escalation = document["escalation"]
    return OpenTask(
        id=document["id"],
        instance_id=document["instanceId"],
        orchestrator=document["orchestrator"],
        event=document["event"],
        title=document["title"],
        since=unstamp(document["since"]),
        due=unstamp(document["due"]) if document["due"] else None,
        facts=document["facts"],
        roles=tuple(document["roles"]),
        assignee=document["assignee"],
        holder=document["holder"],
        held_since=unstamp(document["heldSince"]) if document["heldSince"] else None,
        decisions=document["decisions"],
        given_by=tuple(document["givenBy"]),
        escalation=(unstamp(escalation["at"]), escalation["role"]) if escalation else None,
        then=document["then"],
        schema=document["schema"],
        tags=document["tags"],
        needs_person=document["needsPerson"],
    )


TASK_FILTERS = (MINE, PERSON, ROLE, ORCHESTRATOR, EVENT, DUE_BEFORE, TAGS, TITLE)
"""The parameters of a list of tasks, beside those of its pages."""
_MOVE = Contract((OPERATION_ID,), None, (ACCEPTED,), (TaskClosed, TaskHeld, TaskRefused, Overloaded))

ENDPOINTS = (
    endpoint(
        "/tasks",
        "GET",
        list_tasks,
        "decide",
        Contract(
            (*TASK_FILTERS, TOP, TASKS_CONTINUED),
            None,
            (Answer(200, list[TaskDocument], "One page.", CONTINUED_BY),),
        ),
    ),
    endpoint(
        "/tasks/{task}",
        "GET",
        get_task,
        "decide",
        Contract((), None, (Answer(200, TaskDocument, "The task."), Answer(404, None, "It is not open."))),
    ),
    endpoint("/tasks/{task}/claim", "POST", claim_task, "decide", _MOVE),
    endpoint("/tasks/{task}/release", "POST", release_task, "decide", _MOVE),
    endpoint("/tasks/{task}/assign", "POST", assign_task, "decide", replace(_MOVE, takes=(TO, OPERATION_ID))),
    endpoint(
        "/tasks/{task}/complete",
        "POST",
        complete_task,
        "decide",
        replace(_MOVE, body=Body(says="the answer")),
    ),
)
"""The routes of people's tasks, below the management API."""
