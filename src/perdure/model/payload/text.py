"""Properties of JSON text without decoding: its depth, suspect characters, its number of strings."""

from __future__ import annotations

import re

from perdure.model.payload.errors import MAX_DEPTH
from perdure.model.payload.locating import reject_flaws

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

_FLAT = bytes.maketrans(b"{}", b"[]")

_NEITHER_QUOTE_NOR_BRACKET = bytes(set(range(256)) - set(b'"[]{}'))

_STRING = re.compile(rb'"[^"]*"?')

_ABYSS = b"[" * (MAX_DEPTH + 1)


def reject_suspects(body: bytes) -> None:
    """Raise for NUL and for excess depth; valid text costs three scans."""
    if (
        len(body) > 2 * MAX_DEPTH
        and body.count(b"[") + body.count(b"{") > MAX_DEPTH
        and not _is_shallow(body)
    ):
        reject_flaws(body)
    if body.find(b"\\u0000") >= 0 and _NUL.search(body):
        reject_flaws(body)


def _is_shallow(body: bytes) -> bool:
    """Whether peeling at most MAX_DEPTH levels leaves no bracket."""
    skeleton = _skeleton(body)
    for _ in range(MAX_DEPTH):
        if not skeleton or skeleton.find(_ABYSS) >= 0:
            break
        skeleton = skeleton.replace(b"[]", b"")
    return not skeleton


def _skeleton(body: bytes) -> bytes:
    """The text's brackets, all as square ones, without those inside strings."""
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"") if body.find(b"\\") >= 0 else body
    marks = plain.translate(_FLAT, _NEITHER_QUOTE_NOR_BRACKET).replace(b'""', b"")
    return _STRING.sub(b"", marks) if marks.find(b'"') >= 0 else marks


def same_strings(body: bytes, compact: bytes) -> bool:
    """Whether no string was dropped; False may also mean that escapes hide the answer.

    Each string has two quotes; those inside it are escaped in both texts, or are \\u0022 in `body`.
    """
    return compact.count(b'"') == body.count(b'"') + body.count(b"\\u0022")
