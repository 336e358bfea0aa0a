"""Pages for administrators: the keys and the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.responses import RedirectResponse

from perdure.errors import PayloadError, PerdureError, outward
from perdure.http.api.access import access_of
from perdure.http.pages.csrf import read_form
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.problem import status_of
from perdure.http.routing import client_of
from perdure.http.running_engine import engine_of
from perdure.http.table import Endpoint
from perdure.model.access import INCLUDES

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from perdure.model.access import AccessKey, NewKey

PAGE = 100
DONE = {"revoked": "The key is revoked."}
_EXPIRIES = (("", "never"), ("86400", "in a day"), ("2592000", "in 30 days"), ("31536000", "in a year"))
_MEANS = {
    "metrics": "read the metrics for Prometheus",
    "read": "view instances",
    "decide": "answer tasks as the person whom the key is named after",
    "operate": "start and manage instances, raise events",
    "admin": "everything, including keys and purging",
    "function": "call the client functions below /api",
}


async def keys_page(request: Request) -> Response:
    """GET /keys."""
    return await _keys(request)


async def _keys(
    request: Request, *, made: NewKey | None = None, problem: str = "", status: int = 200
) -> Response:
    client = client_of(request)
    keys = await client.keys()
    functions = sorted(route.name for route in _routes(request) if route.auth == "function")
    return draw(
        request,
        "keys.html",
        status=status,
        done=DONE.get(request.query_params.get("done", ""), ""),
        keys=_newest_first(keys),
        link_keys=_newest_first(await client.link_keys()),
        made=made,
        problem=problem,
        scopes=[(scope, _MEANS[scope]) for scope in INCLUDES],
        functions=functions,
        expiries=_EXPIRIES,
    )


def _newest_first(keys: list[AccessKey]) -> list[AccessKey]:
    return sorted(keys, key=lambda key: (key.revoked_time is not None, -key.created_time.timestamp()))


async def create_key(request: Request) -> Response:
    """POST /keys: create a key. Its secret is shown only in this response."""
    form = await read_form(request)
    scopes = [name.removeprefix("scope.") for name in form if name.startswith("scope.")]
    scopes += [f"role:{role}" for word in form.get("roles", "").split(",") if (role := word.strip())]
    expires = form.get("expires", "")
    try:
        if expires and not (expires.isascii() and expires.isdecimal() and len(expires) < 10):
            raise PayloadError("the lifetime of a key must be a number of seconds")
        made = await client_of(request).create_key(
            form.get("name", "").strip(), scopes, expires_in=float(expires) if expires else None
        )
    except PerdureError as error:
        return await _keys(request, problem=outward(error), status=status_of(error))
    access_of(request).keys.refresh()
    return await _keys(request, made=made, status=201)


async def revoke_key(request: Request) -> Response:
    """POST /keys/{key_id}/revoke."""
    await read_form(request)
    await client_of(request).revoke_key(request.path_params["key_id"])
    access_of(request).keys.refresh()
    return RedirectResponse(f"{base_of(request)}/keys?done=revoked", 303)


async def audit_page(request: Request) -> Response:
    """GET /audit."""
    query = request.query_params
    asked = {name: query.get(name, "").strip() for name in ("who", "operation", "instance")}
    await access_of(request).recorder.flush()
    problem, page = "", None
    try:
        page = await client_of(request).audit(
            who=asked["who"] or None,
            operation=asked["operation"] or None,
            instance_id=asked["instance"] or None,
            top=PAGE,
            continuation=query.get("continuation") or None,
        )
    except PayloadError as error:
        problem = str(error)
    records = page.records if page else []
    following = {**asked, "continuation": page.continuation} if page and page.continuation else {}
    return draw(
        request,
        "audit.html",
        status=400 if problem else 200,
        asked=asked,
        records=records,
        problem=problem,
        next=urlencode({name: value for name, value in following.items() if value}),
    )


def _routes(request: Request) -> list[Any]:
    return list(engine_of(client_of(request)).registry.routes)


ENDPOINTS = (
    Endpoint("/keys", ("GET",), as_page(keys_page), "admin", is_page=True, name="list_keys"),
    Endpoint("/keys", ("POST",), as_page(create_key), "admin", is_page=True),
    Endpoint("/keys/{key_id}/revoke", ("POST",), as_page(revoke_key), "admin", is_page=True),
    Endpoint("/audit", ("GET",), as_page(audit_page), "admin", is_page=True, name="audit"),
)

__all__ = ["ENDPOINTS"]
