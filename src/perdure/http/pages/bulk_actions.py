"""A verb for many instances: a preview that changes nothing, and a form that performs it.

The preview names how many instances match and the newest of them, as the command line does. The form sends the same
selection. One press handles at most a few thousand instances, and says what is left.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import QueryParams

from perdure.engine.client.bulk import VERBS, BulkOutcome, BulkRequest, is_given
from perdure.engine.core.audit import NOTE
from perdure.errors import EngineStopped, PayloadError, PerdureError, StoreError, outward
from perdure.http.pages.csrf import read_form
from perdure.http.pages.instance_list import BULK, InstanceFilters
from perdure.http.pages.looks import speech_of
from perdure.http.pages.rendering import as_page, draw, told
from perdure.http.problem import status_of
from perdure.http.routing import client_of
from perdure.http.table import Endpoint, Handler, Scope

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.engine.client.client import Client

AT_MOST: Final = 2_000  # instances of one press
NAMED: Final = 500  # instances that a visitor selects one by one
EXPLAINED: Final = {
    "suspend": "They stop until they are resumed. Messages that arrive meanwhile are stored.",
    "resume": "They continue, with the stored messages in order.",
    "rewind": "They continue where they failed. Failed calls run again, completed calls do not.",
    "terminate": "They end immediately and permanently. Running activities continue, but their results are dropped.",
    "purge": "They are deleted with their histories. This cannot be undone.",
}
PAST: Final = {
    "suspend": "suspended",
    "resume": "resumed",
    "rewind": "rewound",
    "terminate": "terminated",
    "purge": "purged",
}


def _preview(verb: str) -> Handler:
    async def preview(request: Request) -> Response:
        return await _asking(request, verb)

    preview.__doc__ = f"GET /bulk/{verb}: how many instances it would change, and the newest of them."
    return preview


def _perform(verb: str) -> Handler:
    async def perform(request: Request) -> Response:
        form = await read_form(request)
        client, reason = client_of(request), form.get("reason", "")
        try:
            ids = _ids(form.get("ids", ""))
            if ids:
                done = await _each(client, BulkRequest(verb=verb, reason=reason), ids)
            else:
                asked = _asked(form.get("filter", ""))
                which = asked.which(speech_of(request).zone)
                if not is_given(which) and form.get("everything") != "true":
                    raise PayloadError(f"There is no filter. Confirm that you want to {verb} every instance.")
                done = await client.bulk(verb, reason=reason, at_most=AT_MOST, **which)
        except (PerdureError, ValueError) as error:
            shown = told(request, error) if isinstance(error, PerdureError) else str(error)
            status = status_of(error) if isinstance(error, PerdureError) else 400
            return await _asking(request, verb, problem=shown, form=form, status=status)
        note = NOTE.get()
        if note is not None:
            note.detail = f"{done.done} {PAST[verb]}"
        return draw(
            request, "bulk.html", verb=verb, past=PAST[verb], outcome=done, back=form.get("filter", "")
        )

    perform.__doc__ = f"POST /bulk/{verb}: {verb} the selected instances."
    return perform


async def _asking(
    request: Request, verb: str, *, problem: str = "", form: dict[str, str] | None = None, status: int = 200
) -> Response:
    """The preview with the form; with what was typed, if that was refused."""
    client = client_of(request)
    query = request.query_params
    asked = _asked(form["filter"]) if form and "filter" in form else InstanceFilters.of(query)
    ids = _ids(form["ids"]) if form and "ids" in form else query.getlist("id")[:NAMED]
    found = BulkOutcome(verb=verb, matched=len(ids), examples=list(ids[:10]), dry_run=True)
    which: dict[str, Any] = {}
    if not ids:
        try:
            which = dict(asked.which(speech_of(request).zone))
            found = await client.bulk(verb, dry_run=True, **which)
        except (PayloadError, ValueError) as error:
            problem, status = str(error), 400
    return draw(
        request,
        "bulk.html",
        status=status,
        verb=verb,
        past=PAST[verb],
        explained=EXPLAINED[verb],
        found=found,
        outcome=None,
        ids=json.dumps(list(ids)) if ids else "",
        is_everything=not ids and not is_given(which),  # type: ignore[arg-type]
        at_most=AT_MOST,
        chips=asked.chips(""),
        back=asked.query,
        takes_reason=verb != "purge",
        typed=form or {},
        problem=problem,
    )


async def _each(client: Client, asked: BulkRequest, ids: list[str]) -> BulkOutcome:
    """The verb for instances that were selected one by one. An error for one does not stop the others."""
    outcome = BulkOutcome(verb=asked.verb, matched=len(ids), finished=True)
    for instance_id in ids:
        try:
            await VERBS[asked.verb].apply(client, instance_id, asked)
        except (EngineStopped, StoreError):
            raise
        except PerdureError as error:
            failures = [*outcome.failures, (instance_id, outward(error))]
            outcome = msgspec.structs.replace(outcome, failed=outcome.failed + 1, failures=failures)
        else:
            outcome = msgspec.structs.replace(outcome, done=outcome.done + 1)
    return outcome


def _asked(query: str) -> InstanceFilters:
    return InstanceFilters.of(QueryParams(parse_qsl(query.removeprefix("?"), max_num_fields=50)))


def _ids(text: str) -> list[str]:
    """The ids in a field of the form. Raises PayloadError if it is not the form's own."""
    if not text:
        return []
    try:
        return msgspec.json.decode(text, type=list[str])[:NAMED]
    except (msgspec.MsgspecError, UnicodeEncodeError):
        raise PayloadError("the field ids is not a list of ids") from None


def _endpoints(verb: str) -> tuple[Endpoint, Endpoint]:
    scope: Scope = "admin" if verb == "purge" else "operate"
    return (
        Endpoint(
            f"/bulk/{verb}", ("GET",), as_page(_preview(verb)), scope, is_page=True, name=f"preview_{verb}"
        ),
        Endpoint(
            f"/bulk/{verb}", ("POST",), as_page(_perform(verb)), scope, is_page=True, name=f"{verb}_many"
        ),
    )


ENDPOINTS = tuple(endpoint for verb in BULK for endpoint in _endpoints(verb))

__all__ = ["ENDPOINTS"]
