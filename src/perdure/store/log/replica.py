"""The replica: SQLite's file, made by applying the records of a log in their order.

A table of one row holds the position of the next record, the hash of the last one, and the time of the next expiry.
Each record's rows and this row are one transaction, so two replicas at the same position are equal row by row. The
file may vanish at any time, so it is never synced.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

import apsw

from perdure.errors import StoreError, StoreTooNew, StoreUnusable
from perdure.model.records import Batch
from perdure.model.ring import HEAD, RingRow
from perdure.store.log.records import BEGINNING, Epoch, MovedTo, content_of, digest_of, header_of
from perdure.store.sqlite.commit import Committer
from perdure.store.sqlite.connection import SCHEMA_VERSION, open_writer
from perdure.store.sqlite.lock import read_server_file
from perdure.store.sqlite.statements import query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE: Final = "replica.db"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_TABLE: Final = """create table if not exists log_place (
    one integer primary key check (one = 1), position integer not null, digest blob not null,
    next_expiry integer not null, written integer not null, is_dirty integer not null) strict"""
_READ: Final = "select position, digest, next_expiry, written, is_dirty from log_place"
_WRITE: Final = "insert or replace into log_place values (1, ?, ?, ?, ?, ?)"


def boot_id() -> str:
    """Names this boot of the machine; on a system without such a name, this call."""
    with suppress(OSError):
        return _BOOT.read_text().strip()
    return os.urandom(16).hex()


def prepare_folder(folder: str) -> None:
    """Create the folder of this boot, and delete those of earlier boots: no engine trusts their replicas."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    hub = Path(folder).parent
    for other in hub.iterdir():
        if other.name != Path(folder).name and read_server_file(str(other / FILE)) is None:
            shutil.rmtree(other, ignore_errors=True)


class Place(NamedTuple):
    """Where a replica is in its log."""

    position: int = 0  # of the next record
    digest: bytes = BEGINNING  # of the record before it
    next_expiry: int = 0
    written: int = 0  # bytes of all records before it
    is_dirty: int = 0  # rows were changed outside of batches, and no snapshot has them yet

    def after(self, record: bytes, next_expiry: int) -> Place:
        """The place behind this record."""
        return Place(self.position + 1, digest_of(record), next_expiry, self.written + len(record))


def read_place(execute: Callable[..., Any]) -> Place:
    """The place of a replica, or of a copy of one."""
    found = execute(_READ).fetchall()
    return Place(*found[0]) if found else Place()


