"""Snapshots: copies of a replica in blobs, and what may be deleted once they exist.

The document about a hub lists them, the oldest first. A snapshot is put first, and then listed, under the condition
that nothing has changed the document. An engine never lists one that is older than the newest. So blobs and records
below the oldest listed snapshot are of no use to any reader, and only those are deleted.
"""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

import apsw
import msgspec

from perdure.errors import StoreTooNew, StoreUnusable
from perdure.store.log.port import Moved
from perdure.store.log.records import FORMAT
from perdure.store.log.replica import Place, read_place
from perdure.store.sqlite.backup import back_up

if TYPE_CHECKING:
    from perdure.store.log.appending import Patience
    from perdure.store.log.port import About, Blobs, Log, Service

SNAPSHOTS: Final = "snapshots/"
BODIES: Final = "bodies/"
_KEPT: Final = 2  # a reader that has begun with one finds the records behind it while the next is made
_FAST: Final = 1


class Listed(msgspec.Struct, frozen=True):
    """One snapshot."""

    position: int  # of the first record that it lacks
    digest: bytes  # SHA-256 of the record before
    blob: str
    content: bytes  # SHA-256 of the blob
    size: int  # of the blob
    written: int  # bytes of all records before it
    at: int  # when the record before it was written, by the service's clock, in microseconds

    @property
    def place(self) -> Place:
        return Place(self.position, self.digest, 0, self.written)


class Copy(NamedTuple):
    """A copy of a replica in a blob."""

    place: Place
    blob: str
    content: bytes  # SHA-256 of the blob
    size: int

    def listed(self, at: int, place: Place | None = None) -> Listed:
        position, digest, _, written, _ = place or self.place
        return Listed(position, digest, self.blob, self.content, self.size, written, at)


class Document(msgspec.Struct):
    """The document about a hub."""

    hub: str
    format: int = FORMAT
    snapshots: list[Listed] = []


def blob_name(folder: str, position: int, rest: str) -> str:
    """A name that sorts by position."""
    return f"{folder}{position:016x}{rest}"


def position_of(blob: str) -> int:
    return int(blob.rpartition("/")[2][:16], 16)


class Shelf:
    """The snapshots of one hub. From any thread."""

    def __init__(self, service: Service, hub: str, patience: Patience) -> None:
        self.where, self.hub = service.where, hub
        self.blobs: Blobs = service.blobs()
        self._about: About = service.about()
        self._patience = patience

    def read(self) -> tuple[Document, str | None]:
        """The document and its tag. Raises StoreTooNew, StoreUnusable, StoreError."""
        found = self._patience.asked(self._about.read, self.where)
        if found is None:
            return Document(self.hub), None
        try:
            document = msgspec.json.decode(found[0], type=Document)
        except msgspec.MsgspecError as error:
            raise StoreUnusable(f"{self.where} is no hub of perdure: {error}") from error
        if document.format > FORMAT:
            raise StoreTooNew(
                f"{self.where} has format {document.format}, and this version of perdure reads {FORMAT}: install "
                "the version that wrote it, or a newer one"
            )
        if document.hub != self.hub:
            raise StoreUnusable(f"{self.where} contains the hub {document.hub!r}, not {self.hub!r}")
        return document, found[1]

    def create(self) -> None:
        """Write the document of a new hub."""
        if self.read()[1] is None:
            with suppress(Moved):  # another engine has created it
                self._write(Document(self.hub), None)

    def newest(self) -> Listed | None:
        snapshots = self.read()[0].snapshots
        return snapshots[-1] if snapshots else None

    def put(self, source: str) -> Copy:
        """Put a copy of the replica `source` into a blob."""
        with _folder() as folder:
            path = os.path.join(folder, "copy.db")
            back_up(source, path)
            with closing(apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)) as copy:
                place = read_place(copy.execute)
            with open(path, "rb") as file:
                content = zlib.compress(file.read(), _FAST)
        # What is not in batches yet is of the place behind the record that will name this blob.
        name = blob_name(SNAPSHOTS, place.position + place.is_dirty, ".db.z")
        self._patience.asked(lambda: self.blobs.put(name, content), self.where)
        return Copy(place, name, sha256(content).digest(), len(content))

    @contextmanager
    def fetched(self, blob: str, content: bytes) -> Iterator[str]:
        """A snapshot as a file, for the time of the context. Raises Missing, StoreUnusable, StoreError."""
        found = self._patience.asked(lambda: self.blobs.get(blob), self.where)
        if sha256(found).digest() != content:
            raise StoreUnusable(f"the snapshot {blob} of {self.where} is damaged: its hash is another one")
        with _folder() as folder:
            path = os.path.join(folder, "snapshot.db")
            with open(path, "wb") as file:
                file.write(zlib.decompress(found))
            del found
            yield path

    def list(self, made: Listed, *, kept_since: int, alone: bool = False) -> int | None:
        """List a new snapshot, and drop those that are not needed. Returns the position below which all may go.

        `kept_since` is a time: the log can be read back to it. With `alone`, only this snapshot stays. Returns None,
        without a change, if another engine has listed a newer one.
        """
        while True:
            document, tag = self.read()
            newest = document.snapshots[-1] if document.snapshots else None
            if newest is not None and newest.position >= made.position and newest != made:
                return None
            snapshots = [listed for listed in document.snapshots if not alone and listed != made]
            snapshots.append(made)
            while len(snapshots) > _KEPT and snapshots[1].at <= kept_since:
                del snapshots[0]
            document.snapshots = snapshots
            with suppress(Moved):
                self._write(document, tag)
                is_enough = len(snapshots) >= _KEPT and snapshots[0].at <= kept_since
                return snapshots[0].position if alone or is_enough else 0

    def _write(self, document: Document, tag: str | None) -> None:
        content = msgspec.json.encode(document)
        self._patience.asked(lambda: self._about.write(content, tag), self.where)

    def clear(self, log: Log, below: int) -> None:
        """Delete records and blobs below a position that `list` has returned."""
        self._patience.asked(lambda: log.trim(below), self.where)
        for folder in (SNAPSHOTS, BODIES):
            names = self._patience.asked(lambda folder=folder: self.blobs.names(folder), self.where)  # type: ignore[misc]
            old = [name for name in names if position_of(name) < below]
            if old:
                self._patience.asked(lambda old=old: self.blobs.delete(old), self.where)  # type: ignore[misc]


@contextmanager
def _folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        yield folder


__all__ = ["BODIES", "SNAPSHOTS", "Copy", "Document", "Listed", "Shelf", "blob_name", "position_of"]
