"""Signed links: URLs that open one operation of one instance, for whoever holds them.

A link's `sig` is a short record and a MAC over it: a version, the id of the signing key, the expiry, a
fingerprint of the instance, a nonce if it works only once, and HMAC-SHA-256 over all that together with what
the URL itself says: method, operation, hub, instance id, event. So nothing in the URL can be changed, a link
for one thing is none for another, and the server stores nothing for it.
The fingerprint comes from the chance an instance was born with. An id that was purged and used again is another
instance, and links to the first do not open it.
The MAC is cut to 144 bits, which keeps URLs short and is as good as out of reach; the lengths are multiples of
three, so that every bit of the text counts and one record has one spelling.
A link that was handed to the holder of an access key names that key too, and ends with it.
Keys are found by their id, and links made with an older one go on until they expire or it is revoked.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

_VERSION: Final = 1
_ONCE, _OWNED = 0x80, 0x40  # in the first byte, beside the version
_KID, _EXPIRY, _FINGERPRINT, _NONCE, _OWNER, _MAC = 8, 5, 4, 9, 9, 18
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
"""What a link can be for, and the method that does it. A `decide` link is also looked at with GET.

`status` shows how an instance stands, `inspect` also its input and its history.
"""


def _framed(*parts: str | bytes) -> bytes:
    """Every part with its length before it, so that no two targets have the same bytes."""
    encoded = [p if isinstance(p, bytes) else p.encode("utf-8", "surrogatepass") for p in parts]
    return b"".join([len(part).to_bytes(4, "big") + part for part in encoded])


_MEANT: Final = {operation: _framed(method, operation) for operation, method in OPERATIONS.items()}


class BadLink(Exception):
    """A link that opens nothing; the message says why."""


@dataclass(frozen=True)
class Target:
    """What a link leads to. `event` is "" for every event of the instance."""

    operation: str
    hub: str
    instance_id: str
    event: str = ""


@dataclass(frozen=True)
class SignedLink:
    """A link whose signature was found right.

    `nonce` is "" when it works more than once, `owner` is the id of the access key whose holder it was given to.
    """

    kid: str
    expires_at: int  # seconds since 1970
    fingerprint: bytes
    nonce: str
    operation: str = ""
    owner: str = ""


def fingerprint_of(salt: bytes) -> bytes:
    """What a link says of the instance it was made for."""
    return sha256(b"perdure instance" + salt).digest()[:_FINGERPRINT]


def sign(
    target: Target,
    *,
    kid: str,
    secret: bytes,
    expires_at: int,
    fingerprint: bytes,
    nonce: bytes = b"",
    owner: str = "",
) -> str:
    """The `sig` of a link; see `sign_all`."""
    signed = sign_all(
        [target.operation],
        target.hub,
        target.instance_id,
        target.event,
        kid=kid,
        secret=secret,
        expires_at=expires_at,
        fingerprint=fingerprint,
        nonce=nonce,
        owner=owner,
    )
    return signed[target.operation]


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
) -> dict[str, str]:
    """The `sig` of a link for each of these operations; what their MACs are over in common is made once.

    Parameters:
        operations, hub, instance_id, event: what the links lead to.
        kid, secret: the signing key; its id has 8 characters.
        expires_at: seconds since 1970 at which they stop working.
        fingerprint: of the instance, see `fingerprint_of`.
        nonce: 9 bytes of chance for a link that works once.
        owner: the id of the access key whose holder gets them; its ids have 8 characters.
    """
    first = _VERSION | (_ONCE if nonce else 0) | (_OWNED if owner else 0)
    owned = owner.encode("ascii").ljust(_OWNER, b"\0") if owner else b""
    record = b"".join(
        (bytes([first]), kid.encode("ascii"), expires_at.to_bytes(_EXPIRY, "big"), fingerprint, nonce, owned)
    )
    assert len(record) + _MAC == _length(first)
    opening, place = _framed(_DOMAIN, record), _framed(hub, instance_id, event)
    macs = _macs(secret, opening, [_MEANT[one] + place for one in operations])
    # Every part has a multiple of three bytes, so the texts of all can be made in one go and cut apart.
    start, ends, width = _text_of(record), _text_of(b"".join(macs)), _MAC // 3 * 4
    return {one: start + ends[no * width : (no + 1) * width] for no, one in enumerate(operations)}


def verify(sig: str, target: Target, secrets: Mapping[str, bytes], now: int) -> SignedLink:
    """The link behind a `sig` for this target. Raises BadLink for any other.

    Parameters:
        sig: as it came with the request.
        target: what the request asks for.
        secrets: the signing keys that count, by id.
        now: seconds since 1970.
    """
    record, mac = _parts(sig)
    kid = record[1 : 1 + _KID].decode("ascii", "replace")
    secret = secrets.get(kid)
    place = _framed(target.hub, target.instance_id, target.event)
    expected = _mac(secret or bytes(32), _framed(_DOMAIN, record) + _MEANT[target.operation] + place)
    if not hmac.compare_digest(mac, expected) or secret is None:
        raise BadLink("this link was changed, was made for something else, or was called back")
    rest = record[1 + _KID :]
    expires_at = int.from_bytes(rest[:_EXPIRY], "big")
    if now >= expires_at:
        raise BadLink("this link has expired")
    fingerprint, rest = rest[_EXPIRY : _EXPIRY + _FINGERPRINT], rest[_EXPIRY + _FINGERPRINT :]
    nonce, owned = (rest[:_NONCE], rest[_NONCE:]) if record[0] & _ONCE else (b"", rest)
    owner = owned.rstrip(b"\0").decode("ascii", "replace")
    return SignedLink(kid, expires_at, fingerprint, nonce.hex(), target.operation, owner)


def _length(first: int) -> int:
    return _SHORTEST + (_NONCE if first & _ONCE else 0) + (_OWNER if first & _OWNED else 0)


def _parts(sig: str) -> tuple[bytes, bytes]:
    try:
        raw = base64.b64decode(sig.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise BadLink("this link is not whole: copy all of it") from None
    if not raw or raw[0] & ~(_ONCE | _OWNED) != _VERSION or len(raw) != _length(raw[0]):
        raise BadLink("this link is not whole: copy all of it")
    if _text_of(raw) != sig:
        raise BadLink("this link is not whole: copy all of it")
    return raw[:-_MAC], raw[-_MAC:]


def _mac(secret: bytes, text: bytes) -> bytes:
    return hmac.digest(secret, text, "sha256")[:_MAC]


def _macs(secret: bytes, opening: bytes, endings: Sequence[bytes]) -> list[bytes]:
    """The MAC of each text that begins with `opening`: the key and the opening are digested once for all."""
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


__all__ = ["OPERATIONS", "BadLink", "SignedLink", "Target", "fingerprint_of", "sign", "sign_all", "verify"]
