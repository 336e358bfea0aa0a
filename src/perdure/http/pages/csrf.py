"""Posted forms: protection against cross-site requests, and their fields.

The token is a double-submit cookie: a form repeats the value of the cookie, which a page of another site can neither
read nor set. The cookie is `SameSite=Strict`, and the guard has checked the origin before. The token is the third
protection. It also works in a browser that sends no origin.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException

from perdure.http.mounting import BASE
from perdure.http.request_body import read_body
from perdure.model import payload

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

COOKIE = "perdure_csrf"
FIELD = "csrf"
_BYTES = 24


def token_of(request: Request) -> str:
    """The visitor's token, from the cookie or new."""
    found = request.cookies.get(COOKIE, "")
    return found if _is_token(found) else secrets.token_urlsafe(_BYTES)


def set_token(request: Request, response: Response, token: str) -> None:
    """Set the cookie, unless the visitor has it."""
    if request.cookies.get(COOKIE) != token:
        response.set_cookie(
            COOKIE,
            token,
            path=request.scope.get(BASE) or "/",
            samesite="strict",
            httponly=True,
            secure=request.url.scheme == "https",
        )


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form. Raises HTTPException 403 unless it contains the visitor's token."""
    fields = await parse_form(request)
    cookie = request.cookies.get(COOKIE, "")
    if not _is_token(cookie) or not hmac.compare_digest(cookie.encode(), fields.get(FIELD, "").encode()):
        raise HTTPException(403, "this form is too old, or was not sent from this site. Reload the page")
    return fields


async def parse_form(request: Request) -> dict[str, str]:
    """The fields of a posted form, without a check of the sender."""
    # In a form, a byte of JSON can take three characters.
    data = await read_body(request, 3 * payload.MAX_BYTES + 4_096)
    try:
        return dict(
            parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=1_000)
        )
    except ValueError as error:
        raise HTTPException(400, "the body is not a form (application/x-www-form-urlencoded)") from error


def _is_token(text: str) -> bool:
    return 20 <= len(text) <= 64 and text.isascii()


__all__ = ["parse_form", "read_form", "set_token", "token_of"]
