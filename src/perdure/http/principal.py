"""Callers: the principal of a request, and the error that rejects one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from perdure.model.access import opens
from perdure.model.human_tasks import Person

if TYPE_CHECKING:
    from starlette.requests import Request

CALLER: Final = "perdure.caller"
"""The key in a request's scope for its caller."""


@dataclass(frozen=True)
class Caller:
    """The caller of a request. `who` is the name for the audit log, `key_id` the id of the caller's key, if any.

    `person` is the person whose identity the caller has proven, if any. `link` is true for the holder of a signed
    link, who can only do the operation of the link.
    """

    who: str
    scopes: frozenset[str] = frozenset()
    key_id: str = ""
    link: bool = False
    session: bool = False
    person: Person | None = None

    def may(self, scope: str, function: str = "") -> bool:
        """Whether this caller has `scope`."""
        return opens(self.scopes, scope, function)


ANYONE = Caller("anyone", frozenset({"admin"}))
"""Every caller of a server without access control (`access=open`)."""
ANONYMOUS = Caller("anonymous")


class Refused(Exception):
    """A rejected request. `code` is stable, `detail` says what to do.

    `is_attempt` marks a request with an invalid credential. Such requests are counted. `who` is the caller, if it is
    known.
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
    """The caller of a request that passed the access check."""
    caller: Caller = request.scope.get(CALLER, ANONYMOUS)
    return caller


def address_of(request: Request) -> str:
    """The address of the caller: the peer's, or the one that a trusted proxy reported."""
    client = request.scope.get("client")
    return str(client[0]) if client else ""


__all__ = ["ANONYMOUS", "ANYONE", "CALLER", "Caller", "Refused", "address_of", "caller_of"]
