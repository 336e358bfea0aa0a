"""How pages look to a visitor: language, time zone and theme. Cookies keep the choice; the server keeps nothing.

A script tells the visitor's time zone in a cookie. Without it, and after a switch to UTC, times are in UTC and say
so.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

from starlette.responses import RedirectResponse

from perdure.http.languages import AVAILABLE, Speech, best_of
from perdure.http.mounting import BASE, prefix_of
from perdure.http.pages.csrf import read_form
from perdure.http.table import Endpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request
    from starlette.responses import Response

LANGUAGE, ZONE, TIMES, THEME = "perdure_language", "perdure_zone", "perdure_times", "perdure_theme"
VIEWS: Final = "perdure_views"
LIST_VIEWS: Final = "perdure_list_views"
"""The cookies. The script of the pages sets `ZONE`."""
THEMES: Final = ("light", "dark")
MOST_VIEWS: Final = 8  # saved views of one page
YEAR: Final = 365 * 24 * 3_600


def speech_of(request: Request) -> Speech:
    """The language and the time zone for a visitor."""
    cookies = request.cookies
    language = cookies.get(LANGUAGE, "")
    if language not in AVAILABLE:
        language = best_of(request.headers.get("accept-language", ""))
    name = cookies.get(ZONE, "") if cookies.get(TIMES) != "utc" else ""
    try:
        zone = ZoneInfo(name) if name and len(name) < 80 else None
    except (LookupError, ValueError, OSError):  # no zone of this machine
        zone = None
    return Speech(language, zone or UTC, name if zone is not None else "UTC")


def theme_of(request: Request) -> str:
    """The theme that the visitor has chosen; "" for that of the system."""
    theme = request.cookies.get(THEME, "")
    return theme if theme in THEMES else ""


async def choose_look(request: Request) -> Response:
    """POST /look: keep the visitor's language, times and theme in cookies."""
    form = await read_form(request)
    back = form.get("back", "")
    is_inside = back.startswith("/") and back[1:2] not in ("/", "\\") and back.isprintable()
    response = RedirectResponse(back if is_inside else f"{prefix_of(request.scope)}/", 303)
    chosen = {LANGUAGE: form.get("language", ""), TIMES: form.get("times", ""), THEME: form.get("theme", "")}
    known = {LANGUAGE: AVAILABLE, TIMES: ("utc",), THEME: THEMES}
    path = request.scope.get(BASE) or "/"
    for name, value in chosen.items():
        if value in known[name]:
            response.set_cookie(
                name, value, max_age=YEAR, path=path, samesite="lax", secure=request.url.scheme == "https"
            )
        else:
            response.delete_cookie(name, path=path)
    return response


def saved_views(request: Request, cookie: str = VIEWS) -> list[tuple[str, str]]:
    """The views of the inbox, or of another page, that the visitor has saved: a name, and the query of the filter."""
    pairs = parse_qsl(request.cookies.get(cookie, "")[:4_000], max_num_fields=50)
    return [(name, f"?{query}") for name, query in pairs if name and query]


def keep_view(
    request: Request, response: Response, form: Mapping[str, str], query: str, cookie: str = VIEWS
) -> None:
    """Keep a page's filter in the visitor's browser under the form's `name`, or drop the view to forget."""
    forgotten, name = form.get("forget", ""), " ".join(form.get("name", "").split())[:40]
    kept = [(known, its) for known, its in saved_views(request, cookie) if known not in (forgotten, name)]
    if name and query:
        kept.append((name, query))
    value = urlencode([(known, its.removeprefix("?")) for known, its in kept[-MOST_VIEWS:]])
    path, secure = request.scope.get(BASE) or "/", request.url.scheme == "https"
    response.set_cookie(cookie, value, max_age=YEAR, path=path, samesite="lax", secure=secure, httponly=True)


ENDPOINTS = (Endpoint("/look", ("POST",), choose_look, "open", is_page=True),)

__all__ = [
    "ENDPOINTS",
    "LANGUAGE",
    "LIST_VIEWS",
    "TIMES",
    "ZONE",
    "keep_view",
    "saved_views",
    "speech_of",
    "theme_of",
]
