"""The inbox: people's tasks, due first, with the form to answer one.

A person sees the tasks that they may decide; an operator sees all. A task opens beside the list, with its facts and
the form of its answer. A refused answer keeps what was typed, and says who was faster, or why it cannot count.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from perdure.engine.client.tasks import OpenTask
from perdure.engine.core.audit import NOTE
from perdure.errors import PerdureError, TaskClosed
from perdure.http.api.tasks import person_of, visible_task, visible_to
from perdure.http.languages import say
from perdure.http.mounting import quoted
from perdure.http.pages.csrf import read_form
from perdure.http.pages.forms import Field, fields_of, help_of, read_fields
from perdure.http.pages.history_lines import events_of
from perdure.http.pages.instance_actions import operation_of
from perdure.http.pages.looks import keep_view, saved_views
from perdure.http.pages.panels import panel_of
from perdure.http.pages.rendering import as_page, base_of, draw, told
from perdure.http.principal import caller_of
from perdure.http.problem import status_of
from perdure.http.routing import client_of
from perdure.http.table import Endpoint, Handler
from perdure.http.task_sentences import deadline_sentence, due_in_short, is_late, label_of, urgency
from perdure.model import payload
from perdure.model.durations import moment
from perdure.model.events import EventRaised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from starlette.requests import Request

SHOWN = 200  # tasks of one page
_RESERVED = frozenset("crhjk")  # letters of the page's own shortcuts
_SAID = {
    "complete": "Your answer was recorded.",
    "claim": "The task is yours.",
    "release": "The task is free again.",
    "assign": "The task was passed on.",
}


@dataclass(frozen=True)
class _Asked:
    """The filters of the list."""

    mine: bool = False
    late: bool = False
    role: str = ""
    text: str = ""

    @property
    def query(self) -> str:
        chosen = {
            "mine": "true" if self.mine else "",
            "late": "true" if self.late else "",
            "role": self.role,
            "q": self.text,
        }
        given = {name: value for name, value in chosen.items() if value}
        return f"?{urlencode(given)}" if given else ""


async def inbox(request: Request) -> Response:
    """GET /inbox, GET /inbox/{task}: the list, with one task open beside it."""
    return await _drawn(request)


async def complete(request: Request) -> Response:
    """POST /inbox/{task}/complete: answer the task, and open the next one."""
    form = await read_form(request)
    task = await visible_task(request)
    if task is None:
        return await _late(request)
    fields = fields_of(task.schema)
    try:
        body = read_fields(fields, form)
        await client_of(request).complete_task(
            task.id, caller_of(request).person, body, operation_id=operation_of(form, "complete", body)
        )
    except TaskClosed:
        return await _late(request)
    except PerdureError as error:
        return await _drawn(request, problem=told(request, error), given=form, status=status_of(error))
    return _see(request, "complete", await _next(request))


async def open_decisions(request: Request) -> Response:
    """POST /inbox/{task}/decisions: show the decisions so far. The audit log says who opened them."""
    await read_form(request)
    task = await visible_task(request)
    if task is None:
        return await _late(request)
    note = NOTE.get()
    if note is not None:
        note.detail = task.id
    return await _drawn(request, earlier=await _decisions_of(request, task))


async def _decisions_of(request: Request, task: OpenTask) -> list[tuple[str, Any]]:
    """The people who have decided, each with the answer."""
    one = await client_of(request).get_status(task.instance_id, True, True, True)
    given = (
        [event for _, event in events_of(one) if isinstance(event, EventRaised)] if one is not None else []
    )
    return [
        (event.decided_by, payload.decode(event.input) if event.input else None)
        for event in given
        if event.name == task.event and event.decided_by in task.given_by
    ]


def _move(verb: str) -> Handler:
    async def move(request: Request) -> Response:
        form = await read_form(request)
        client, task_id = client_of(request), request.path_params["task"]
        operation = operation_of(form, verb, None)
        try:
            person = person_of(request)
            if verb == "claim":
                await client.claim_task(task_id, person, operation_id=operation)
            elif verb == "release":
                await client.release_task(task_id, person, operation_id=operation)
            else:
                to = form.get("to", "").strip()
                await client.assign_task(task_id, person, to, operation_id=operation)
        except TaskClosed:
            return await _late(request)
        except PerdureError as error:
            return await _drawn(request, problem=told(request, error), given=form, status=status_of(error))
        return _see(request, verb, task_id)

    move.__doc__ = f"POST /inbox/{{task}}/{verb}: {verb} the task."
    return move


async def _late(request: Request) -> Response:
    problem = say(
        "Nothing was sent: this task is no longer open. It was decided by another person, its deadline has passed, "
        "or it was withdrawn."
    )
    return await _drawn(request, problem=problem, status=409)


async def _listed(request: Request, asked: _Asked) -> list[OpenTask]:
    caller, client = caller_of(request), client_of(request)
    mine = caller.person.name if asked.mine and caller.person is not None else ""
    page = await client.list_tasks(
        person=mine,
        role=asked.role,
        text=asked.text,
        due_before=moment(client.gateway.now()) if asked.late else None,
        top=SHOWN,
        visible_to=visible_to(caller),
    )
    return page.tasks


async def _next(request: Request) -> str:
    """The first task of the list, to go on with."""
    tasks = await _listed(request, _asked(request))
    return tasks[0].id if tasks else ""


def _asked(request: Request) -> _Asked:
    given = request.query_params
    return _Asked(
        given.get("mine") == "true", given.get("late") == "true", given.get("role", ""), given.get("q", "")
    )


async def _drawn(
    request: Request,
    *,
    problem: str = "",
    given: Mapping[str, str] | None = None,
    status: int = 200,
    earlier: Sequence[tuple[str, Any]] = (),
) -> Response:
    client, asked, caller = client_of(request), _asked(request), caller_of(request)
    now = moment(client.gateway.now())
    tasks = await _listed(request, asked)
    task = await visible_task(request)
    if task is None and request.path_params.get("task") and not problem:
        problem, status = (
            say("There is no open task %(task)s for you.", task=request.path_params["task"]),
            404,
        )
    fields = fields_of(task.schema) if task is not None else ()
    panel = await panel_of(client, task, base_of(request))
    return draw(
        request,
        "inbox.html",
        status=status,
        asked=asked,
        views=_views(request),
        saved=saved_views(request),
        groups=_groups(tasks, now),
        total=len(tasks),
        is_full=len(tasks) == SHOWN,
        overdue=sum(is_late(one, now) for one in tasks),
        held=sum(caller.person is not None and one.holder == caller.person.name for one in tasks),
        me=caller.person.name if caller.person is not None else "",
        task=task,
        panel=panel,
        earlier=earlier,
        help=help_of(task.schema) if task is not None else "",
        fields=fields,
        keys=_keys(fields),
        values=dict(given or {}),
        sentence_of=lambda one: deadline_sentence(one, now),
        due_of=lambda one: due_in_short(one, now),
        urgency=lambda one: urgency(one, now),
        label_of=label_of,
        problem=problem,
        done=say(_SAID.get(request.query_params.get("done", ""), "")),
        operation=secrets.token_urlsafe(12),
        refresh=None if task is not None else 10,
    )


def _views(request: Request) -> list[tuple[str, str]]:
    """The views that every inbox has, each with its query."""
    mine = [(say("Mine"), _Asked(mine=True).query)] if caller_of(request).person is not None else []
    return [(say("All"), ""), *mine, (say("Overdue"), _Asked(late=True).query)]


async def save_view(request: Request) -> Response:
    """POST /inbox: keep the present filter as a view, in a cookie of the person's browser, or forget one."""
    query = _asked(request).query
    response = RedirectResponse(f"{base_of(request)}/inbox{query}", 303)
    keep_view(request, response, await read_form(request), query)
    return response


