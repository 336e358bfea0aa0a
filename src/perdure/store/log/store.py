"""A hub in a log: the store in SQLite as a prepared replica, and a shared log as the commit.

A commit writes its rows to the replica, appends the batch to the log, and then ends the transaction of the replica,
which is never synced. The batch is durable once the log has its record; see `appending.py` for the case without an
answer. Opening appends the record of an epoch: from then on, the log accepts nothing from an engine before it,
whenever that arrives. The lease only says when another engine may do this, so that two engines do not take a hub
from each other again and again.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec

from perdure.errors import StoreError
from perdure.store.log.appending import Appender, Patience
from perdure.store.log.catching_up import CatchUp
from perdure.store.log.copying import write_copy
from perdure.store.log.holding import LEASE, Holder, await_end, demand_free
from perdure.store.log.port import LARGEST, Missing, Moved, Trimmed
from perdure.store.log.records import Kind, MovedTo, in_blob, packed, packed_batch, record_of
from perdure.store.log.replica import FILE, Place, Replica, boot_id, prepare_folder
from perdure.store.log.snapshots import BODIES, Shelf, blob_name
from perdure.store.log.walking import walk
from perdure.store.port import Opening
from perdure.store.sqlite import encrypting
from perdure.store.sqlite.connection import open_reader
from perdure.store.sqlite.errors import translated, translating
from perdure.store.sqlite.ring import take_ring
from perdure.store.sqlite.statements import query
from perdure.store.sqlite.store import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perdure.model.encryption import Cipher
    from perdure.model.records import Batch
    from perdure.store.log.port import Head, Service
    from perdure.store.log.snapshots import Copy, Listed
    from perdure.store.port import Walked
    from perdure.store.rekeying import Rekeyed

_SNAPSHOT_ABOVE: Final = 64 * 1024 * 1024  # bytes of records
_SNAPSHOT_AFTER: Final = 3_600_000_000  # microseconds, if anything has changed

log = logging.getLogger("perdure.store")


class Terms(msgspec.Struct, frozen=True):
    """How an engine holds a hub."""

    worker: str = ""
    lease: float = LEASE  # seconds without a sign of life until another engine may take over
    standby: bool = False  # wait for as long as another engine holds the hub
    keep_log: float = 0.0  # seconds: the hub can be restored to each moment since then
    snapshot_above: int = _SNAPSHOT_ABOVE


_TERMS: Final = Terms()


def on_a_thread(work: Callable[[], None]) -> threading.Thread:
    """Do it beside the upkeep, which renews the lease: a large snapshot takes longer than that."""

    def done() -> None:
        try:
            work()
        except StoreError as error:
            log.warning("a snapshot could not be made; it is tried again: %s", error)

    thread = threading.Thread(target=done, name="perdure-snapshot", daemon=True)
    thread.start()
    return thread


def at_once(work: Callable[[], None]) -> None:
    """Do it here: for tests and simulations."""
    work()


class LogStore(SqliteStore):
    """A hub in a log. `directory` is where replicas are; each hub and each boot of the machine has its own.

    `patience` (with its clock), `boot` and `aside` are the machine's, unless a test gives others.
    """

    def __init__(
        self,
        service: Service,
        hub: str,
        cipher: Cipher | None = None,
        *,
        directory: str,
        terms: Terms = _TERMS,
        patience: Patience | None = None,
        boot: str = "",
        aside: Callable[[Callable[[], None]], threading.Thread | None] = on_a_thread,
    ) -> None:
        self._boot = boot or boot_id()
        folder = os.path.join(directory, service.directory, self._boot)
        super().__init__(os.path.join(folder, FILE), hub, cipher)
        self._service, self._terms = service, terms
        self._patience = patience or Patience(terms.lease)
        self._shelf = Shelf(service, hub, self._patience)
        self._appender = Appender(service.log(), service.where, self._patience)
        self._holder = Holder(
            os.urandom(16).hex(),
            terms.worker,
            socket.gethostname(),
            "",
            terms.lease,
            f"{self._boot}:{self.location}",
        )
        self._aside = aside
        self._saving: threading.Thread | None = None
        self._copies: list[tempfile.TemporaryDirectory[str]] = []
        self._replica: Replica | None = None
        self._incarnation = 0
        self._before: Place = Place()
        self._listed: Listed | None = None  # the newest snapshot
        self._saved_at = 0  # its time, or that of the first upkeep, in microseconds
        self._has_opened = False

    # ------------------------------------------------------------------------------------ open and close

    def open(self) -> Opening:
        if self.server_file is None:
            prepare_folder(os.path.dirname(self.location))
        return super().open()

    def _connect(self) -> Opening:
        replica = Replica(self.location, self.hub)
        try:
            with translating(self.location):
                opening = self._join(replica)
        except BaseException:
            replica.close()
            raise
        self._replica, self._has_opened = replica, True
        self._committer = replica.committer()
        self._shorten_log()
        return opening

    def _join(self, replica: Replica) -> Opening:
        self._appender.position = -1  # this engine holds nothing until its epoch is in the log
        catching_up = CatchUp(replica, self._appender.log, self._shelf, self._patience)
        head = self._first_head()
        catching_up.check()
        self._listed = self._shelf.newest()
        while True:
            if not self._has_opened:  # at a start, find out whether the holder is alive
                follow = catching_up.run if self._terms.standby else None
                head = await_end(head, self._holder, self._appender, follow=follow)
            demand_free(head, self._holder, self._service.where)
            catching_up.run()
            try:
                return self._take(replica)
            except Moved:
                head = self._appender.head()

    def _first_head(self) -> Head:
        try:
            return self._appender.head()
        except Missing:
            self._shelf.create()
            self._patience.asked(self._appender.log.create, self._service.where)
            return self._appender.head()

    def _take(self, replica: Replica) -> Opening:
        """Append the epoch, with what opening changes. Raises Moved."""
        place, execute = replica.place, replica.execute
        with replica.changing():
            hub_no = replica.take_hub()
            vault = encrypting.take_vault(execute, hub_no, self.hub, self._cipher, self.location)
            ring = take_ring(execute, hub_no)
            epoch = replica.epoch(hub_no, self._holder.worker, self._holder.host)
            record = record_of(Kind.EPOCH, place.position, place.digest, packed(epoch))
            self._appender.begin(place.position, record, msgspec.json.encode(self._holder))
            replica.advance(record)
            [numbers] = execute(query("next_numbers")).fetchall()
        self._incarnation, self._before = place.position, replica.place
        self._use(replica.writer, execute, hub_no, vault)
        next_instance_no, next_message_no = numbers
        return Opening(next_instance_no, next_message_no, ring=ring)

    def close(self) -> None:
        if not self._process.is_another():
            if self._saving is not None:
                self._saving.join()
            self._appender.leave()
        super().close()
        self._service.close()

    def _drop_connection(self, why: str) -> None:
        super()._drop_connection(why)
        self._replica = None

    # ------------------------------------------------------------------------------------------- reading

    def _connection(self) -> apsw.Connection:
        """For a command that only reads: of a copy of its own, which disturbs no engine."""
        if self._has_opened or self.server_file is not None:
            return super()._connection()
        found: apsw.Connection | None = self._local.__dict__.get("connection")
        if found is None:
            self._copies.append(tempfile.TemporaryDirectory(prefix="perdure-"))
            path = os.path.join(self._copies[-1].name, "copy.db")
            write_copy(self._service, self.hub, path, patience=self._patience)
            found = self._local.connection = open_reader(path)
            self._connections.add(found)
        return found

    def walk(self) -> Walked:
        return walk(self._service, self.hub, self._patience)

    def close_reader(self) -> None:
        super().close_reader()
        while self._copies:
            self._copies.pop().cleanup()
            self._service.close()

    def publish(self, address: str, token: str) -> None:
        super().publish(address, token)
        self._holder = msgspec.structs.replace(self._holder, address=address)
        self._appender.due()

    # -------------------------------------------------------------------------------------------- commit

    def _conclude(self, batch: Batch) -> None:
        replica = self._replica
        assert replica is not None
        record = self._record(replica, batch)
        self._appender.append(self._before.position, record)
        try:
            replica.advance(record)
            self._execute("commit")
        except apsw.Error as error:  # the batch is durable: do not let it count as rolled back
            raise StoreError(
                f"{self.location} failed after the log had the commit: {translated(error, self.location)}"
            ) from error
        self._before = replica.place

    def _record(self, replica: Replica, batch: Batch) -> bytes:
        record = record_of(Kind.BATCH, self._incarnation, self._before.digest, packed_batch(batch))
        if len(record) <= LARGEST:
            return record
        blob = blob_name(BODIES, self._before.position, f"-{os.urandom(16).hex()}")
        record, content = in_blob(record, blob)
        self._patience.asked(lambda: self._shelf.blobs.put(blob, content), self._service.where)
        return record

    def _roll_back(self) -> None:
        super()._roll_back()
        if self._replica is not None and self._committer is not None:
            self._replica.place = self._before
            self._committer.next_expiry = self._before.next_expiry

    # --------------------------------------------------------------------------------------- maintenance

    def maintain(self, now: int) -> None:
        """Checkpoint the replica, renew the lease, and make a snapshot when it is time."""
        super().maintain(now)
        if self._writer is None:
            return
        self._appender.renew(msgspec.json.encode(self._holder), self._holder.lease / 3)
        if self._is_time(now) and (self._saving is None or not self._saving.is_alive()):
            self._saving = self._aside(self.save)

    def _is_time(self, now: int) -> bool:
        listed = self._listed
        if self._saved_at == 0:
            self._saved_at = listed.at if listed is not None else now
        unsaved = self._before.written - (listed.written if listed is not None else 0)
        size = listed.size if listed is not None else 0
        return unsaved > max(self._terms.snapshot_above, size // 2) or (
            self._before.position - (listed.position if listed is not None else 0) > 1
            and now - self._saved_at >= _SNAPSHOT_AFTER
        )

    def save(self) -> None:
        """Make a snapshot, and delete what no reader needs any more. From any thread."""
        copy = self._shelf.put(self.location)
        if not copy.place.is_dirty:
            self._list(copy, copy.place, alone=False)

    def _list(self, copy: Copy, place: Place, *, alone: bool) -> None:
        with closing(self._service.log()) as reader:
            try:
                [record, *_], _ = self._patience.asked(
                    lambda: reader.read(place.position - 1), self._service.where
                )
            except Trimmed:
                return  # another engine has made newer ones
            listed = copy.listed(record.written_at, place)
            kept_since = listed.at - round(self._terms.keep_log * 1e6)
            below = self._shelf.list(listed, kept_since=kept_since, alone=alone)
            if below is not None:
                self._listed, self._saved_at = listed, listed.at
                self._shelf.clear(reader, below)

    # ------------------------------------------------------------------------------------------- moving

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """Changes outside of batches: until a snapshot has them, this replica counts for nothing."""
        with super()._writing() as execute:
            assert self._replica is not None
            self._replica.put_place(self._before._replace(is_dirty=1))
            yield execute

    def finish_import(self) -> None:
        self._name_import()
        self._move(alone=False)
        self.reopen()

    def rekey(self, progress: Callable[[str, int, int], object] = lambda *_: None) -> Rekeyed:
        done = super().rekey(progress)
        self._move(alone=True)
        return done

    def vacuum(self) -> None:
        super().vacuum()
        with self._writing():
            pass
        self._move(alone=True)

    def _move(self, *, alone: bool) -> None:
        """Make the rows of this replica those of the hub. With `alone`, nothing from before stays readable."""
        replica = self._replica
        assert replica is not None
        copy = self._shelf.put(self.location)
        content = packed(MovedTo(copy.blob, copy.content))
        record = record_of(Kind.SNAPSHOT, self._incarnation, self._before.digest, content)
        self._appender.append(self._before.position, record)
        place = self._before.after(record, self._before.next_expiry)
        with replica.changing():
            replica.put_place(place)
        self._before = place
        self._list(copy, place, alone=alone)


__all__ = ["LEASE", "LogStore", "Terms", "at_once"]
