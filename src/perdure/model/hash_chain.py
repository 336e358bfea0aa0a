"""The hash chain over history, by which the verifier detects changes.

`digest = sha256(salt, events)` covers the episode's plain content, `hash = sha256(previous hash, ids, digest)`
chains the rows of one execution. Both stay valid when a body is erased or re-encrypted, because the chain
covers the digest, stored beside it. Each instance has its own salt, so digests of small bodies cannot be
guessed. Each execution's chain begins at its own base, so an old one can be deleted.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct

_IDS = Struct(">QQQ").pack  # execution number, episode, time in microseconds


def base_of(salt: bytes, execution_no: int) -> bytes:
    """The base of an execution's chain."""
    return sha256(b"perdure %d " % execution_no + salt).digest()


def digest_of(salt: bytes, content: bytes) -> bytes:
    """The salted digest of an episode's events, or of a large body."""
    return sha256(salt + content).digest()


def link(previous: bytes, execution_no: int, episode: int, at: int, digest: bytes) -> bytes:
    """The hash of one history row, from the previous one."""
    return sha256(previous + _IDS(execution_no, episode, at) + digest).digest()
