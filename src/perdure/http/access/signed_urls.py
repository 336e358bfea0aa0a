"""Signed links: URLs that authorize their holder to do one operation on one instance.

A link's `sig` is a short record and a MAC. The record has a version, the id of the signing key, the expiry, a
fingerprint of the instance, and a nonce if the link works only once. The MAC is HMAC-SHA-256 over the record and the
content of the URL: method, operation, hub, instance id, event. So no part of the URL can be changed, a link for one
operation does not authorize another, and the server stores nothing for a link.
The fingerprint is derived from the random salt of an instance. If an id is purged and used again, links to the first
instance do not work for the second.
The MAC is cut to 144 bits, which keeps URLs short and cannot be forged. All lengths are multiples of three, so that
every bit of the text counts and each record has only one spelling.
A link for the holder of an access key contains the id of that key and becomes invalid with it.
A link that was made for a person contains the person's name and roles, and its holder decides in that name.
Signing keys are found by their id. Links with an older key work until they expire or the key is revoked.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from perdure.model.human_tasks import Person

_VERSION: Final = 1
_ONCE, _OWNED, _PERSONAL = 0x80, 0x40, 0x20  # flags in the first byte, next to the version
_KID, _EXPIRY, _FINGERPRINT, _NONCE, _OWNER, _MAC = 8, 5, 4, 9, 9, 18
_PERSON: Final = 3  # bytes of the length of a person's name and roles
_BLOCK: Final = 64  # bytes that SHA-256 takes at a time
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_SHORTEST: Final = 1 + _KID + _EXPIRY + _FINGERPRINT + _MAC
_DOMAIN: Final = b"perdure link"

OPERATIONS: Final = {
    "status": "GET",
    "inspect": "GET",
    "raise": "POST",
    "terminate": "POST",
    "suspend": "POST",
    "resume": "POST",
    "restart": "POST",
    "rewind": "POST",
    "purge": "DELETE",
    "decide": "POST",
}
"""The operations of links, with their method. The page of a `decide` link is read with GET.

