"""The forms of the page of schedules and queues: the operators' commands of `perdure.triggers`.

The same form sent twice is one command, because it contains an id from the page. With other content, for example
after going back in the browser, it is another command.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from starlette.responses import RedirectResponse

from perdure.errors import InstanceNotFound, PayloadError, PerdureError, outward
from perdure.http.pages.csrf import FIELD, read_form
from perdure.http.pages.forms import read_fields
from perdure.http.pages.instance_actions import operation_of
from perdure.http.pages.rendering import as_page, base_of
from perdure.http.pages.triggers import RefusedAction, message_fields, triggers_page
from perdure.http.problem import status_of
from perdure.http.routing import client_of
from perdure.http.table import Endpoint
from perdure.replay.inputs import given
from perdure.triggers.queue_admin import Queues
from perdure.triggers.schedule_admin import Schedules

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client
    from perdure.http.table import Handler

Form = Mapping[str, str]
Doing = Callable[["Client", str, Form, str], Awaitable[object]]


async def _pause(client: Client, name: str, form: Form, operation: str) -> None:
    await Schedules(client).pause(name, form.get("reason", "").strip(), operation_id=operation)


async def _resume(client: Client, name: str, form: Form, operation: str) -> None:
    await Schedules(client).resume(name, operation_id=operation)


async def _run(client: Client, name: str, form: Form, operation: str) -> None:
    await Schedules(client).run(name, operation_id=operation)


async def _backfill(client: Client, name: str, form: Form, operation: str) -> None:
    schedule = await Schedules(client).get(name)
    if schedule is None:
        raise InstanceNotFound(f"there is no schedule {name!r} in this hub")
    zone = ZoneInfo(schedule.timezone)
    after, until = (_instant(form, part, zone) for part in ("after", "until"))
    if not await Schedules(client).backfill(name, after, until, operation_id=operation):
        raise PayloadError(
            f"{name} has no past tick after {after:%Y-%m-%d %H:%M} and up to {until:%Y-%m-%d %H:%M} "
            f"({schedule.timezone}), so nothing fires."
        )


async def _send(client: Client, queue: str, form: Form, operation: str) -> None:
    body = read_fields(message_fields(client, queue), form)
    # Without a message id, the form's id is used, so that a second click does not send a second message.
    chosen = form.get("message_id", "").strip() or operation
    await Queues(client).send(queue, given(body), message_id=chosen)


async def _redeliver(client: Client, instance_id: str, form: Form, operation: str) -> None:
    await Queues(client).redeliver(instance_id, operation_id=operation)


async def _redeliver_all(client: Client, queue: str, form: Form, operation: str) -> None:
    await Queues(client).redeliver_all(queue)


def _instant(form: Form, part: str, zone: ZoneInfo) -> datetime:
    typed = form.get(part, "").strip()
    try:
        found = datetime.fromisoformat(typed)
    except ValueError:
        raise PayloadError(
            f"{part} must be a date and a time, such as 2026-01-31T17:30, not {typed[:40]!r}"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=zone)


def _order(verb: str, part: str, do: Doing) -> Handler:
    """The handler of one button. `part` is the path parameter with the schedule, queue or message."""

    async def order(request: Request) -> Response:
        form, name = await read_form(request), request.path_params[part]
        try:
            await do(client_of(request), name, form, operation_of(form, _whole(verb, name, form), None))
        except PerdureError as error:
            return await triggers_page(request, RefusedAction(outward(error), status_of(error), name, form))
        return RedirectResponse(f"{base_of(request)}/triggers?done={verb}", 303)

    return order


def _whole(verb: str, name: str, form: Form) -> str:
    """The content that identifies a command."""
    filled = sorted((field, value) for field, value in form.items() if field not in (FIELD, "operation"))
    return "\0".join([verb, name, *(part for pair in filled for part in pair)])


def _button(path: str, verb: str, part: str, do: Doing, operation: str) -> Endpoint:
    handler = as_page(_order(verb, part, do))
    return Endpoint(path, ("POST",), handler, "operate", is_page=True, name=operation)


ENDPOINTS = (
    _button("/triggers/schedules/{name}/pause", "pause", "name", _pause, "pause_schedule"),
    _button("/triggers/schedules/{name}/resume", "resume", "name", _resume, "resume_schedule"),
    _button("/triggers/schedules/{name}/run", "run", "name", _run, "run_schedule"),
    _button("/triggers/schedules/{name}/backfill", "backfill", "name", _backfill, "backfill_schedule"),
    _button("/triggers/queues/{queue}/send", "send", "queue", _send, "send_message"),
    _button(
        "/triggers/queues/{queue}/redeliver", "redeliver_all", "queue", _redeliver_all, "redeliver_message"
    ),
    _button("/triggers/dead/{id}/redeliver", "redeliver", "id", _redeliver, "redeliver_message"),
)

__all__ = ["ENDPOINTS"]
