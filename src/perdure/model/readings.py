"""A decoded body: its value together with the type."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from perdure.model import payload


class Reading:
    """The value of one body. Only one consumer gets it, because the code may change it."""

    __slots__ = ("expected", "value")

    def __init__(self, body: Raw, expected: Any) -> None:
        """Decode the body. Raises PayloadError if it does not fit."""
        self.expected = expected
        self.value = payload.decode(body, expected)

    def is_as(self, expected: Any) -> bool:
        """Whether the body was decoded as this type."""
        return self.expected is expected or bool(self.expected == expected)


__all__ = ["Reading"]
