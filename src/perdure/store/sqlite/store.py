"""The SQLite store: the engine's half of the port, and maintenance. The clients' half is `reader.py`.

One connection writes and belongs to the loop's thread. It survives errors that are certainly rolled back (a
rejected value, a full disk, a lost fence). After any other error the state of the file is unknown: the
connection is never used again, and every verb raises until `reopen` has opened a new one. The lock on the side
file is held throughout, so that no other engine opens the file in between. A forked child has the parent's
connection in its memory and must not touch it: verbs compare process ids.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

import apsw

from perdure.errors import CommitRefused, FenceLost, StoreError, StoreFull, StoreUnusable
from perdure.model.damaged import UNNAMED, Garbled, instances_of, seen_of
from perdure.model.records import InboxRow, InstanceRow, Poll, SeenRow, StoredInstance
from perdure.store.column_encryption import demand_readable, opened
from perdure.store.port import Opening
from perdure.store.rekeying import readable_messages
from perdure.store.sqlite import encrypting, open_guard
from perdure.store.sqlite import transfer as moving
from perdure.store.sqlite.commit import Committer
from perdure.store.sqlite.connection import check_library, check_place, open_maintenance, open_writer
from perdure.store.sqlite.errors import FOR_ITS_DATA, translated, translating
from perdure.store.sqlite.files import create, demand_one_place, demand_own_folder, keep_from_others
from perdure.store.sqlite.invalid_text import reading
from perdure.store.sqlite.lock import FileLock, ServerFile
from perdure.store.sqlite.reader import SqliteReader, read_bodies, read_histories, read_instances, read_states
from perdure.store.sqlite.ring import take_ring
from perdure.store.sqlite.statements import query, query_many
from perdure.store.sqlite.wal import length, prolong, tidy
from perdure.store.transfer import UNFINISHED, demand_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perdure.model.encryption import Cipher
    from perdure.model.records import Batch
    from perdure.model.ring import RingRow
    from perdure.store.column_encryption import Vault
    from perdure.store.rekeying import Rekeyed
    from perdure.store.transfer import Key, Row

_ROLLED_BACK: Final = (*FOR_ITS_DATA, apsw.FullError, CommitRefused, FenceLost)


class SqliteStore(SqliteReader):
    """A hub in a SQLite file. `publish` and `server_file` show the CLI the engine that serves it."""

    def __init__(
        self, path: str, hub: str, cipher: Cipher | None = None, *, refuse_open_files: bool = False
    ) -> None:
        """`refuse_open_files`: do not open a file that other users may read, instead of changing its mode."""
        super().__init__(os.fspath(path), hub, cipher)
        self.server_file: ServerFile | None = None
        self._file_lock: FileLock | None = None
        self._refuse_open_files = refuse_open_files
        self._writer: apsw.Connection | None = None
        self._committer: Committer | None = None
        self._execute: Any = self._refuse
        self._why_not = "it is not open"
        self._importing = 0
        self._told: set[int] = set()  # unreadable messages that were logged

    # ------------------------------------------------------------------------------------ open and close

    def open(self) -> Opening:
        """Open the hub. If it is already open, this is the same as `reopen`."""
        self._process.check(self.location)
        if self.server_file is not None:
            return self.reopen()
        check_library()
        check_place(self.location)
        demand_own_folder(self.location)
        keep_from_others(self.location, refuse=self._refuse_open_files)
        self.server_file = ServerFile.acquire(self.location, self.hub)
        try:
            create(self.location)
            self._file_lock = FileLock.acquire(self.location)
            demand_one_place(self.location)
            return self._connect()
        except BaseException:
            open_guard.unprotect(self.location)
            self._release_lock()
            raise

    def reopen(self) -> Opening:
        if self.server_file is None:
            return self.open()
        self._process.check(self.location)
        self._drop_connection("it is being opened again")
        return self._connect()

    def close(self) -> None:
        if self._process.is_another():
            return  # the parent's connection
        self._keeps_connections = False
        self._close_readers()
        self._drop_connection("it is closed")
        open_guard.unprotect(self.location)
        self._release_lock()
        self._process.forget()

    def publish(self, address: str, token: str) -> None:
        """Publish the engine's HTTP address for the CLI."""
        if self.server_file is None:
            raise StoreUnusable(f"{self.location}: {self._why_not}")
        self.server_file.publish(address, token)

    def _connect(self) -> Opening:
        writer = open_writer(self.location)
        with translating(self.location):
            try:
                execute: Any = writer.cursor().execute
                hub_no = self._take_hub(execute, length(writer))
                vault = encrypting.take_vault(execute, hub_no, self.hub, self._cipher, self.location)
                ring = self._take_ring(execute, hub_no)
                [numbers] = execute(query("next_numbers")).fetchall()
            except BaseException:
                writer.close(force=True)
                raise
        self._use(writer, execute, hub_no, vault)
        self._committer = Committer(writer, hub_no)
        self._shorten_log()
        next_instance_no, next_message_no = numbers
        return Opening(next_instance_no, next_message_no, ring=ring)

    def _use(self, writer: apsw.Connection, execute: Any, hub_no: int, vault: Vault | None) -> None:
        open_guard.protect(self.location)
        self._writer, self._execute = writer, execute
        self._hub_no, self._vault = hub_no, vault
        self._keeps_connections = True

    def _shorten_log(self) -> None:
        """Checkpoint the log at the start: processes killed before their first upkeep would only add to it."""
        try:
            with suppress(StoreFull):  # the first commit without space reports it; nothing is lost
                self._checkpoint()
        except BaseException:
            self._drop_connection("the write-ahead log could not be checkpointed")
            raise

    def _take_hub(self, execute: Any, used: int) -> int:
        """The hub's number, assigned to a new hub. The transaction also keeps others from the log."""
        execute("begin immediate")
        prolong(self.location, used)
        found = execute(query("hub_no"), (self.hub,)).fetchall()
        if not found:
            found = execute(query("add_hub"), (self.hub,)).fetchall()
        execute("commit")
        return int(found[0][0])

    def _take_ring(self, execute: Any, hub_no: int) -> tuple[RingRow, ...]:
        execute("begin immediate")
        ring = take_ring(execute, hub_no)
        execute("commit")
        return ring

    def _drop_connection(self, why: str) -> None:
        writer, self._writer, self._committer, self._why_not = self._writer, None, None, why
        self._execute = self._refuse
        if writer is not None:
            writer.close(force=True)

    def _release_lock(self) -> None:
        locked, self._file_lock = self._file_lock, None
        if locked is not None:
            locked.release()
        held, self.server_file = self.server_file, None
        if held is not None:
            held.release()

    def _refuse(self, *_: object) -> NoReturn:
        raise StoreError(f"{self.location} cannot be used: {self._why_not}")

    # -------------------------------------------------------------------------------------------- commit

    def commit(self, batch: Batch) -> None:
        self._process.check(self.location)
        committer = self._committer
        if committer is None:
            self._refuse()
        if self._vault is not None:
            batch = self._vault.sealed(batch)
        try:
            self._execute("begin immediate")
            committer.write(batch)
            self._conclude(batch)
        except _ROLLED_BACK as error:
            self._roll_back()
            if isinstance(error, StoreError):
                raise
            raise translated(error, self.location, committer.stage) from error
        except apsw.Error as error:
            self._drop_connection(f"a commit ended with {type(error).__name__}; it must be opened again")
            raise translated(error, self.location) from error
        except BaseException:
            self._drop_connection("a commit was interrupted; it must be opened again")
            raise

    def _conclude(self, batch: Batch) -> None:
        """Make the transaction of a batch durable."""
        self._execute("commit")

    def _roll_back(self) -> None:
        writer = self._writer
        if writer is None or not writer.in_transaction:
            return
        try:
            writer.execute("rollback")
        except apsw.Error as error:
            self._drop_connection("a rollback failed; it must be opened again")
            raise translated(error, self.location) from error

    # --------------------------------------------------------------------------------------------- reads

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        wanted = list(dict.fromkeys(instance_ids))
        with self._reading() as execute:
            rows = read_instances(execute, self._hub_no, wanted, self._vault)
            running = [row for row in rows if row.completed_at is None and row.kind != "entity"]
            entities = [row.instance_no for row in rows if row.kind == "entity"]
            states = read_states(execute, "entity_state", entities, self._vault) if entities else {}
            demand_readable(states.items())  # work on an empty state would overwrite it
            histories = read_histories(execute, running, self._vault)
            bodies = read_bodies(execute, running, self._vault)
            messages = query_many("held_messages").values(execute, wanted, before=(self._hub_no,))
        held: dict[str, list[InboxRow]] = {}
        for message in sorted(self._messages(messages)):
            held.setdefault(message.instance_id, []).append(message)
        return [
            StoredInstance(
                row,
                histories.get(row.instance_no, []),
                bodies.get(row.instance_no, {}),
                held.get(row.instance_id, []),
                entity_state=states.get(row.instance_no),
            )
            for row in rows
        ]

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        wanted = list(dict.fromkeys(operation_ids))
        with self._reading() as execute:
            rows = query_many("seen").values(execute, wanted, before=(self._hub_no,))
        return sorted(map(seen_of, opened(self._vault, "seen", rows)))

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        with self._reading() as execute:
            messages = execute(query("visible_messages"), (self._hub_no, now, limit)).fetchall()
            due = execute(query("due_instances"), (self._hub_no, horizon, limit)).fetchall()
            [(next_visible_at,)] = execute(query("next_visible_at"), (self._hub_no, now)).fetchall()
        return Poll(
            self._messages(messages), due, next_visible_at if isinstance(next_visible_at, int) else None
        )

    def _messages(self, rows: list[Any]) -> list[InboxRow]:
        if self._vault is not None:
            rows = readable_messages(self._vault.open("inbox", rows), self._told)
        return list(map(InboxRow._make, rows))

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        with self._reading() as execute:
            return _named(execute(query("local_work"), (self._hub_no, after_no, limit)).fetchall())

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        with self._reading() as execute:
            return _named(execute(query("parked"), (self._hub_no, after_no, limit)).fetchall())

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        with self._reading() as execute:
            return read_instances(execute, self._hub_no, list(dict.fromkeys(instance_ids)), self._vault)

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        with self._reading() as execute:
            found = execute(query("finished"), (self._hub_no, status, before, *after, limit)).fetchall()
        return instances_of(opened(self._vault, "instances", found))

    def _reading(self) -> _Reading:
        self._process.check(self.location)
        return _Reading(self)

    # ------------------------------------------------------------------------------------------- moving

    def sizes(self) -> dict[str, int]:
        with self._reading() as execute:
            return moving.sizes(execute, self._hub_no)

    def export(self, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
        with self._reading() as execute:
            rows, after = moving.export(execute, self._hub_no, table, after, limit)
        rows = opened(self._vault, table, rows)
        demand_readable(rows)
        return rows, after

    def begin_import(self) -> Opening:
        demand_empty(self.sizes(), f"the hub {self.hub!r} of {self.location}")
        name = self.hub + UNFINISHED
        with self._writing() as execute:
            for (left,) in execute(query("hub_no"), (name,)).fetchall():
                moving.clear(execute, left)
            [(self._importing,)] = execute(query("add_hub"), (name,)).fetchall()
            [numbers] = execute(query("next_numbers")).fetchall()
        return Opening(*numbers)

    def import_rows(self, table: str, rows: Sequence[Row]) -> None:
        if self._vault is not None:
            rows = self._vault.seal(table, rows)
        with self._writing() as execute:
            moving.insert(execute, self._importing, table, rows)
        self._checkpoint()

    def finish_import(self) -> None:
        self._name_import()
        self.reopen()

    def _name_import(self) -> None:
        with self._writing() as execute:
            execute("update encryption set hub_no = ? where hub_no = ?", (self._importing, self._hub_no))
            execute("delete from hubs where hub_no = ?", (self._hub_no,))
            execute("update hubs set name = ? where hub_no = ?", (self.hub, self._importing))

    # ---------------------------------------------------------------------------------------- encrypting

    def rekey(self, progress: Callable[[str, int, int], object] = lambda *_: None) -> Rekeyed:
        """Encrypt with the current key all plain rows and those of other keys, one page per transaction."""
        if self._vault is None:
            raise StoreUnusable(f"{self.location} has no encryption key: set PERDURE_ENCRYPTION_KEYS")
        return encrypting.SqliteRekeying(self._vault, self._hub_no, self._writing, self._checkpoint).run(
            progress
        )

    def vacuum(self) -> None:
        """Rewrite the whole file, so that no deleted or replaced content remains in it."""
        with self._reading() as execute:
            execute("pragma temp_store = file")
            execute("vacuum")
        self._checkpoint()

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """A transaction outside the loop's hot path; any failure ends the connection."""
        with self._reading() as execute:
            execute("begin immediate")
            try:
                yield execute
                execute("commit")
            except BaseException:
                self._drop_connection("an import failed; it must be opened again")
                raise

    # --------------------------------------------------------------------------------------- maintenance

    def maintain(self, now: int) -> None:
        """Checkpoint the log, on any thread; a busy database raises nothing.

        Expiry is not done here: a second writer would block the loop. See `Committer.write`.
        """
        self._checkpoint()

    def _checkpoint(self) -> None:
        self._process.check(self.location)
        if self._writer is None:
            return
        with translating(self.location):
            connection = open_maintenance(self.location)
            try:
                tidy(connection)
            finally:
                connection.close(force=True)


def _named(rows: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The rows with substitute ids for unreadable ones."""
    return [(no, f"{UNNAMED}{no}" if isinstance(name, Garbled) else name) for no, name in rows]


class _Reading:
    """One read on the loop's connection: an error of SQLite ends the connection."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def __enter__(self) -> Any:
        return reading(self._store._execute)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, apsw.Error):
            self._store._drop_connection(f"a read ended with {type(error).__name__}; it must be opened again")
            raise translated(error, self._store.location) from error
