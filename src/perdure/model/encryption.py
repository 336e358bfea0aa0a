"""Content that is kept encrypted: how its bytes are told from plain ones, and what stands for it elsewhere.

Everything above a store sees plain bytes; a store that encrypts does so on the way to its rows and back. What
begins with `MAGIC` is encrypted: no JSON begins with a zero byte, so plain and encrypted rows may stand side by side.
Bytes that cannot be decrypted, for want of the key or because they are not what was written, are handed on as
`Unreadable`, with the reason: that way one damaged row is a problem of its instance, not of its hub. Whoever decodes
them raises that reason.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

MAGIC: Final = b"\x00pdr\x01"
ENCRYPTED: Final = "<encrypted>"
DAMAGED: Final = "<cannot be decrypted>"


_BEGINNINGS: Final = frozenset(bytes([one]) for one in b'{["-0123456789tfn \t\r\n')


class Cipher(Protocol):
    """What encrypts. `bound` says which place of which row the bytes are for; they are readable only there."""

    @property
    def prefix(self) -> bytes:
        """How everything begins that is encrypted with the current key."""

    @property
    def current(self) -> str:
        """The id of the key that encrypts from now on."""

    def encrypt(self, plain: bytes, bound: bytes) -> bytes: ...

    def decrypt(self, stored: bytes, bound: bytes) -> bytes:
        """Raises KeyError, with the key's id, when that is not at hand; ValueError when it does not fit."""


class Unreadable(bytes):
    """Encrypted bytes that could not be decrypted. `why` is a sentence, `shown` what a person sees in their place."""

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
    """Whether this may be JSON, which begins with a sign, a digit, a letter, a quote, a bracket, or not at all."""
    return not stored or (stored[:1] in _BEGINNINGS and stored[1:5] != MAGIC[1:])


def refuse_unreadable(stored: object) -> None:
    """Raise msgspec.DecodeError, with the reason, for bytes that could not be decrypted."""
    if isinstance(stored, Unreadable):
        raise msgspec.DecodeError(stored.why)
