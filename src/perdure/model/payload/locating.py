"""Locates the error in an invalid body, by reading it token by token."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from perdure.errors import PayloadError
from perdure.model.payload.errors import (
    MAX_DEPTH,
    MAX_DIGITS,
    Token,
    Trail,
    refusal,
    surrogate,
    too_deep,
    too_long,
)
from perdure.model.payload.writing import read_plain

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},]|-?[0-9][0-9.eE+-]*+|[A-Za-z]++', re.DOTALL)

_WORDS = (b"true", b"false", b"null")

_NO_NUMBERS = (b"nan", b"infinity", b"inf")

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_AT_BYTE = re.compile(r"(?:JSON is malformed: )?(.*) \(byte (\d+)\)", re.DOTALL)


class _Cursor:
    """The position of a reader: a token for each open array or object.

    The token is the index in an array, the key in an object, and None before a key.
    """

    def __init__(self) -> None:
        self.trail: list[Token] = []
        self.keys: list[set[str]] = []

    def place(self) -> Trail:
        return tuple(token for token in self.trail if token is not None)

    def open_array(self, _: bytes) -> None:
        self._open(0)

    def open_object(self, _: bytes) -> None:
        self._open(None)

    def _open(self, first: Token) -> None:
        if len(self.trail) == MAX_DEPTH:
            raise too_deep(self.place())
        self.trail.append(first)
        self.keys.append(set())

    def close(self, _: bytes) -> None:
        if self.trail:
            self.trail.pop()
            self.keys.pop()

    def comma(self, _: bytes) -> None:
        if self.trail:
            token = self.trail[-1]
            self.trail[-1] = token + 1 if isinstance(token, int) else None

    def string(self, token: bytes) -> None:
        is_key = bool(self.trail) and self.trail[-1] is None
        if not is_key and b"\\" not in token:
            return
        text = self._text(token)
        if is_key and text is not None:
            self._key(text)

    def _text(self, token: bytes) -> str | None:
        try:
            text: str = read_plain(token)
        except ValueError:
            if _SURROGATE.search(token):
                raise surrogate(self.place()) from None
            return None
        if "\0" in text:
            raise refusal("a string contains the character NUL", self.place())
        return text

    def _key(self, key: str) -> None:
        if key in self.keys[-1]:
            raise refusal("duplicate key in an object", (*self.place(), key))
        self.keys[-1].add(key)
        self.trail[-1] = key

    def number(self, token: bytes) -> None:
        if token.lstrip(b"-").isdigit():
            if len(token) > MAX_DIGITS:
                raise too_long(self.place())
        elif _overflows(token):
            raise refusal("a number is too large for a float", self.place())

    def word(self, token: bytes) -> None:
        if token not in _WORDS:
            advice = (
                "JSON has no such number: send null or a string"
                if token.lower() in _NO_NUMBERS
                else "put strings in double quotes; the only literals are true, false and null"
            )
            raise refusal(f"not valid JSON near {token[:40].decode()!r}: {advice}", self.place())


_STEPS: dict[int, Callable[[_Cursor, bytes], None]] = {
    ord("["): _Cursor.open_array,
    ord("{"): _Cursor.open_object,
    ord("]"): _Cursor.close,
    ord("}"): _Cursor.close,
    ord(","): _Cursor.comma,
    ord('"'): _Cursor.string,
    **dict.fromkeys(b"-0123456789", _Cursor.number),
}


def _overflows(token: bytes) -> bool:
    try:
        return math.isinf(float(token))
    except ValueError:
        return False


def reject_flaws(body: bytes, stop: int | None = None) -> Trail:
    """Read the text up to byte `stop` and raise for the first error; otherwise return the position there."""
    cursor = _Cursor()
    end = len(body) if stop is None else stop
    for found in _TOKEN.finditer(body):
        token = found[0]
        step = _STEPS.get(token[0], _Cursor.word)
        if found.start() >= end and step is not _Cursor.word:  # the decoder may have stopped at this word
            break
        step(cursor, token)
    return cursor.place()


def malformed(body: bytes, error: BaseException) -> PayloadError:
    """The error for invalid external text; a specific error takes precedence over the decoder's message."""
    stop, reason = _breaking_point(body, error)
    try:
        return refusal(reason, reject_flaws(body, stop))
    except PayloadError as refused:
        return refused


def _breaking_point(body: bytes, error: BaseException) -> tuple[int, str]:
    try:
        body.decode()
    except UnicodeDecodeError as undecodable:
        return undecodable.start, f"the body is not UTF-8, at byte {undecodable.start}"
    if not body.strip():
        return 0, "not valid JSON: the body is empty"
    found = _AT_BYTE.fullmatch(str(error))
    if found is None:
        said = "it ends unexpectedly" if "truncated" in str(error) else str(error)
        return len(body), f"not valid JSON: {said}"
    stop = int(found[2])
    near = body[stop : stop + 24].strip() or body[max(0, stop - 24) : stop].strip()
    return stop, f"not valid JSON near {near.decode(errors='ignore')[:20]!r}, at byte {stop}: {found[1]}"
