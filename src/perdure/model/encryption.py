"""Encrypted content: how it differs from plain bytes, and its placeholder when it is unreadable.

Everything above a store sees plain bytes; a store with encryption encrypts on the way to its rows and decrypts
on the way back. Encrypted bytes begin with `MAGIC`: JSON never begins with a zero byte, so plain and encrypted
rows may be mixed. Bytes that cannot be decrypted, because the key is missing or they were changed, become
`Unreadable`, with the reason, so that a damaged row affects only its instance, not its hub. Decoding them
raises that reason.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

MAGIC: Final = b"\x00pdr\x01"
ENCRYPTED: Final = "<encrypted>"
DAMAGED: Final = "<cannot be decrypted>"


_BEGINNINGS: Final = frozenset(bytes([one]) for one in b'{["-0123456789tfn \t\r\n')


class Cipher(Protocol):
    """A cipher. `bound` identifies the row and column of the bytes; they are readable only there."""

    @property
    def prefix(self) -> bytes:
        """The prefix of everything encrypted with the current key."""

    @property
    def current(self) -> str:
        """The id of the current key, which encrypts."""

    def encrypt(self, plain: bytes, bound: bytes) -> bytes: ...

    def decrypt(self, stored: bytes, bound: bytes) -> bytes:
        """Raises KeyError with the key's id if the key is missing; ValueError if the bytes do not fit."""


class Unreadable(bytes):
    """Encrypted bytes that could not be decrypted. `why` is a sentence, `shown` the placeholder."""

    why: str
    shown: str

    @classmethod
    def of(cls, stored: bytes, shown: str, why: str) -> Unreadable:
        self = cls(stored)
        self.shown, self.why = shown, why
        return self


def is_encrypted(stored: bytes) -> bool:
    return stored.startswith(MAGIC)


def may_be_plain(stored: bytes) -> bool:
    """Whether this may be JSON, which begins with a sign, a digit, a letter, a quote, a bracket, or is empty."""
    return not stored or (stored[:1] in _BEGINNINGS and stored[1:5] != MAGIC[1:])


def refuse_unreadable(stored: object) -> None:
    """Raise msgspec.DecodeError, with the reason, for bytes that could not be decrypted."""
    if isinstance(stored, Unreadable):
        raise msgspec.DecodeError(stored.why)