def _groups(tasks: Sequence[OpenTask], now: datetime) -> list[tuple[str, list[OpenTask]]]:
    """The tasks under the headings of the list, in its order."""
    groups: dict[str, list[OpenTask]] = {}
    for one in sorted(tasks, key=lambda one: (one.due_now is None, one.due_now or one.since)):
        groups.setdefault(_heading(one, now), []).append(one)
    return list(groups.items())


def _heading(task: OpenTask, now: datetime) -> str:
    due = task.due_now
    if due is None:
        return "No deadline"
    if due <= now:
        return "Overdue"
    if due.date() == now.date():
        return "Today"
    return "Within a week" if due - now < timedelta(days=7) else "Later"


def _keys(fields: Sequence[Field]) -> dict[str, str]:
    """The first free letter of each choice of the first question with few answers."""
    taken: set[str] = set(_RESERVED)
    keys: dict[str, str] = {}
    asked = next((field for field in fields if field.is_short), None)
    for value, label in asked.choices if asked is not None else ():
        letter = next((c for c in label.casefold() if c.isascii() and c.isalpha() and c not in taken), "")
        taken.add(letter)
        keys[value] = letter
    return keys


def _see(request: Request, done: str, task_id: str) -> Response:
    asked: dict[str, Any] = {
        name: value for name, value in request.query_params.items() if name in ("mine", "late", "role", "q")
    }
    path = f"/inbox/{quoted(task_id)}" if task_id else "/inbox"
    return RedirectResponse(f"{base_of(request)}{path}?{urlencode({**asked, 'done': done})}", 303)


ENDPOINTS = (
    Endpoint("/inbox", ("GET",), as_page(inbox, translated=True), "decide", is_page=True),
    Endpoint("/inbox", ("POST",), as_page(save_view, translated=True), "decide", is_page=True),
    Endpoint("/inbox/{task}", ("GET",), as_page(inbox, translated=True), "decide", is_page=True),
    Endpoint(
        "/inbox/{task}/complete",
        ("POST",),
        as_page(complete, translated=True),
        "decide",
        is_page=True,
        name="complete_task",
    ),
    Endpoint(
        "/inbox/{task}/decisions", ("POST",), as_page(open_decisions, translated=True), "decide", is_page=True
    ),
    *(
        Endpoint(
            f"/inbox/{{task}}/{verb}",
            ("POST",),
            as_page(_move(verb), translated=True),
            "decide",
            is_page=True,
            name=f"{verb}_task",
        )
        for verb in ("claim", "release", "assign")
    ),
)

__all__ = ["ENDPOINTS"]
