"""Keys and their scopes.

A key is a line of text, `pdk_<id>_<secret><checksum>`. The prefix and the checksum let scanners find a key that
leaked into a repository or a log, without false matches. The id names the key in lists and in the audit log;
the secret is 256 random bits. So SHA-256 is enough to store it: a slow hash protects guessable secrets, and 256
random bits cannot be guessed.

A scope is a permission of a key. `admin` allows everything, `operate` includes `read`, and `read` includes `metrics`;
`function` allows every client function, `function:NAME` one of them. A key with `decide` belongs to
a person: its name is the person's, and `role:NAME` is a role of theirs. Each route of the endpoint table names its
scope, so a route without one is impossible.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from zlib import crc32

import msgspec

from perdure.model.names import is_name, not_a_name

PREFIX: Final = "pdk_"
ID_LENGTH: Final = 8
SECRET_LENGTH: Final = 43  # base62 digits that hold 256 bits
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY: Final = re.compile(r"pdk_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)
_FUNCTION: Final = "function:"
_ROLE: Final = "role:"

INCLUDES: Final = {
    "metrics": frozenset({"metrics"}),
    "read": frozenset({"read", "metrics"}),
    "decide": frozenset({"decide"}),
    "operate": frozenset({"read", "operate", "metrics", "decide"}),
    "admin": frozenset({"read", "operate", "admin", "function", "metrics", "decide"}),
    "function": frozenset({"function"}),
}
"""The scopes that each scope includes."""


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key without its secret, for administrators.

    `kind` is "access" for a key that callers send, "link" for one that signs links. `last_used_time` is exact
    to a few minutes.
    """

    key_id: str
    kind: str
    name: str
    scopes: tuple[str, ...]
    created_time: datetime
    created_by: str
    expires_time: datetime | None = None
    revoked_time: datetime | None = None
    last_used_time: datetime | None = None

    def state(self, now: datetime) -> str:
        """active, expired or revoked."""
        if self.revoked_time is not None:
            return "revoked"
        return "expired" if self.expires_time is not None and self.expires_time <= now else "active"


class NewKey(msgspec.Struct, frozen=True):
    """A new key. `secret` is its text, which is shown once and not stored."""

    key: AccessKey
    secret: str


class Identity(msgspec.Struct, frozen=True):
    """A person whom your own sign-in knows, for `App(identify=...)`.

    Parameters:
        name: how records name the person, such as an e-mail address: 1 to 200 printable characters.
        roles: the person's roles, as tasks name them.
        scopes: what else the person may do, as the scopes of a key. By default, see and decide tasks only.
    """

    name: str
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ("decide",)


Identify = Callable[[Any], "Identity | Awaitable[Identity | None] | None"]
"""A sign-in: takes a request (starlette.requests.Request) and returns the signed-in person, or None."""


def checked_identity(found: object) -> Identity | None:
    """What a sign-in found, if it is an identity or None. Raises ValueError for anything else."""
    if found is None:
        return None
    if not isinstance(found, Identity):
        raise ValueError(f"it returned {type(found).__name__}, not Identity or None")
    for part in (found.name, *found.roles):
        if not is_name(part):
            raise ValueError(not_a_name(part, "the name of a person, and each of their roles,"))
    return Identity(found.name, tuple(found.roles), checked_scopes(found.scopes))


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One management call: who, what, when, from where, and its outcome ("ok", or the error code).

    `times` counts equal reads within a minute.
    """

    time: datetime
    who: str
    address: str
    operation: str
    instance_id: str = ""
    detail: str = ""
    outcome: str = "ok"
    times: int = 1


class AuditPage(msgspec.Struct, frozen=True):
    """One page of the audit log; `continuation` is the token of the next page, None on the last."""

    records: list[AuditRecord]
    continuation: str | None = None


def checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes in a fixed order. Raises ValueError for an invalid scope, or for an empty list."""
    wanted = sorted(set([scopes] if isinstance(scopes, str) else scopes))
    for scope in wanted:
        if scope not in INCLUDES and not re.fullmatch(r"(function|role):[^\s:]{1,200}", scope):
            known = ", ".join(INCLUDES)
            raise ValueError(
                f"{scope[:60]!r} is not a scope: use {known}, function:NAME for one client function, or role:NAME "
                "for a role of the person whose key it is"
            )
    if not wanted:
        raise ValueError("a key needs at least one scope: metrics, read, decide, operate, admin or function")
    if "decide" not in wanted and any(scope.startswith(_ROLE) for scope in wanted):
        raise ValueError(
            "a role belongs to the key of a person: add the scope decide, and name the key after the person"
        )
    return tuple(wanted)


def opens(scopes: Iterable[str], wanted: str, function: str = "") -> bool:
    """Whether these scopes include `wanted`, for the client function `function`."""
    for scope in scopes:
        if wanted in INCLUDES.get(scope, ()):
            return True
        if wanted == "function" and function and scope == _FUNCTION + function:
            return True
    return False


def roles_in(scopes: Iterable[str]) -> tuple[str, ...]:
    """The roles of the person whose key has these scopes."""
    return tuple(sorted(scope.removeprefix(_ROLE) for scope in scopes if scope.startswith(_ROLE)))


def key_of(key_id: str, secret: int) -> str:
    """The text of a key."""
    text = f"{PREFIX}{key_id}_{_base62(secret, SECRET_LENGTH)}"
    return text + _checksum(text)


def id_of(text: str) -> str | None:
    """The id in a key's text; None for a text that is not a complete key."""
    found = _KEY.fullmatch(text)
    return found[1] if found and _checksum(text[:-6]) == found[3] else None


def key_id_of(random_bits: int) -> str:
    """The id of a key, from 64 random bits."""
    return _base62(random_bits, ID_LENGTH)


def digest_of(text: str) -> bytes:
    """The digest of a key, which is stored and compared."""
    return sha256(text.encode("utf-8", "replace")).digest()


def _checksum(text: str) -> str:
    return _base62(crc32(text.encode()), 6)


def _base62(value: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        value, digit = divmod(value, 62)
        digits = _DIGITS[digit] + digits
    return digits


__all__ = [
    "AccessKey",
    "AuditPage",
    "AuditRecord",
    "NewKey",
    "checked_scopes",
    "digest_of",
    "id_of",
    "key_id_of",
    "key_of",
    "opens",
    "roles_in",
]
