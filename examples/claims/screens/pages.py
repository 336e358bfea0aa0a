"""Templates, headers, and who may see the staff's pages.

Every page runs under a strict Content-Security-Policy: no inline script, no inline style, nothing from elsewhere.
"""

import hmac
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.claims.screens.room import room_of

HERE = Path(__file__).parent
STAFF_COOKIE = "office"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",  # the path of a claimant's page is a secret
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}

Handler = Callable[[Request], Awaitable[Response]]


def render(request: Request, template: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template."""
    room = room_of(request)
    page = TEMPLATES.get_template(template).render(path=request.url.path, addresses=room.addresses, **values)
    return HTMLResponse(page, status_code)


def for_staff(handler: Handler) -> Handler:
    """A page for staff alone: the key comes once in the address, then in a cookie."""

    @wraps(handler)
    async def guarded(request: Request) -> Response:
        key = room_of(request).staff_key
        if request.method != "GET" and _is_from_elsewhere(request):
            return render(request, "closed.html", 403)
        if _same(request.cookies.get(STAFF_COOKIE, ""), key):
            return await handler(request)
        if request.method == "GET" and _same(request.query_params.get("key", ""), key):
            answer = RedirectResponse(request.url.path, 303)
            answer.set_cookie(STAFF_COOKIE, key, httponly=True, samesite="strict")
            return answer
        return render(request, "closed.html", 403)

    return guarded


class SecurityHeaders:
    """Adds the headers to every response, also to those of static files."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)


def _is_from_elsewhere(request: Request) -> bool:
    """Whether a form of another site was sent here: a cookie does not tell apart two ports of one machine."""
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def _same(given: str, key: str) -> bool:
    return bool(key) and hmac.compare_digest(given.encode(), key.encode())


def _dollars(amount: int) -> str:
    return f"${amount:,}"


def _day(day: date | datetime) -> str:
    return f"{day:%A} {day.day} {day:%B %Y}"


def _clock(moment: datetime) -> str:
    return f"{moment:%H:%M}"


TEMPLATES = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
TEMPLATES.filters |= {"dollars": _dollars, "day": _day, "clock": _clock}
