"""The page of an instance.

It shows the data of the management API and uses the same methods. It is rendered on the server. The only script
reloads a page that is still changing. Its forms are in `perdure.http.pages.instance_actions`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.engine.client.tasks import tasks_of
from perdure.engine.client.watching import cursor_of
from perdure.errors import FunctionNotFound, InstanceNotFound
from perdure.failure import told_of
from perdure.http.api.instance_urls import MANAGEMENT
from perdure.http.mounting import quoted
from perdure.http.pages.action_buttons import DONE, VERBS
from perdure.http.pages.forms import Field, Schema, fields_of
from perdure.http.pages.history_lines import events_of
from perdure.http.pages.history_views import history_of
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.pages.timeline import timeline_of
from perdure.http.pages.timeline_links import Links, view_of
from perdure.http.principal import caller_of
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.http.task_sentences import deadline_sentence
from perdure.model.durations import instant, moment
from perdure.model.instances import OrchestrationStatus, RuntimeStatus
from perdure.model.waiting import activity_facts
from perdure.triggers.names import SCHEDULE, schedule_id

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client
    from perdure.engine.client.tasks import OpenTask
    from perdure.model.waiting import EventWait

CHILDREN = 100
SCHEDULE_ID = schedule_id("")


@dataclass(frozen=True)
class EventForm:
    """The form for one awaited event. `values` and `problem` are set for a rejected form."""

    event: str
    fields: tuple[Field, ...]
    values: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


async def instance_page(
    request: Request, *, refused: EventForm | None = None, problem: str = "", status: int = 200
) -> Response:
    """GET /instances/{id}: the status, timeline, history and actions of one instance.

    A rejected form is shown again with the reason in `refused` or `problem`.
    """
    client, caller = client_of(request), caller_of(request)
    # The cursor first: if the instance changes in between, its stream begins with a frame that the page lacks.
    cursor = await cursor_of(client.gateway, request.path_params["id"])
    view = view_of(request.query_params)
    one = await client.get_status(
        request.path_params["id"], True, True, True, execution=view.execution or None
    )
    if one is None:
        raise unknown(request)
    now = client.gateway.now()
    history = events_of(one)
    timeline = timeline_of(history, now, view)
    children = [row for row in timeline.rows if row.instance_id] if timeline else []
    path = f"/instances/{quoted(one.instance_id)}"
    here = base_of(request) + path
    return draw(
        request,
        "instance.html",
        status=status,
        done=DONE.get(request.query_params.get("done", ""), ""),
        refresh=None if one.is_finished or refused or problem else _pace(one, now),
        one=one,
        here=here,
        api=base_of(request) + MANAGEMENT + path,
        events=f"{base_of(request)}{MANAGEMENT}{path}/events",
        cursor=cursor,
        activities=[(each, activity_facts(each, one.waiting.at)) for each in one.waiting.activities]
        if one.waiting
        else [],
        reason=_reason(one),
        causes=list(told_of(one.failure)) if one.failure else [],
        forms=_forms(client, one, refused) if caller.may("operate") else [],
        tasks=await _tasks(client, one),
        schedule=one.instance_id.removeprefix(SCHEDULE_ID) if one.name == SCHEDULE else "",
        timeline=timeline,
        execution=view.execution,
        begun=moment(history[0][0]) if history else one.created_time,
        links=Links(here, view) if timeline else None,
        values=_values(one),
        children=children[:CHILDREN],
        children_left_out=max(0, len(children) - CHILDREN),
        verbs=[
            verb for verb in VERBS.values() if one.runtime_status in verb.shown_in and caller.may(verb.scope)
        ],
        problem=problem,
        history=history_of(history, request.query_params, here),
        operation=secrets.token_urlsafe(12),
    )


async def _instance_page(request: Request) -> Response:
    return await instance_page(request)


def unknown(request: Request) -> InstanceNotFound:
    """The error for the page of an unknown instance."""
    return InstanceNotFound(
        f"There is no instance {request.path_params['id']!r} in this hub. It may have been purged."
    )


def answer_to(client: Client, one: OrchestrationStatus, wait: EventWait) -> EventForm:
    """The form for one awaited event."""
    schema = wait.schema if wait.schema is not None else schema_of(client, one, wait.name)
    return EventForm(wait.name, fields_of(schema))


def _forms(client: Client, one: OrchestrationStatus, refused: EventForm | None) -> list[EventForm]:
    if one.name == SCHEDULE:  # schedules have a page of their own
        return []
    waits = one.waiting.events if one.waiting else ()
    forms = {wait.name: answer_to(client, one, wait) for wait in waits}
    if refused is not None and refused.event in forms:
        forms[refused.event] = refused
    return list(forms.values())


def schema_of(client: Client, one: OrchestrationStatus, event: str) -> Schema | None:
    """The schema that the instance's orchestrator declares for an event."""
    try:
        found: Schema | None = _registry(client).orchestrator(one.name).schema(event)
    except FunctionNotFound:
        return None
    return found


async def _tasks(client: Client, one: OrchestrationStatus) -> dict[str, tuple[OpenTask, str]]:
    """The open tasks of the instance by event, each with the sentence about its deadline."""
    if not (one.waiting and one.waiting.events) or one.name == SCHEDULE:
        return {}
    now = moment(client.gateway.now())
    return {
        task.event: (task, deadline_sentence(task, now))
        for task in await tasks_of(client.gateway, one.instance_id)
    }


def _values(one: OrchestrationStatus) -> list[tuple[str, Any]]:
    values = [("Input", one.input), ("Custom status", one.custom_status)]
    shown = [(name, value) for name, value in values if value is not None]
    return [*shown, ("Output", one.output)] if one.runtime_status is RuntimeStatus.Completed else shown


def _reason(one: OrchestrationStatus) -> str:
    """The reason of the status, unless the sentence about the wait contains it."""
    if one.runtime_status is RuntimeStatus.Terminated and one.output:
        return f"Terminated: {one.output}"
    return "" if one.reason in ("", "operator") else one.reason


def _pace(one: OrchestrationStatus, now: int) -> int:
    """Seconds until the page is reloaded. They grow with the time since the last change."""
    idle = (now - instant(one.last_updated_time)) / 1e6
    return 2 if idle < 60 else 5 if idle < 600 else 30


def _registry(client: Client) -> Any:
    return engine_of(client).registry


ENDPOINTS = (Endpoint("/instances/{id}", ("GET",), as_page(_instance_page), "read", is_page=True),)

__all__ = ["ENDPOINTS", "EventForm", "answer_to", "instance_page", "schema_of", "unknown"]
