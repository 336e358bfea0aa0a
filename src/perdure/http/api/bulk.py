"""Bulk operations over HTTP: GET bulk/{verb} counts the matching instances, POST bulk/{verb} handles one page.

A page is one request of bounded length. The header x-ms-continuation-token leads to the next page, as in lists. So
nothing continues after the caller has disconnected, and the caller sees the progress. The filters are those of a
list. Without a filter, a POST needs `all=true` as a safeguard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.engine.client.bulk import PAGE, VERBS, BulkOutcome, BulkPage, BulkRequest, is_given
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
EVERY = flag("all", "required without a filter, to select every instance")
TOP = whole("top", "the most instances on this page", 1, LARGEST_PAGE, PAGE)


def _preview(verb: str) -> Handler:
    async def preview(request: Request) -> Response:
        return json_response(await client_of(request).bulk(verb, dry_run=True, **which(request)))

    preview.__doc__ = f"GET bulk/{verb}: count the matching instances and list the newest. Changes nothing."
    return preview


def _page(verb: str) -> Handler:
    async def page(request: Request) -> Response:
        selection = which(request)
        if not is_given(selection) and not EVERY.of(request):
            raise PayloadError(f"there is no filter. To {verb} every instance, add all=true")
        if verb == "rewind" and selection.get("name") == MESSAGE:
            note_redelivery((selection.get("tags") or {}).get(TAG, ""), REASON.of(request))
        asked = BulkRequest(verb=verb, reason=REASON.of(request), recursive=RECURSIVE.of(request))
        done = await client_of(request).bulk_page(asked, selection, CONTINUED.of(request), TOP.of(request))
        return json_response(done, 200, {CONTINUATION: done.continuation} if done.continuation else {})

    page.__doc__ = (
        f"POST bulk/{verb}: {verb} one page of the matching instances and return the result for each."
    )
    return page


_PREVIEW = Contract(FILTERS, None, (Answer(200, BulkOutcome, "The matching instances."),))
_PAGE = Contract(
    (*FILTERS, EVERY, TOP, CONTINUED, REASON, RECURSIVE),
    None,
    (Answer(200, BulkPage, "The results for one page.", CONTINUED_BY),),
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
