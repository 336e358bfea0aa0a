"""The format of a record: a header, then the content of its kind in MessagePack.

    magic 2 | kind 1 | format 1 | flags 1 | incarnation 8 | id 16 | SHA-256 of the record before 32 | content

The hash of the record before ties a replica to its log, and lets `perdure verify` walk the log. The id is random, so
a record is equal to no other. A batch is written as it is, by the names of its fields, without the empty ones.
Fields and columns are only ever added, at the end and with defaults. Each addition raises FORMAT, because an earlier
version would leave it out. Contents above 4 KiB are deflated. A record that would be larger than the log accepts has
its content in a blob.
"""

from __future__ import annotations

import os
import struct
import zlib
from enum import IntEnum, IntFlag
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from perdure.errors import StoreTooNew, StoreUnusable
from perdure.model.records import Batch
from perdure.model.ring import RingRow

FORMAT: Final = 1
BEGINNING: Final = bytes(32)
"""What the first record has as the hash of the record before it."""
_MAGIC: Final = b"pl"
_HEADER: Final = struct.Struct(">2sBBBQ16s32s")
_DEFLATED_ABOVE: Final = 4_096
_FAST: Final = 1
_DERIVED: Final = frozenset({"moves"})  # the rows of the ring contain what they count

_pack: Final = msgspec.msgpack.Encoder().encode


class Kind(IntEnum):
    BATCH = 1
    EPOCH = 2
    SNAPSHOT = 3


class Flag(IntFlag):
    DEFLATED = 1
    IN_BLOB = 2


class Epoch(msgspec.Struct):
    """An engine has taken the hub. With the rows that opening a hub may change, all of them as they are now."""

    hub: str
    worker: str = ""
    host: str = ""
    keys: list[tuple[str, bytes]] = []
    heads: list[RingRow] = []


class MovedTo(msgspec.Struct):
    """Rows were changed outside of batches. What follows applies to this snapshot."""

    blob: str
    digest: bytes


class Elsewhere(msgspec.Struct):
    """The blob with the content of a record."""

    blob: str
    digest: bytes


class Header(NamedTuple):
    magic: bytes
    kind: int
    format: int
    flags: int
    incarnation: int
    id: bytes
    before: bytes


_FIELDS: Final = tuple(name for name in Batch.__struct_fields__ if name not in _DERIVED)
_TYPES: Final[dict[int, Any]] = {Kind.BATCH: Batch, Kind.EPOCH: Epoch, Kind.SNAPSHOT: MovedTo}
_DECODERS: Final = {kind: msgspec.msgpack.Decoder(type_).decode for kind, type_ in _TYPES.items()}
_elsewhere: Final = msgspec.msgpack.Decoder(Elsewhere).decode


def digest_of(record: bytes) -> bytes:
    return sha256(record).digest()


def packed_batch(batch: Batch) -> bytes:
    """The fields of a batch that are not empty. `moved` distinguishes empty from None."""
    found = {name: value for name in _FIELDS if (value := getattr(batch, name))}
    found["at"] = batch.at
    if batch.moved is not None:
        found["moved"] = batch.moved
    return _pack(found)


def packed(content: Epoch | MovedTo) -> bytes:
    return _pack(content)


def record_of(kind: Kind, incarnation: int, before: bytes, content: bytes) -> bytes:
    """A new record, with an id of its own."""
    flags = Flag(0)
    if len(content) > _DEFLATED_ABOVE:
        content, flags = zlib.compress(content, _FAST), Flag.DEFLATED
    return _HEADER.pack(_MAGIC, kind, FORMAT, flags, incarnation, os.urandom(16), before) + content


def in_blob(record: bytes, blob: str) -> tuple[bytes, bytes]:
    """The record that names the blob with the content of this one, and that content."""
    header, content = _header(record), record[_HEADER.size :]
    named = header._replace(flags=header.flags | Flag.IN_BLOB)
    return _HEADER.pack(*named) + _pack(Elsewhere(blob, sha256(content).digest())), content


def header_of(record: bytes) -> Header:
    """The header. Raises StoreTooNew, and StoreUnusable for bytes that are no record."""
    found = _header(record)
    if found.format > FORMAT:
        raise StoreTooNew(
            f"the log has records of format {found.format}, and this version of perdure reads {FORMAT}: install "
            "the version that wrote them, or a newer one"
        )
    return found


def blob_of(record: bytes) -> Elsewhere | None:
    """The blob with the content of this record, if it is in one."""
    return _elsewhere(record[_HEADER.size :]) if _header(record).flags & Flag.IN_BLOB else None


def content_of(record: bytes, body: bytes | None = None) -> Batch | Epoch | MovedTo:
    """What the record says. `body` is the content of its blob. Raises StoreUnusable, StoreTooNew."""
    header = header_of(record)
    content = record[_HEADER.size :] if body is None else body
    try:
        if header.flags & Flag.DEFLATED:
            content = zlib.decompress(content)
        found: Batch | Epoch | MovedTo = _DECODERS[header.kind](content)
    except (KeyError, zlib.error, msgspec.MsgspecError) as error:
        raise StoreUnusable(f"a record of the log cannot be read: {error}") from error
    return found


def _header(record: bytes) -> Header:
    if len(record) < _HEADER.size or not record.startswith(_MAGIC):
        raise StoreUnusable("the log has a record that perdure did not write")
    return Header(*_HEADER.unpack_from(record))


__all__ = [
    "BEGINNING",
    "FORMAT",
    "Elsewhere",
    "Epoch",
    "Header",
    "Kind",
    "MovedTo",
    "blob_of",
    "content_of",
    "digest_of",
    "header_of",
    "in_blob",
    "packed",
    "packed_batch",
    "record_of",
]
