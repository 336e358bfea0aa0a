"""Callers: whom a request comes from, and why one is turned away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perdure.model.access import opens

if TYPE_CHECKING:
    from starlette.requests import Request

CALLER: Final = "perdure.caller"
"""The key in a request's scope under which its caller is found."""


@dataclass(frozen=True)
class Caller:
    """Who asks. `who` is what the audit log says; `key_id` names the key that was shown, if it was one.

    `link` is true for somebody who shows a signed link, and may do what that says and nothing else.
    """

    who: str
    scopes: frozenset[str] = frozenset()
    key_id: str = ""
    link: bool = False
    session: bool = False

    def may(self, scope: str, function: str = "") -> bool:
        """Whether this caller may do what needs `scope`."""
        return opens(self.scopes, scope, function)


ANYONE = Caller("anyone", frozenset({"admin"}))
"""Everybody, where nobody is asked: the application is open on purpose."""
ANONYMOUS = Caller("anonymous")


class Refused(Exception):
    """A request that is turned away. `code` is stable, `detail` says what to do about it.

    `is_attempt` marks one that showed something which opens nothing: those are counted. `who` is the caller, where
    that is known all the same.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after: int = 0,
        is_attempt: bool = False,
        who: str = "unknown",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after
        self.is_attempt = is_attempt
        self.who = who


def caller_of(request: Request) -> Caller:
    """The caller of a request that has passed the gate."""
    caller: Caller = request.scope.get(CALLER, ANONYMOUS)
    return caller


def address_of(request: Request) -> str:
    """Where a request comes from: the peer's address, or what a trusted proxy in front has put there."""
    client = request.scope.get("client")
    return str(client[0]) if client else ""


__all__ = ["ANONYMOUS", "ANYONE", "CALLER", "Caller", "Refused", "address_of", "caller_of"]
