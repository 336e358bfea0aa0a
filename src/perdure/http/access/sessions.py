"""Sessions: how a browser goes on being let in after somebody has shown a key once.

The cookie names the credential and an expiry, and bears a MAC made with the credential's own digest. So the
server keeps no list, a restart signs nobody out who came with a key, and a key that is revoked takes its
sessions along. The cookie is HttpOnly and SameSite=Lax; what it opens is looking, and the forms of the pages,
which have a token of their own against foreign ones.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final

from perdure.http.mounting import BASE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LASTS: Final = 12 * 3_600  # seconds
_COOKIE: Final = re.compile(r"([0-9]{1,12})\.([0-9A-Za-z-]{1,32})\.([0-9a-f]{64})", re.ASCII)


def cookie_of(subject: str, digest: bytes, now: int) -> str:
    """The cookie's value for the credential `subject`, from `now` (seconds since 1970)."""
    expires_at = now + LASTS
    return f"{expires_at}.{subject}.{_mac(subject, digest, expires_at)}"


def subject_of(request: Request) -> str:
    """The credential that a request's cookie names, "" when it bears none. `holds` tells whether it is true."""
    found = _COOKIE.fullmatch(request.cookies.get(name_of(request), ""))
    return found[2] if found else ""


def holds(request: Request, digest: bytes, now: int) -> bool:
    """Whether the request's cookie was made with this digest and has not expired."""
    found = _COOKIE.fullmatch(request.cookies.get(name_of(request), ""))
    if found is None:
        return False
    expires_at, subject, mac = int(found[1]), found[2], found[3]
    return hmac.compare_digest(mac, _mac(subject, digest, expires_at)) and now < expires_at


def sign_in(request: Request, response: Response, value: str) -> None:
    """Give the browser its session."""
    response.set_cookie(
        name_of(request),
        value,
        max_age=LASTS,
        path=request.scope.get(BASE) or "/",
        samesite="lax",
        httponly=True,
        secure=request.url.scheme == "https",
    )


def sign_out(request: Request, response: Response) -> None:
    """Take the browser's session away."""
    response.delete_cookie(name_of(request), path=request.scope.get(BASE) or "/")


def name_of(request: Request) -> str:
    """Cookies are shared by all ports of a host, so the name has the port in it."""
    return f"perdure_session_{request.url.port or request.url.scheme}"


def _mac(subject: str, digest: bytes, expires_at: int) -> str:
    return hmac.new(digest, f"perdure session\0{subject}\0{expires_at}".encode(), "sha256").hexdigest()


__all__ = ["cookie_of", "holds", "sign_in", "sign_out", "subject_of"]
