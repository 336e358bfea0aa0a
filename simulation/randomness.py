"""Randomness: one seed, split by purpose, so that a draw for one thing never moves another."""

from __future__ import annotations

import random
from hashlib import blake2b


class SeededRandomness:
    """Where all randomness of a run comes from. Independent of PYTHONHASHSEED."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._root = f"perdure {seed}".encode()

    def of(self, purpose: str) -> random.Random:
        """A generator of its own for one purpose."""
        return random.Random(self._number(purpose))

    def draw(self, *key: object) -> float:
        """A number from 0 to 1, always the same for a key."""
        return self._number(*key) / 2**64

    def _number(self, *key: object) -> int:
        text = self._root + "\0".join(map(str, key)).encode()
        return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")
