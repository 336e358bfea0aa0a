"""Sessions: how a browser goes on being let in after somebody has shown a key once.

The cookie names the credential, an expiry and some chance, and bears a MAC made with the credential's own digest. So
the server keeps no list, a restart signs nobody out who came with a key, and a key that is revoked takes its sessions
along. Signing out is kept in the hub until the session would have expired: a copy of the cookie opens nothing then,
on no server and after no restart. The cookie is HttpOnly and SameSite=Lax; what it opens is looking, and the forms of
the pages, which have a token of their own against foreign ones.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from perdure.http.mounting import BASE
from perdure.model.records import SeenRow

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

LASTS: Final = 12 * 3_600  # seconds
FRESH: Final = 1.0  # seconds for which a session that was found to last is not looked up again
KEPT_AT_MOST: Final = 10_000
_COOKIE: Final = re.compile(r"([0-9]{1,12})\.([0-9A-Za-z-]{1,32})\.([0-9a-f]{32})?([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Session:
    """What a cookie says. Whether it is true, `holds` tells; those of earlier versions bear no chance."""

    expires_at: int  # seconds since 1970
    subject: str
    chance: str
    mac: str

    @property
    def id(self) -> str:
        """What is kept of the session when it is signed out."""
        return "session:" + sha256(self.mac.encode()).hexdigest()[:40]

    def holds(self, digest: bytes, now: int) -> bool:
        """Whether it was made with this digest and has not expired."""
        expected = _mac(self.subject, digest, self.expires_at, self.chance)
        return hmac.compare_digest(self.mac, expected) and now < self.expires_at


class Ended:
    """Which sessions were signed out, as of a moment ago.

    Parameters:
        answered: reads what is kept under an id.
        monotonic: seconds.
    """

    def __init__(self, answered: Callable[[str], SeenRow | None], monotonic: Callable[[], float]) -> None:
        self._answered, self._monotonic = answered, monotonic
        self._known: OrderedDict[str, tuple[bool, float]] = OrderedDict()  # id -> ended, when that was read

    def is_known(self, session: Session) -> bool:
        """Whether nothing has to be read to tell."""
        found = self._known.get(session.id)
        return found is not None and (found[0] or self._monotonic() - found[1] < FRESH)

    def is_ended(self, session: Session) -> bool:
        """Whether the session was signed out."""
        if not self.is_known(session):
            self.note(session, ended=self._answered(session.id) is not None)
        return self._known[session.id][0]

    def note(self, session: Session, *, ended: bool) -> None:
        """Remember what was found, or done."""
        self._known[session.id] = (ended, self._monotonic())
        self._known.move_to_end(session.id)
        if len(self._known) > KEPT_AT_MOST:
            self._known.popitem(last=False)


def cookie_of(subject: str, digest: bytes, now: int) -> str:
    """The cookie's value for the credential `subject`, from `now` (seconds since 1970)."""
    expires_at, chance = now + LASTS, secrets.token_hex(16)
    return f"{expires_at}.{subject}.{chance}{_mac(subject, digest, expires_at, chance)}"


def session_of(request: Request) -> Session | None:
    """What the request's cookie says, None when it bears none."""
    found = _COOKIE.fullmatch(request.cookies.get(name_of(request), ""))
    return None if found is None else Session(int(found[1]), found[2], found[3] or "", found[4])


def signed_out(session: Session, kept_until: int) -> SeenRow:
    """What is kept of a session that was signed out; `kept_until` is in microseconds."""
    return SeenRow(session.id, "", b"null", kept_until)


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


def _mac(subject: str, digest: bytes, expires_at: int, chance: str) -> str:
    text = f"perdure session\0{subject}\0{expires_at}" + (f"\0{chance}" if chance else "")
    return hmac.new(digest, text.encode(), "sha256").hexdigest()


__all__ = ["Ended", "Session", "cookie_of", "session_of", "sign_in", "sign_out", "signed_out"]
