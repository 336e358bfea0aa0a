"""Bulk operations over HTTP: GET bulk/{verb} tells who matches, POST bulk/{verb} does one page.

A page is one request of bounded length; the header x-ms-continuation-token leads to the next, as it does in
lists. So nothing runs on when the caller has gone, and the caller sees the operation move. The filters are
those of a list. Without any, a POST needs `all=true`, as a safeguard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.engine.client.bulk import PAGE, VERBS, BulkOutcome, BulkPage, BulkRequest
from perdure.errors import PayloadError
from perdure.http.api.management import CONTINUED_BY, RECURSIVE, endpoint
from perdure.http.contract import Answer, Contract
from perdure.http.parameters import CONTINUATION, CONTINUED, FILTERS, REASON, flag, which, whole
from perdure.http.responses import json_response
from perdure.http.routing import client_of
from perdure.http.table import Endpoint, Scope
from perdure.triggers.names import MESSAGE
from perdure.triggers.queue_admin import TAG, note_redelivery

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.http.table import Handler

LARGEST_PAGE = 500
EVERY = flag("all", "without a filter: every instance is meant")
TOP = whole("top", "at most so many in this page", 1, LARGEST_PAGE, PAGE)


def _preview(verb: str) -> Handler:
    async def preview(request: Request) -> Response:
        return json_response(await client_of(request).bulk(verb, dry_run=True, **which(request)))

    preview.__doc__ = f"GET bulk/{verb}: how many instances match, and the newest of them. Changes nothing."
    return preview


def _page(verb: str) -> Handler:
    async def page(request: Request) -> Response:
        selection = which(request)
        if not any(selection.values()) and not EVERY.of(request):
            raise PayloadError(f"to {verb} every instance say all=true; otherwise give a filter")
        if verb == "rewind" and selection.get("name") == MESSAGE:
            note_redelivery((selection.get("tags") or {}).get(TAG, ""), REASON.of(request))
        asked = BulkRequest(verb=verb, reason=REASON.of(request), recursive=RECURSIVE.of(request))
        done = await client_of(request).bulk_page(asked, selection, CONTINUED.of(request), TOP.of(request))
        return json_response(done, 200, {CONTINUATION: done.continuation} if done.continuation else {})

    page.__doc__ = (
        f"POST bulk/{verb}: {verb} one page of the instances that match, and tell what became of each."
    )
    return page


_PREVIEW = Contract(FILTERS, None, (Answer(200, BulkOutcome, "Who matches."),))
_PAGE = Contract(
    (*FILTERS, EVERY, TOP, CONTINUED, REASON, RECURSIVE),
    None,
    (Answer(200, BulkPage, "What became of one page.", CONTINUED_BY),),
)


def _endpoints(verb: str) -> tuple[Endpoint, Endpoint]:
    scope: Scope = "admin" if verb == "purge" else "operate"
    path = f"/bulk/{verb}"
    return (
        endpoint(path, "GET", _preview(verb), "read", _PREVIEW, name=f"preview_{verb}"),
        endpoint(path, "POST", _page(verb), scope, _PAGE, name=f"{verb}_many"),
    )


ENDPOINTS = tuple(endpoint for verb in VERBS for endpoint in _endpoints(verb))
"""Below /runtime/webhooks/durabletask."""

__all__ = ["ENDPOINTS"]
