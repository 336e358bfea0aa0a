"""Names of events, functions, versions and patches, valid in stores and URLs."""

from __future__ import annotations

from typing import Final

NAME_LIMIT: Final = 200  # characters


def is_name(name: object) -> bool:
    """Whether the name is 1 to 200 printable characters. Lone surrogates and NUL are not printable."""
    return isinstance(name, str) and 0 < len(name) <= NAME_LIMIT and name.isprintable()


def is_text(text: str) -> bool:
    """Whether every store accepts the text: no lone surrogates, no NUL."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text))


def not_a_name(name: object, what: str) -> str:
    """Why the name is invalid, for an error."""
    return f"{what} must be 1 to {NAME_LIMIT} printable characters, not {ascii(name)[:60]}"


__all__ = ["NAME_LIMIT", "is_name", "is_text", "not_a_name"]
