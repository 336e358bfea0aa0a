"""Reading a response without letting it fill the memory: counted as it comes, and as it unpacks."""

from __future__ import annotations

import base64
import codecs
import zlib
from collections.abc import AsyncIterable

from perdure.errors import HttpCallError, HttpDenied

ACCEPTED = "gzip, deflate"
_WINDOW = {"gzip": 47, "x-gzip": 47, "deflate": 47}  # zlib reads either header by itself
STEP = 64 * 1024
NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined"})
"""Encodings of Python's that no body is in; some take time that grows with the square of the length."""
TEXTUAL = ("text/", "application/json", "application/xml", "application/javascript", "application/x-www-form")


async def read_body(parts: AsyncIterable[bytes], encoding: str, limit: int) -> bytes:
    """The unpacked body. Raises HttpDenied once it is longer than `limit`, whatever its head said."""
    unpack = _Unpacking(encoding)
    body = bytearray()
    async for part in parts:
        for piece in unpack.pieces(part):
            body += piece
            if len(body) > limit:
                raise HttpDenied(
                    f"the response is longer than {limit} bytes: HttpPolicy.max_response. Let an activity of your "
                    "own store a large body, and return where it is"
                )
    unpack.finish()
    return bytes(body)


class _Unpacking:
    """Unpacks in small steps, so that a bomb is noticed after one of them."""

    def __init__(self, encoding: str) -> None:
        folded = encoding.strip().lower()
        if folded not in ("", "identity", *_WINDOW):
            raise HttpCallError(f"the response is packed as {encoding!r}, which was not asked for")
        self._inflate = zlib.decompressobj(_WINDOW[folded]) if folded in _WINDOW else None
        self._raw = folded == "deflate"  # some servers send it without the header
        self._seen = False

    def pieces(self, part: bytes) -> list[bytes] | _Steps:
        if self._inflate is None or not part:
            return [part]
        if self._raw and not self._seen and (part[0] & 0x0F) != 8:
            self._inflate = zlib.decompressobj(-15)
        self._seen = True
        return _Steps(self._inflate, part)

    def finish(self) -> None:
        if self._inflate is not None and self._seen and not self._inflate.eof:
            raise HttpCallError("the response broke off: its packed body is not complete")


class _Steps:
    def __init__(self, inflate: zlib._Decompress, part: bytes) -> None:
        self._inflate, self._rest = inflate, part

    def __iter__(self) -> _Steps:
        return self

    def __next__(self) -> bytes:
        if self._inflate.eof:
            raise StopIteration
        try:
            piece = self._inflate.decompress(self._rest, STEP)
        except zlib.error as error:
            raise HttpCallError(f"the response's packed body cannot be read: {error}") from None
        self._rest = self._inflate.unconsumed_tail
        if not piece and not self._rest:
            raise StopIteration
        return piece


def as_content(body: bytes, kind: str, charset: str) -> tuple[str, bool]:
    """The body as text if it is text, else as base64; and whether it is."""
    textual = not kind or kind.startswith(TEXTUAL) or kind.endswith(("+json", "+xml"))
    for name in dict.fromkeys((charset or "utf-8", "utf-8")):
        try:
            if codecs.lookup(name).name in NO_CHARSETS:
                continue
            text = body.decode(name)
        except (LookupError, ValueError):
            continue
        if textual and "\0" not in text:
            return text, False
    return base64.b64encode(body).decode(), True
