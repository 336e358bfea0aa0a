"""Bulk operations over HTTP: GET bulk/{verb} tells who matches, POST bulk/{verb} does one page.

A page is one request of bounded length; the header x-ms-continuation-token leads to the next, as it does in
lists. So nothing runs on when the caller has gone, and the caller sees the operation move. The filters are
those of a list. Without any, a POST needs `all=true`, as a safeguard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.engine.bulk import PAGE, VERBS, BulkRequest
from perdure.errors import PayloadError
from perdure.http.endpoint import Endpoint, Scope, client_of
from perdure.http.links import json_response
from perdure.http.management import same_hub
from perdure.http.parameters import CONTINUATION, flag, read, reason, which

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.http.endpoint import Handler

LARGEST_PAGE = 500


def _preview(verb: str) -> Handler:
    async def preview(request: Request) -> Response:
        return json_response(await client_of(request).bulk(verb, dry_run=True, **which(request.query_params)))

    preview.__doc__ = f"GET bulk/{verb}: how many instances match, and the newest of them. Changes nothing."
    return preview


def _page(verb: str) -> Handler:
    async def page(request: Request) -> Response:
        query = request.query_params
        selection = which(query)
        if not any(selection.values()) and not flag(query, "all", False):
            raise PayloadError(f"to {verb} every instance say all=true; otherwise give a filter")
        asked = BulkRequest(verb=verb, reason=reason(request), recursive=flag(query, "recursive", False))
        continuation = request.headers.get(CONTINUATION) or None
        done = await client_of(request).bulk_page(asked, selection, continuation, _top(query))
        return json_response(done, 200, {CONTINUATION: done.continuation} if done.continuation else {})

    page.__doc__ = (
        f"POST bulk/{verb}: {verb} one page of the instances that match, and tell what became of each."
    )
    return page


def _top(query: Any) -> int:
    top = read(query, "top", int) or PAGE
    if not 1 <= top <= LARGEST_PAGE:
        raise PayloadError(f"top is 1 to {LARGEST_PAGE} for a bulk operation, not {top}")
    return top


def _endpoints(verb: str) -> tuple[Endpoint, Endpoint]:
    scope: Scope = "admin" if verb == "purge" else "operate"
    return (
        Endpoint(
            f"/bulk/{verb}", ("GET",), same_hub(_preview(verb)), "read", folded=True, name=f"preview_{verb}"
        ),
        Endpoint(f"/bulk/{verb}", ("POST",), same_hub(_page(verb)), scope, folded=True, name=f"{verb}_many"),
    )


ENDPOINTS = tuple(endpoint for verb in VERBS for endpoint in _endpoints(verb))
"""Below /runtime/webhooks/durabletask."""

__all__ = ["ENDPOINTS"]
