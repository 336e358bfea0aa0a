"""Reads a response with bounded memory: its size is counted as it arrives and as it is decompressed."""

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
"""Python encodings that no body uses. Some of them take quadratic time."""
TEXTUAL = ("text/", "application/json", "application/xml", "application/javascript", "application/x-www-form")


async def read_body(parts: AsyncIterable[bytes], encoding: str, limit: int) -> bytes:
    """Read and decompress a body. Raises HttpDenied as soon as it is longer than `limit` bytes."""
    unpack = _Unpacking(encoding)
    body = bytearray()
    async for part in parts:
        for piece in unpack.pieces(part):
            body += piece
            if len(body) > limit:
                raise HttpDenied(
                    f"the response is longer than {limit} bytes (HttpPolicy.max_response). To fetch a large body, "
                    "write an activity that stores it and returns its location"
                )
    unpack.finish()
    return bytes(body)


class _Unpacking:
    """Decompresses in small steps, so that a decompression bomb is noticed after one step."""

    def __init__(self, encoding: str) -> None:
        folded = encoding.strip().lower()
        if folded not in ("", "identity", *_WINDOW):
            raise HttpCallError(
                f"the response has the encoding {encoding!r}, which the request did not accept"
            )
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
            raise HttpCallError("the response is incomplete: its compressed body was cut off")


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
            raise HttpCallError(f"the compressed body of the response cannot be read: {error}") from None
        self._rest = self._inflate.unconsumed_tail
        if not piece and not self._rest:
            raise StopIteration
        return piece


def as_content(body: bytes, kind: str, charset: str) -> tuple[str, bool]:
    """The body as text, or as base64 if it is not text, and whether it is base64."""
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
