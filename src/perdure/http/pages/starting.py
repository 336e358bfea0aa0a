"""The form that starts an orchestration: its fields come from the type of the orchestrator's input.

"Start like this one" fills the form with the input of an instance.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse, Response

from perdure.engine.core.audit import NOTE
from perdure.engine.functions.registry import orchestrator_input
from perdure.errors import FunctionNotFound, PayloadError, PerdureError
from perdure.http.mounting import quoted
from perdure.http.pages.csrf import read_form
from perdure.http.pages.forms import Field, Schema, fields_of, help_of, read_fields, typed_of
from perdure.http.pages.instance_actions import operation_of
from perdure.http.pages.rendering import as_page, base_of, draw, told
from perdure.http.problem import status_of
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.model import payload
from perdure.model.http_calls import BUILT_IN
from perdure.replay.inputs import given

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request


async def start_form(request: Request) -> Response:
    """GET /start/{name}: the form, with the input of the instance `like` if one is given."""
    like = request.query_params.get("like", "")
    return await _drawn(request, like=like)


async def start_here(request: Request) -> Response:
    """POST /start/{name}: start the orchestration, and show the instance."""
    form = await read_form(request)
    name = request.path_params["name"]
    instance_id = form.get("id", "").strip() or None
    try:
        fields = fields_of(_schema(request))
        body = read_fields(fields, form)
        tags = _tags(form.get("tags", ""))
        note = NOTE.get()
        if note is not None:
            note.detail = name
        started = await client_of(request).start_new(
            name,
            instance_id,
            given(body),
            tags=tags,
            version=form.get("version", "").strip() or None,
            operation_id=operation_of(form, f"start {name} {instance_id or ''}", body),
        )
    except PerdureError as error:
        return await _drawn(request, form=form, problem=told(request, error), status=status_of(error))
    return RedirectResponse(f"{base_of(request)}/instances/{quoted(started)}", 303)


async def _drawn(
    request: Request,
    *,
    like: str = "",
    form: Mapping[str, str] | None = None,
    problem: str = "",
    status: int = 200,
) -> Response:
    schema = _schema(request)
    fields = fields_of(schema)
    typed: dict[str, str] = dict(form or {})
    if like:
        typed |= await _like(request, like, fields)
    return draw(
        request,
        "start.html",
        status=status,
        name=request.path_params["name"],
        like=like,
        fields=fields,
        help=help_of(schema),
        values=typed,
        problem=problem,
        operation=typed.get("operation") or secrets.token_urlsafe(12),
    )


async def _like(request: Request, instance_id: str, fields: tuple[Field, ...]) -> dict[str, str]:
    """What the fields contain for the input of an instance."""
    one = await client_of(request).get_status(instance_id, show_input=True)
    if one is None:
        return {}
    tags = ", ".join(f"{name}={value}" for name, value in one.tags.items())
    return {**typed_of(fields, one.input), "tags": tags, "version": one.version}


def _schema(request: Request) -> Schema | None:
    """The schema of the input; None if it can be any JSON. Raises FunctionNotFound."""
    name = request.path_params["name"]
    if name.startswith(BUILT_IN):
        raise FunctionNotFound(f"{name!r} is an orchestrator of perdure, which no person starts")
    _, kind = orchestrator_input(engine_of(client_of(request)).registry.orchestrator(name))
    return payload.schema_of(kind)


def _tags(text: str) -> dict[str, str] | None:
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    if any(not mark or not name for name, mark, _ in pairs):
        raise PayloadError("tags are written name=value, with commas between them")
    return {name: value for name, _, value in pairs} or None


ENDPOINTS = (
    Endpoint("/start/{name}", ("GET",), as_page(start_form), "operate", is_page=True),
    Endpoint("/start/{name}", ("POST",), as_page(start_here), "operate", is_page=True, name="start"),
)

__all__ = ["ENDPOINTS"]
