"""What can be asked of a disk: the entries of its log."""

from __future__ import annotations

from typing import NamedTuple


class LinkFile(NamedTuple):
    """A file got a name."""

    name: str
    file: int


class UnlinkFile(NamedTuple):
    """A name was deleted."""

    name: str


class Write(NamedTuple):
    """Bytes were written."""

    file: int
    offset: int
    data: bytes


class Truncate(NamedTuple):
    """A file was made shorter or longer."""

    file: int
    size: int


class Sync(NamedTuple):
    """All of a file's bytes were asked to be certain."""

    file: int


class FailedSync(NamedTuple):
    """A sync of a file failed. Linux reports that once and then takes the bytes for written."""

    file: int


class SyncNames(NamedTuple):
    """All names of the directory were asked to be certain."""


class Open(NamedTuple):
    """A file was opened. It changes nothing, but it can fail."""

    name: str


class Read(NamedTuple):
    """Bytes were read. It changes nothing, but it can fail."""

    file: int


Operation = LinkFile | UnlinkFile | Write | Truncate | Sync | FailedSync | SyncNames | Open | Read