class Replica:
    """A replica's connection for writing. Bound to the loop's thread."""

    def __init__(self, path: str, hub: str) -> None:
        self.path, self.hub = path, hub
        self.writer = open_writer(path)
        self._committer: Committer | None = None
        try:
            self.writer.pragma("synchronous", "off")
            self.writer.execute(_TABLE)
            self.execute: Callable[..., Any] = self.writer.cursor().execute
            self.place = self._read_place()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.writer.close(force=True)

    def _read_place(self) -> Place:
        return read_place(self.execute)

    # ------------------------------------------------------------------------------------------ applying

    def apply(self, records: list[tuple[bytes, bytes | None]]) -> MovedTo | None:
        """Apply records with the contents of their blobs, in one transaction.

        It ends after a record that says to move to a snapshot, and returns what it says.
        """
        with self.changing():
            for record, body in records:
                if header_of(record).before != self.place.digest:
                    raise StoreUnusable(
                        f"record {self.place.position} of the log does not follow the record before it: the log "
                        "was changed by another program"
                    )
                content = content_of(record, body)
                match content:
                    case Batch():
                        self._apply_batch(content)
                    case Epoch():
                        self._apply_epoch(content)
                    case MovedTo():
                        return content
                    case _:
                        assert_never(content)
                self.advance(record)
        return None

    def _apply_batch(self, batch: Batch) -> None:
        committer = self._committer or self.committer()
        try:
            committer.write(batch)
        except (StoreError, apsw.ConstraintError) as error:
            raise StoreUnusable(
                f"{self.path} does not agree with record {self.place.position} of its log ({error}): delete the "
                "file, and the next start reads the log again"
            ) from error

    def _apply_epoch(self, epoch: Epoch) -> None:
        """Change what the engine changed when it opened the hub, in the same way."""
        hub_no = self.take_hub()
        known = self._keys(hub_no)
        for key_id, proof in epoch.keys:
            if (key_id, proof) not in known:
                self.execute(query("add_encryption_key"), (hub_no, key_id, proof))
        if self._heads(hub_no) != epoch.heads:
            self.execute("delete from ring where hub_no = ? and resolution = ?", (hub_no, HEAD))
            for head in epoch.heads:
                self.execute(query("add_head"), (hub_no, *head))
        self._committer = None  # it remembers the head of the engine before

    def advance(self, record: bytes) -> None:
        """The record is the last one that this replica has. Inside the transaction of its rows."""
        expiry = self._committer.next_expiry if self._committer is not None else self.place.next_expiry
        self.put_place(self.place.after(record, expiry))

    def put_place(self, place: Place) -> None:
        self.execute(_WRITE, place)
        self.place = place

    # ------------------------------------------------------------------------------------------- opening

    def take_hub(self) -> int:
        """The hub's number; a new hub gets one."""
        found = self.execute(query("hub_no"), (self.hub,)).fetchall()
        if not found:
            found = self.execute(query("add_hub"), (self.hub,)).fetchall()
        return int(found[0][0])

    def epoch(self, hub_no: int, worker: str, host: str) -> Epoch:
        """The epoch of an engine whose changes at opening are in this transaction."""
        return Epoch(self.hub, worker, host, self._keys(hub_no), self._heads(hub_no))

    def _keys(self, hub_no: int) -> list[tuple[str, bytes]]:
        return sorted(self.execute(query("encryption_proofs"), (hub_no,)).fetchall())

    def _heads(self, hub_no: int) -> list[RingRow]:
        columns = ", ".join(RingRow._fields)
        sql = f"select {columns} from ring where hub_no = ? and resolution = ? order by worker"
        return list(map(RingRow._make, self.execute(sql, (hub_no, HEAD)).fetchall()))

    def committer(self) -> Committer:
        """A committer that goes on from here."""
        self._committer = Committer(self.writer, self.take_hub())
        self._committer.next_expiry = self.place.next_expiry
        return self._committer

    @contextmanager
    def changing(self) -> Iterator[None]:
        """A transaction. After an error, the replica is as before."""
        before = self.place
        self.execute("begin immediate")
        try:
            yield
            self.execute("commit")
        except BaseException:
            self.restore(before)
            raise

    def restore(self, before: Place) -> None:
        """Roll back, also what is remembered in memory."""
        if self.writer.in_transaction:
            self.execute("rollback")
        self.place = before
        self._committer = None

    def replace(self, source: str, place: Place) -> None:
        """Take the content of a snapshot's file, which is at this place. Readers see the one or the other."""
        flags = apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(source, flags=flags)) as reader:
            if reader.pragma("user_version") > SCHEMA_VERSION:
                raise StoreTooNew(
                    "the newest snapshot of the hub was made by a newer version of perdure: install that version, "
                    "or a newer one"
                )
            with self.writer.backup("main", reader, "main") as backup:
                backup.step(-1)
        self._committer = None
        self.writer.execute(_TABLE)
        with self.changing():
            self.put_place(place._replace(next_expiry=self._read_place().next_expiry))

    def forget_log(self) -> None:
        """Make this a file of its own, without a log."""
        self.writer.execute("drop table log_place")
        self.writer.pragma("journal_mode", "delete")


def empty_file(path: str) -> None:
    """A file with the tables and no rows."""
    with closing(open_writer(path)) as writer:
        writer.execute(_TABLE)
        writer.pragma("journal_mode", "delete")


__all__ = ["FILE", "Place", "Replica", "boot_id", "empty_file", "prepare_folder", "read_place"]
