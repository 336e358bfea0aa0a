"""What a JPEG or PNG file has besides its picture: metadata, and bytes behind its end.

A polyglot is a file that is a picture for one program and an archive, a document or a page for another. The second
file lies in these parts. Phones put data of their own there, such as the film of a moving photo, so only the
beginnings of what a browser or an office program would open are refused.
"""

import re
import struct
from collections.abc import Iterator

OTHER_FILES = re.compile(
    rb"PK\x03\x04|%PDF-|<script|<!doctype|<html|<svg|<\?php|^MZ|^Rar!|^7z\xbc\xaf", re.IGNORECASE
)
JPEG, PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MARKER = re.compile(
    rb"\xff[^\x00\xff\xd0-\xd7]"
)  # within a scan, FF 00 is a byte of data, FF D0 to D7 a restart


def holds_another_file(data: bytes) -> bool:
    """Whether there is the beginning of another file beside the picture."""
    return any(OTHER_FILES.search(part) for part in parts_beside_picture(data))


def parts_beside_picture(data: bytes) -> Iterator[bytes]:
    """The metadata of a JPEG or PNG, and what follows its end. Other files are no photos anyway."""
    if data.startswith(JPEG):
        yield from _beside_jpeg(data)
    elif data.startswith(PNG):
        yield from _beside_png(data)


def _beside_jpeg(data: bytes) -> Iterator[bytes]:
    at = len(JPEG)
    while found := MARKER.search(data, at):
        kind, at = found.group()[1], found.end()
        if kind == END_OF_IMAGE:
            yield data[at:]
            return
        length = int.from_bytes(data[at : at + 2], "big")
        if kind != START_OF_SCAN:
            yield data[at + 2 : at + length]
        at += max(length, 2)


def _beside_png(data: bytes) -> Iterator[bytes]:
    at = len(PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind != b"IDAT":
            yield data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            yield data[at:]
            return
