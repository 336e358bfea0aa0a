"""Signing in and out in a browser: a form takes a key and starts a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from perdure.http.access import sessions
from perdure.http.api.access import access_of
from perdure.http.pages.csrf import read_form
from perdure.http.pages.rendering import as_page, base_of, draw
from perdure.http.principal import Refused
from perdure.http.table import Endpoint

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def login_page(request: Request) -> Response:
    """GET /login."""
    return _drawn(request, request.query_params.get("next", ""))


async def login(request: Request) -> Response:
    """POST /login: start a session for a valid key."""
    form = await read_form(request)
    wanted = form.get("next", "")
    access = access_of(request)
    try:
        caller = access.sign_in(request, form.get("key", "").strip())
    except Refused as refused:
        return _drawn(request, wanted, problem=refused.detail, status=refused.status)
    inside = _inside(wanted)
    if inside == "/" and not caller.may("read") and caller.may("decide"):
        inside = "/inbox"  # the page of a person who decides
    response = RedirectResponse(base_of(request) + inside, 303)
    now = access.keys.now() // 1_000_000
    subject = caller.key_id or caller.who
    sessions.sign_in(request, response, sessions.cookie_of(subject, access.keys.digest(caller), now))
    return response


async def logout(request: Request) -> Response:
    """POST /logout: end the session on the server too, so that a copy of its cookie is rejected."""
    await read_form(request)
    await access_of(request).sign_out(request)
    response = RedirectResponse(f"{base_of(request)}/login", 303)
    sessions.sign_out(request, response)
    return response


def _drawn(request: Request, wanted: str, *, problem: str = "", status: int = 200) -> Response:
    return draw(request, "login.html", status=status, wanted=_inside(wanted), problem=problem)


def _inside(wanted: str) -> str:
    """The path if it is on this site, else /. Browsers take `//` and `/\\` for the beginning of another host."""
    is_ours = wanted.startswith("/") and wanted[1:2] not in ("/", "\\") and wanted.isprintable()
    return wanted if is_ours else "/"


ENDPOINTS = (
    Endpoint("/login", ("GET",), as_page(login_page), "open", is_page=True),
    Endpoint("/login", ("POST",), as_page(login), "open", is_page=True),
    Endpoint("/logout", ("POST",), as_page(logout), "open", is_page=True),
)

__all__ = ["ENDPOINTS"]
