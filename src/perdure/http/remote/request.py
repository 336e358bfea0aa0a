"""A request that a remote client sends, and how its answer is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Query = dict[str, Any]


@dataclass(frozen=True)
class Sent:
    """The request that carries a message, and how its answer is read."""

    method: str
    path: str
    query: Query
    body: bytes | None = None
    answer: Callable[[Any], Any] = lambda _: None
    headers: Mapping[str, str] = field(default_factory=dict)


__all__ = ["Query", "Sent"]
