"""The hash chain over history: what was written stays as it was, or the verifier says so.

`digest = sha256(salt, events)` covers the episode's plain content, `hash = sha256(previous hash, ids, digest)`
chains the rows of one execution. A body that is erased or encrypted again leaves both valid, because the
chain runs over the digest, kept beside it. The salt is the instance's own, so digests of small bodies
cannot be guessed. Each execution's chain begins at a base of its own: deleting an old one breaks nothing.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct

_IDS = Struct(">QQQ").pack  # execution number, episode, time in microseconds


def base_of(salt: bytes, execution_no: int) -> bytes:
    """Where the chain of an execution begins."""
    return sha256(b"perdure %d " % execution_no + salt).digest()


def digest_of(salt: bytes, content: bytes) -> bytes:
    """The salted digest of an episode's events, or of a body kept out of line."""
    return sha256(salt + content).digest()


def link(previous: bytes, execution_no: int, episode: int, at: int, digest: bytes) -> bytes:
    """The hash of one history row, from the one before it."""
    return sha256(previous + _IDS(execution_no, episode, at) + digest).digest()
