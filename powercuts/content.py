"""The content of a file: bytes, and a size that may lie behind them. What is beyond the bytes reads as zeros."""

from __future__ import annotations

import os
from typing import Any, Final

ZEROS: Final = bytes(128 * 1024)


def is_zeros(data: bytes) -> bool:
    """Whether these bytes, not too many, are all zero."""
    return ZEROS.startswith(data)


class Content:
    """Bytes of a file. The log of the store begins with megabytes of zeros: they take no room here."""

    __slots__ = ("data", "size")

    def __init__(self, data: bytes | bytearray = b"", size: int | None = None) -> None:
        self.data = bytearray(data)
        self.size = len(data) if size is None else size

    def copy(self) -> Content:
        return Content(self.data, self.size)

    def write(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        self.size = max(self.size, end)
        if offset >= len(self.data):
            if is_zeros(data):
                return
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset:end] = data

    def truncate(self, size: int) -> None:
        del self.data[size:]
        self.size = size

    def apply(self, change: Any) -> None:
        """A `Write` or a `Truncate`."""
        if len(change) == 3:
            self.write(change.offset, change.data)
        else:
            self.truncate(change.size)

    def bytes(self) -> bytes:
        return bytes(self.data) + bytes(self.size - len(self.data))

    def save(self, path: str) -> None:
        """Write a file, with a hole for the zeros."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, self.data)
            os.ftruncate(descriptor, self.size)
        finally:
            os.close(descriptor)
