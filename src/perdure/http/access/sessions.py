"""Sessions: a browser stays signed in after a person has entered a key once.

The cookie contains the credential's name, an expiry and a random part, with a MAC made from the credential's digest.
So the server keeps no list of sessions, a restart does not end the sessions of keys, and revoking a key ends its
sessions. Signing out is recorded in the hub until the session's expiry, so that a copy of the cookie is rejected on
every server and after a restart. The cookie is HttpOnly and SameSite=Lax. It authorizes reading and the forms of the
pages, which have a token of their own against cross-site requests.
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
FRESH: Final = 1.0  # seconds for which a valid session is not looked up again
KEPT_AT_MOST: Final = 10_000
_COOKIE: Final = re.compile(r"([0-9]{1,12})\.([0-9A-Za-z-]{1,32})\.([0-9a-f]{32})?([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class Session:
    """The content of a cookie. `holds` verifies it. Cookies of earlier versions have no random part."""

    expires_at: int  # seconds since 1970
    subject: str
    chance: str
    mac: str

    @property
    def id(self) -> str:
        """The id under which a sign-out is recorded."""
        return "session:" + sha256(self.mac.encode()).hexdigest()[:40]

    def holds(self, digest: bytes, now: int) -> bool:
        """Whether the session was made with this digest and has not expired."""
        expected = _mac(self.subject, digest, self.expires_at, self.chance)
        return hmac.compare_digest(self.mac, expected) and now < self.expires_at


class Ended:
    """The sessions that were signed out, at most `FRESH` seconds old.

    Parameters:
        answered: reads the record with an id.
        monotonic: a clock, in seconds.
    """

    def __init__(self, answered: Callable[[str], SeenRow | None], monotonic: Callable[[], float]) -> None:
        self._answered, self._monotonic = answered, monotonic
        self._known: OrderedDict[str, tuple[bool, float]] = OrderedDict()  # id -> ended, when that was read

    def is_known(self, session: Session) -> bool:
        """Whether the state of the session is known without reading the store."""
        found = self._known.get(session.id)
        return found is not None and (found[0] or self._monotonic() - found[1] < FRESH)

    def is_ended(self, session: Session) -> bool:
        """Whether the session was signed out."""
        if not self.is_known(session):
            self.note(session, ended=self._answered(session.id) is not None)
        return self._known[session.id][0]

    def note(self, session: Session, *, ended: bool) -> None:
        """Remember the state of a session. One that has ended stays ended, whatever an overtaken read saw."""
        was_ended, _ = self._known.get(session.id, (False, 0.0))
        self._known[session.id] = (was_ended or ended, self._monotonic())
        self._known.move_to_end(session.id)
        if len(self._known) > KEPT_AT_MOST:
            self._known.popitem(last=False)


def cookie_of(subject: str, digest: bytes, now: int) -> str:
    """The cookie's value for the credential `subject`, from `now` (seconds since 1970)."""
    expires_at, chance = now + LASTS, secrets.token_hex(16)
    return f"{expires_at}.{subject}.{chance}{_mac(subject, digest, expires_at, chance)}"


def session_of(request: Request) -> Session | None:
    """The session in the request's cookie, or None."""
    found = _COOKIE.fullmatch(request.cookies.get(name_of(request), ""))
    return None if found is None else Session(int(found[1]), found[2], found[3] or "", found[4])


def signed_out(session: Session, kept_until: int) -> SeenRow:
    """The record of a sign-out. `kept_until` is in microseconds since 1970."""
    return SeenRow(session.id, "", b"null", kept_until)


def sign_in(request: Request, response: Response, value: str) -> None:
    """Set the session's cookie."""
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
    """Delete the session's cookie."""
    response.delete_cookie(name_of(request), path=request.scope.get(BASE) or "/")


def name_of(request: Request) -> str:
    """The name of the cookie. It contains the port, because all ports of a host share their cookies."""
    return f"perdure_session_{request.url.port or request.url.scheme}"


def _mac(subject: str, digest: bytes, expires_at: int, chance: str) -> str:
    text = f"perdure session\0{subject}\0{expires_at}" + (f"\0{chance}" if chance else "")
    return hmac.new(digest, text.encode(), "sha256").hexdigest()


__all__ = ["Ended", "Session", "cookie_of", "session_of", "sign_in", "sign_out", "signed_out"]
