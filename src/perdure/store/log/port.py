"""The port of a log: what `LogStore` needs of the service that keeps a hub's commits.

A service keeps three things for a hub: a log of records with a head, a small document about the hub, and blobs.
The log's records have positions 0, 1, 2 and so on. The head holds the position of the next record, and the name
of the hub's holder. The fence is a compare-and-swap on the head: `append` changes the head only if nothing has
changed it since this object saw it last, and inserts the record in the same step. So no clock and no lease is part
of the argument. A request that arrives late changes nothing, because the head is another one by then, also after
old records were deleted.

None of the errors here is for users: the store turns them into the errors of its own port. Besides them, any verb
may raise `StoreUnusable` if the service will never accept it (a wrong key, a missing permission, no such account).
A verb that raises it has changed nothing. No verb retries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST: Final = 2_900_000
"""The maximal size of a record in bytes. The body of a larger one is a blob."""


class Moved(Exception):
    """This request has changed nothing, because the head or the document is not as this object saw it last.

    After `append`, an earlier request for the same record may have succeeded: read the record at that position.
    """


class Trimmed(Exception):
    """Records from this position on were deleted: begin with a snapshot."""


class Missing(Exception):
    """There is no blob of this name, or the log was never created."""


class Unknown(Exception):
    """The service did not answer, or answered that it failed or is busy. The request may still succeed, also later.

    `retry_after` is the number of seconds that the service asked the client to wait, 0 if it did not say.
    """

    def __init__(self, what: str, retry_after: float = 0.0) -> None:
        super().__init__(what)
        self.retry_after = retry_after


class Record(NamedTuple):
    content: bytes
    written_at: int  # the service's time in microseconds


class Head(NamedTuple):
    """The end of a log. `age` is how many seconds ago the head changed last, by the clock of the service."""

    end: int  # the position of the next record
    holder: bytes  # as `append` or `touch` left it; empty if no engine holds the hub
    age: float


class Log(Protocol):
    """The records of a hub. For one thread at a time; each engine and each reader has an object of its own.

    The object remembers the head that it saw last: in the answer of `head`, of `append` and of `touch`. After
    `Unknown` it remembers the head from before, so that the same call is the same request again.
    """

    def create(self) -> None:
        """Create the log if it does not exist: empty, with the position 0 and no holder."""

    def head(self) -> Head:
        """The head now. Raises Missing for a log that does not exist, and Unknown."""

    def append(self, at: int, record: bytes, holder: bytes | None = None) -> int:
        """Insert a record at the position `at`, and move the head behind it: both or neither. Returns the new end.

        The record has at most LARGEST bytes. `holder` replaces the head's, None leaves it.
        The head changes only if it is the one that this object saw last, and if its position is `at`; otherwise
        raises Moved. Raises Unknown when it is not certain: the same call again is safe, because at most one of
        the requests can ever succeed. If the earlier one has, the next one raises Moved.
        """

    def touch(self, at: int, holder: bytes) -> None:
        """Write the head again, with this holder, under the same condition as `append`. Raises Moved, Unknown.

        After Unknown the head may have changed: a following Moved means that, or another engine. `head` shows it.
        """

    def read(self, at: int) -> tuple[list[Record], int]:
        """The records from position `at` on, without a gap, at most some thousand, and the log's end.

        The end is as of this call or later: with fewer records than up to the end, read again behind the last.
        It does not change which head this object remembers. Raises Trimmed if records below the end, from `at` on,
        were deleted, together with all before them; StoreUnusable for a gap behind records that are there; Missing;
        Unknown.
        """

    def trim(self, below: int) -> None:
        """Delete the records below this position. The head stays. It may stop in between, and be repeated.

        The lowest ones are deleted first, so that what is left has no gap. Raises Unknown.
        """

    def close(self) -> None:
        """Close the connections."""


class About(Protocol):
    """The document about a hub: at most 60 KiB. From any thread."""

    def read(self) -> tuple[bytes, str] | None:
        """The content with its tag, None if there is none. Raises Unknown."""

    def write(self, content: bytes, tag: str | None) -> str:
        """Replace the content if its tag is this one; with None, create it if there is none. Returns the new tag.

        Raises Moved, and Unknown: read it to find out.
        """


class Blobs(Protocol):
    """The blobs of a hub, by names such as `snapshots/000000000000002a.db.z`. From any thread."""

    def put(self, name: str, content: bytes) -> None:
        """Create or replace a blob; after Unknown, do it again."""

    def get(self, name: str) -> bytes:
        """The content. Raises Missing, Unknown."""

    def names(self, prefix: str) -> list[str]:
        """The names that begin with this, ascending. Raises Unknown."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete blobs; those that do not exist are not an error. Raises Unknown."""


class Service(Protocol):
    """What a storage account keeps for one hub."""

    where: str
    """For people, such as `azure:account/hub`; without secrets."""
    directory: str
    """The name of the replica's directory: the same for the same hub, another for every other. A file name."""

    def log(self) -> Log:
        """A new log object, with connections of its own. It has seen no head yet."""

    def about(self) -> About: ...

    def blobs(self) -> Blobs: ...

    def exists(self) -> bool:
        """Whether the hub was created. Raises Unknown."""

    def close(self) -> None:
        """Close all connections of `about` and `blobs`."""


__all__ = [
    "LARGEST",
    "About",
    "Blobs",
    "Head",
    "Log",
    "Missing",
    "Moved",
    "Record",
    "Service",
    "Trimmed",
    "Unknown",
]
