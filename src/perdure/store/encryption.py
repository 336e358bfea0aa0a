"""AES-256-GCM: keys with ids, and the format of encrypted bytes.

    magic and version 5 | length of the key's id 1 | id | salt 16 | nonce 12 | ciphertext | tag 16

A key does not encrypt directly. HKDF-SHA-256 derives the encrypting key from it and a random salt, which is new
for each start of the application and after every 2**30 rows. Nonces are random, and one key must not use more
than 2**32; with derived keys no hub ever writes so many with one, and no process has to remember its position.
The place of the bytes (hub, table, column, the numbers of the row) is authenticated with them, not stored:
moved to another row they cannot be decrypted.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from perdure.errors import SettingError, needing
from perdure.model.encryption import MAGIC

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_SALT, _NONCE, _KEY, _TAG = 16, 12, 32, 16
_ROWS_A_SALT: Final = 1 << 30
_REMEMBERED: Final = 4_096  # keys derived from salts, one for each start of the application


class Encryption:
    """The keys that encrypt a hub's content. A `Cipher`.

    Parameters:
        keys: by id, 32 bytes each, or their base64 as `perdure encryption-key` prints it. You choose the ids: 1
            to 32 letters, digits, dots, dashes and underscores.
        current: the id of the key that encrypts, by default the first; the others only decrypt.

    Raises:
        SettingError for an invalid key or id; ExtraMissing without the extra `crypto`.
    """

    def __init__(self, keys: Mapping[str, bytes | str], current: str | None = None) -> None:
        if not keys:
            raise SettingError("Encryption needs a key: `perdure encryption-key` prints one")
        self.current = next(iter(keys)) if current is None else current
        self._keys = {_checked_id(key_id): _key_of(key_id, key) for key_id, key in keys.items()}
        if self.current not in self._keys:
            raise SettingError(f"the current key {self.current!r} is not among the keys {', '.join(keys)}")
        self._aes, self._derive = _library()
        self._made: dict[tuple[str, bytes], Any] = {}
        own = self.current.encode()
        self.prefix = MAGIC + bytes([len(own)]) + own
        self._begin()

    @classmethod
    def read(cls, given: Any) -> Encryption:
        """Keys from text such as `k2:base64,k1:base64`, the current one first. Raises ValueError."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, str):
            raise TypeError
        pairs = [part.strip().partition(":") for part in given.split(",") if part.strip()]
        keys = {key_id.strip(): key.strip() for key_id, _, key in pairs}
        if not keys or len(keys) != len(pairs):
            raise ValueError
        try:
            return cls(keys)
        except SettingError as error:
            raise ValueError from error

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the keys, the current one first."""
        return (self.current, *(key_id for key_id in self._keys if key_id != self.current))

    def __repr__(self) -> str:
        return f"Encryption({{{', '.join(f'{key_id!r}: ***' for key_id in self.ids)}}})"

    def __str__(self) -> str:
        return ", ".join(f"{key_id}:***" for key_id in self.ids)

    def __reduce__(self) -> Any:
        raise TypeError("an Encryption cannot be pickled: the pickle would contain its keys")

    def encrypt(self, plain: bytes, bound: bytes) -> bytes:
        self._left -= 1
        if self._left < 0:
            self._begin()
        head, aes = self._session
        nonce = os.urandom(_NONCE)
        sealed: bytes = aes.encrypt(nonce, plain, bound)
        return b"".join((head, nonce, sealed))

    def decrypt(self, stored: bytes, bound: bytes) -> bytes:
        at = len(MAGIC) + 1
        size = stored[at - 1] if len(stored) >= at else 0
        salt_at, nonce_at = at + size, at + size + _SALT
        if len(stored) < nonce_at + _NONCE + _TAG or not stored.startswith(MAGIC):
            raise ValueError("it is malformed")
        key_id = stored[at:salt_at].decode("ascii", "replace")
        aes = self._made_key(key_id, stored[salt_at:nonce_at])
        try:
            plain: bytes = aes.decrypt(
                stored[nonce_at : nonce_at + _NONCE], stored[nonce_at + _NONCE :], bound
            )
        except Exception as error:  # InvalidTag, from a library that may be missing
            raise ValueError("it was changed, or moved from another row") from error
        return plain

    def _begin(self) -> None:
        salt = os.urandom(_SALT)
        self._left = _ROWS_A_SALT
        self._session = self.prefix + salt, self._made_key(self.current, salt)

    def _made_key(self, key_id: str, salt: bytes) -> Any:
        made = self._made.get((key_id, salt))
        if made is None:
            made = self._aes(self._derive(self._keys[key_id], salt))
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            self._made[key_id, salt] = made
        return made


def new_key() -> str:
    """A random key of 256 bits, in base64."""
    return base64.b64encode(os.urandom(_KEY)).decode()


def _checked_id(key_id: str) -> str:
    if not isinstance(key_id, str) or _ID.fullmatch(key_id) is None:
        raise SettingError(f"the key id {key_id!r} is not 1 to 32 letters, digits, dots, dashes, underscores")
    return key_id


def _key_of(key_id: str, given: bytes | str) -> bytes:
    try:
        key = base64.b64decode(given, validate=True) if isinstance(given, str) else bytes(given)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY:
        raise SettingError(
            f"the key {key_id!r} is not 32 bytes, or their base64: `perdure encryption-key` prints one"
        )
    return key


def _library() -> tuple[Any, Any]:
    with needing("crypto", "encryption"):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    def derive(key: bytes, salt: bytes) -> bytes:
        return HKDF(SHA256(), _KEY, salt, b"perdure rows").derive(key)

    return AESGCM, derive


__all__ = ["Encryption", "new_key"]