`status` shows the status of an instance, `inspect` also its input and history.
"""


def _framed(*parts: str | bytes) -> bytes:
    """Every part, preceded by its length, so that no two targets have the same bytes."""
    encoded = [p if isinstance(p, bytes) else p.encode("utf-8", "surrogatepass") for p in parts]
    return b"".join([len(part).to_bytes(4, "big") + part for part in encoded])


_MEANT: Final = {operation: _framed(method, operation) for operation, method in OPERATIONS.items()}


class BadLink(Exception):
    """An invalid link. The message says why."""


@dataclass(frozen=True)
class Target:
    """The target of a link. `event` is "" for every event of the instance."""

    operation: str
    hub: str
    instance_id: str
    event: str = ""


@dataclass(frozen=True)
class SignedLink:
    """A link with a valid signature.

    `nonce` is "" if the link works more than once. `owner` is the id of the access key whose holder got the link.
    `person` is the person for whom it was made, if any.
    """

    kid: str
    expires_at: int  # seconds since 1970
    fingerprint: bytes
    nonce: str
    operation: str = ""
    owner: str = ""
    person: Person | None = None


def fingerprint_of(salt: bytes) -> bytes:
    """The fingerprint of an instance, for a link."""
    return sha256(b"perdure instance" + salt).digest()[:_FINGERPRINT]


def sign_all(
    operations: Sequence[str],
    hub: str,
    instance_id: str,
    event: str = "",
    *,
    kid: str,
    secret: bytes,
    expires_at: int,
    fingerprint: bytes,
    nonce: bytes = b"",
    owner: str = "",
    person: Person | None = None,
) -> dict[str, str]:
    """The `sig` of a link for each of these operations. The common part of their MACs is made once.

    Parameters:
        operations, hub, instance_id, event: the targets of the links.
        kid, secret: the signing key. Its id has 8 characters.
        expires_at: the expiry, in seconds since 1970.
        fingerprint: the fingerprint of the instance, see `fingerprint_of`.
        nonce: 9 random bytes for links that work once.
        owner: the id of the access key whose holder gets the links. It has 8 characters.
        person: the person for whom the links are made.
    """
    first = _VERSION | (_ONCE if nonce else 0) | (_OWNED if owner else 0) | (_PERSONAL if person else 0)
    owned = owner.encode("ascii").ljust(_OWNER, b"\0") if owner else b""
    record = b"".join(
        (
            bytes([first]),
            kid.encode("ascii"),
            expires_at.to_bytes(_EXPIRY, "big"),
            fingerprint,
            nonce,
            owned,
            _bytes_of(person) if person else b"",
        )
    )
    assert _is_whole(record)
    opening, place = _framed(_DOMAIN, record), _framed(hub, instance_id, event)
    macs = _macs(secret, opening, [_MEANT[one] + place for one in operations])
    # Every part has a multiple of three bytes, so all are encoded together and then split.
    start, ends, width = _text_of(record), _text_of(b"".join(macs)), _MAC // 3 * 4
    return {one: start + ends[no * width : (no + 1) * width] for no, one in enumerate(operations)}


def verify(sig: str, target: Target, secrets: Mapping[str, bytes], now: int) -> SignedLink:
    """Verify a `sig` for this target and return its link. Raises BadLink.

    Parameters:
        sig: the `sig` in the request.
        target: the target of the request.
        secrets: the valid signing keys, by id.
        now: the time, in seconds since 1970.
    """
    record, mac = _parts(sig)
    kid = record[1 : 1 + _KID].decode("ascii", "replace")
    secret = secrets.get(kid)
    place = _framed(target.hub, target.instance_id, target.event)
    expected = _mac(secret or bytes(32), _framed(_DOMAIN, record) + _MEANT[target.operation] + place)
    if not hmac.compare_digest(mac, expected) or secret is None:
        raise BadLink(
            "this link is not valid: it was changed, belongs to another request, or its key was revoked"
        )
    rest = record[1 + _KID :]
    expires_at = int.from_bytes(rest[:_EXPIRY], "big")
    if now >= expires_at:
        raise BadLink("this link has expired")
    fingerprint, rest = rest[_EXPIRY : _EXPIRY + _FINGERPRINT], rest[_EXPIRY + _FINGERPRINT :]
    nonce, rest = (rest[:_NONCE], rest[_NONCE:]) if record[0] & _ONCE else (b"", rest)
    owned, rest = (rest[:_OWNER], rest[_OWNER:]) if record[0] & _OWNED else (b"", rest)
    owner = owned.rstrip(b"\0").decode("ascii", "replace")
    person = _person_in(rest) if record[0] & _PERSONAL else None
    return SignedLink(kid, expires_at, fingerprint, nonce.hex(), target.operation, owner, person)


def _bytes_of(person: Person) -> bytes:
    """The name and the roles, which have no line feeds, after their length and up to a multiple of three."""
    text = "\n".join((person.name, *person.roles)).encode()
    return len(text).to_bytes(_PERSON, "big") + text.ljust(-(-len(text) // 3) * 3, b"\0")


def _person_in(rest: bytes) -> Person:
    size = int.from_bytes(rest[:_PERSON], "big")
    name, *roles = rest[_PERSON : _PERSON + size].decode().split("\n")
    return Person(name, tuple(roles))


def _is_whole(record: bytes) -> bool:
    """Whether a record without its MAC has the length that its first byte, and that of a name, say."""
    first = record[0]
    size = _SHORTEST - _MAC + (_NONCE if first & _ONCE else 0) + (_OWNER if first & _OWNED else 0)
    if not first & _PERSONAL:
        return len(record) == size
    named = int.from_bytes(record[size : size + _PERSON], "big")
    return len(record) == size + _PERSON + -(-named // 3) * 3


def _parts(sig: str) -> tuple[bytes, bytes]:
    try:
        raw = base64.b64decode(sig.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise BadLink("this link is not complete. Copy the whole link") from None
    has_version = len(raw) >= _SHORTEST and raw[0] & ~(_ONCE | _OWNED | _PERSONAL) == _VERSION
    if not has_version or not _is_whole(raw[:-_MAC]):
        raise BadLink("this link is not complete. Copy the whole link")
    if _text_of(raw) != sig:
        raise BadLink("this link is not complete. Copy the whole link")
    return raw[:-_MAC], raw[-_MAC:]


def _mac(secret: bytes, text: bytes) -> bytes:
    return hmac.digest(secret, text, "sha256")[:_MAC]


def _macs(secret: bytes, opening: bytes, endings: Sequence[bytes]) -> list[bytes]:
    """The MAC of each text after `opening`. The key and the opening are hashed only once."""
    if len(endings) == 1:
        return [_mac(secret, opening + endings[0])]
    # HMAC of RFC 2104. `hmac.new(...).copy()` does the same in twice the time.
    key = (secret if len(secret) <= _BLOCK else sha256(secret).digest()).ljust(_BLOCK, b"\0")
    inner, outer = sha256(key.translate(_INNER) + opening), sha256(key.translate(_OUTER))
    macs = []
    for ending in endings:
        within, around = inner.copy(), outer.copy()
        within.update(ending)
        around.update(within.digest())
        macs.append(around.digest()[:_MAC])
    return macs


def _text_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii")


__all__ = ["OPERATIONS", "BadLink", "SignedLink", "Target", "fingerprint_of", "sign_all", "verify"]
