"""Responses to rejected requests: programs get a problem document, people the login page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from perdure.http.access import sessions
from perdure.http.access.gate import SignedIn
from perdure.http.pages.rendering import base_of, error_page
from perdure.http.principal import Refused
from perdure.http.problem import ProblemResponse, shown_path
from perdure.http.table import ENDPOINT

if TYPE_CHECKING:
    from starlette.requests import Request

    from perdure.http.access.gate import Access


async def on_refused(request: Request, error: Exception) -> Response:
    """The response to a request that the access check rejected."""
    assert isinstance(error, Refused)
    problem = ProblemResponse(
        error.status, error.detail, code=error.code, headers=_headers(error), instance=shown_path(request)
    )
    if not request.scope[ENDPOINT].is_page:
        return problem
    if error.status == 401 and request.method == "GET":
        query = urlencode([(n, v) for n, v in request.query_params.multi_items() if n != "token"])
        here = request.url.path.removeprefix(base_of(request))
        wanted = urlencode({"next": f"{here}?{query}" if query else here})
        return RedirectResponse(f"{base_of(request)}/login?{wanted}", 303)
    return error_page(request, problem)


async def on_signed_in(request: Request, error: Exception) -> Response:
    """The response to a page opened with a token in its URL: a redirect to the URL without it, and a session."""
    assert isinstance(error, SignedIn)
    access: Access = request.app.state.access
    left = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
    query = f"?{urlencode(left)}" if left else ""
    response = RedirectResponse(request.url.path + query, 303)
    subject = error.caller.key_id or error.caller.who
    now = access.keys.now() // 1_000_000
    sessions.sign_in(request, response, sessions.cookie_of(subject, access.keys.digest(error.caller), now))
    return response


def _headers(error: Refused) -> dict[str, str]:
    headers = {"WWW-Authenticate": 'Bearer realm="perdure"'} if error.status == 401 else {}
    return {**headers, "Retry-After": str(error.retry_after)} if error.retry_after else headers


__all__ = ["on_refused", "on_signed_in"]
