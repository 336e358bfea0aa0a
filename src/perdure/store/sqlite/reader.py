"""The clients' half of the port: queries from any thread, answered from committed state.

Each thread has a read-only connection of its own, so no thread waits for the loop or for another. Read
transactions are short: a long one would keep the log from being emptied. No engine is needed: an instance of
this class alone reads a file that is not served. After a fork SQLite's view of the locks is wrong in the child,
so the child is rejected.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import apsw

from perdure.model.damaged import (
    audit_of,
    body_of,
    dropped_of,
    end_of,
    history_of,
    instance_of,
    instances_of,
    key_of,
    number_of,
    seen_of,
    wait_of,
)
from perdure.model.records import (
    AuditRow,
    DroppedRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    KeyRow,
    SeenRow,
    StoredInstance,
    TaskFilter,
    TaskRow,
    WaitRow,
)
from perdure.model.ring import RingRow
from perdure.store.column_encryption import opened
from perdure.store.port import Gauges, History, wants_history
from perdure.store.reading import OneProcess, flaws_of, with_bodies
from perdure.store.sqlite import encrypting
from perdure.store.sqlite import transfer as moving
from perdure.store.sqlite.connection import RING_SINCE, open_reader
from perdure.store.sqlite.errors import translated
from perdure.store.sqlite.files import size_of
from perdure.store.sqlite.invalid_text import reading
from perdure.store.sqlite.query import build, build_count, build_tasks
from perdure.store.sqlite.ring import status_counts
from perdure.store.sqlite.statements import query, query_many
from perdure.store.task_query import tasks_of
from perdure.store.transfer import strayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perdure.model.encryption import Cipher
    from perdure.model.records import AuditFilter, InstanceFilter
    from perdure.store.column_encryption import Vault

    Execute = Callable[..., Any]

_NO_HUB: Final = -1
_TASKS_SINCE: Final = 7  # the version of the schema


class SqliteReader:
    """Reads one hub of one file; with `cipher`, encrypted content too."""

    def __init__(self, path: str, hub: str, cipher: Cipher | None = None) -> None:
        self.location = os.path.realpath(path)  # stays valid when the working directory changes
        self.hub = hub
        self._hub_no = _NO_HUB
        self._cipher = cipher
        self._vault: Vault | None = None  # of a hub with encryption
        self._process = OneProcess()
        self._local = threading.local()
        self._connections: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._keeps_connections = (
            True  # for the next read; not after the engine's end, when nothing closes them
        )

    def get(self, instance_id: str, *, history: History = False) -> StoredInstance | None:
        with self._snapshot() as execute:
            rows = read_instances(execute, self._hub_no, [instance_id], self._vault)
            if not rows:
                return None
            whole = wants_history(history, rows[0])
            found = _with_history(execute, rows[0], self._vault) if whole else StoredInstance(rows[0])
            number = [rows[0].instance_no]
            found.waits = _read_waits(execute, number, self._vault)
            found.custom_status = read_states(execute, "custom_status", number, self._vault).get(number[0])
            if rows[0].kind == "entity":
                found.entity_state = read_states(execute, "entity_state", number, self._vault).get(number[0])
        return found

    def ends(self, rows: Sequence[InstanceRow]) -> dict[int, list[bytes]]:
        found: dict[int, list[HistoryRow]] = {row.instance_no: [] for row in rows}
        with self._snapshot() as execute:
            ends = query_many("ends_of_executions").pairs(execute, _executions_of(rows))
            for row in sorted(map(history_of, opened(self._vault, "history", ends)), key=_place):
                found[row.instance_no].append(row)
            bodies = _bodies_of(execute, [row for ends in found.values() for row in ends], self._vault)
        return {
            row.instance_no: [
                with_bodies(end_of(row, end), bodies.get(end[:3], {}), row.salt)
                for end in found[row.instance_no]
            ]
            for row in rows
        }

    def query(self, wanted: InstanceFilter) -> list[InstanceRow]:
        with self._snapshot() as execute:
            sql, values = build(wanted, self._hub_no)
            found = opened(self._vault, "instances", execute(sql, values).fetchall())
        return instances_of(found)

    def count(self, wanted: InstanceFilter) -> int:
        with self._snapshot() as execute:
            [(found,)] = execute(*build_count(wanted, self._hub_no)).fetchall()
            return int(found)

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        with self._snapshot() as execute:
            return _read_waits(execute, list(dict.fromkeys(instance_nos)), self._vault)

    def tasks(self, wanted: TaskFilter) -> list[TaskRow]:
        with self._snapshot() as execute:
            if _version(execute) < _TASKS_SINCE:
                return []
            sql, values = build_tasks(wanted, self._hub_no)
            return tasks_of(execute(sql, values).fetchall(), self._vault)

    def custom_status(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        with self._snapshot() as execute:
            return read_states(execute, "custom_status", list(dict.fromkeys(instance_nos)), self._vault)

    def entity_states(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        with self._snapshot() as execute:
            return read_states(execute, "entity_state", list(dict.fromkeys(instance_nos)), self._vault)

    def held(self, instance_ids: Sequence[str]) -> list[InboxRow]:
        with self._snapshot() as execute:
            wanted = list(dict.fromkeys(instance_ids))
            rows = query_many("held_messages").values(execute, wanted, before=(self._hub_no,))
            return sorted(map(InboxRow._make, opened(self._vault, "inbox", rows)))

    def counts(self) -> dict[str, int]:
        with self._snapshot() as execute:
            return status_counts(execute, self._hub_no)

    def ring(self, resolution: int) -> list[RingRow] | None:
        with self._snapshot() as execute:
            if _version(execute) < RING_SINCE:
                return None
            rows = execute(query("ring"), (self._hub_no, resolution)).fetchall()
        return list(map(RingRow._make, rows))

    def gauges(self) -> Gauges:
        with self._snapshot() as execute:
            oldest = dict(execute(query("oldest_unfinished"), (self._hub_no,)).fetchall())
            waits = dict(execute(query("waits_by_event"), (self._hub_no,)).fetchall())
        return Gauges(oldest, waits, size_of(self.location))

    def dropped(self, instance_id: str | None, limit: int) -> list[DroppedRow]:
        with self._snapshot() as execute:
            if instance_id is None:
                rows = execute(query("dropped_all"), (self._hub_no, limit)).fetchall()
            else:
                rows = execute(query("dropped_of"), (self._hub_no, instance_id, limit)).fetchall()
        return list(map(dropped_of, opened(self._vault, "dropped", rows)))

    def executions(self, instance_no: int) -> list[int]:
        with self._snapshot() as execute:
            found = execute(query("executions"), (instance_no,)).fetchall()
        return [number for (number,) in found if isinstance(number, int)]

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        with self._snapshot() as execute:
            rows = execute(query("instance_by_no"), (self._hub_no, instance_no)).fetchall()
            if not rows:
                return None
            row = instance_of(opened(self._vault, "instances", rows)[0])
            found = _with_history(execute, row._replace(execution_no=execution_no), self._vault)
        found.row = row
        return found

    def keys(self) -> list[KeyRow]:
        with self._snapshot() as execute:
            rows = execute(query("keys"), (self._hub_no,)).fetchall() if _is_guarded(execute) else []
        rows = opened(self._vault, "keys", rows)
        return sorted(map(key_of, rows), key=lambda row: (row.created_at, row.key_id))

    def audit(self, wanted: AuditFilter) -> list[tuple[int, AuditRow]]:
        asked = (wanted.who, wanted.operation, wanted.instance_id, wanted.since, wanted.before_no, wanted.top)
        with self._snapshot() as execute:
            rows = execute(query("audit"), (self._hub_no, *asked)).fetchall() if _is_guarded(execute) else []
        return [(number, audit_of(row)) for number, *row in rows]

    def flaws(self) -> Iterator[tuple[int, str]]:
        def page(table: str, after: tuple[Any, ...], limit: int) -> tuple[list[Any], tuple[Any, ...]]:
            with self._snapshot() as execute:
                return moving.export(execute, self._hub_no, table, after, limit)

        yield from flaws_of(page, self._vault)
        with self._snapshot() as execute:
            strays = moving.strays(execute)
        yield from ((0, strayed(table, count)) for table, count in strays.items())

    def raw(self, instance_id: str) -> dict[str, list[dict[str, Any]]]:
        with self._snapshot() as execute:
            rows = read_instances(execute, self._hub_no, [instance_id], None)
            return moving.raw(execute, self._hub_no, rows[0].instance_no, instance_id) if rows else {}

    def answered(self, operation_id: str) -> SeenRow | None:
        with self._snapshot() as execute:
            rows = query_many("seen").values(execute, [operation_id], before=(self._hub_no,))
        return seen_of(opened(self._vault, "seen", rows)[0]) if rows else None

    def close_reader(self) -> None:
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close(force=True)

    # ---------------------------------------------------------------------------------------- connections

    @contextmanager
    def _snapshot(self) -> Iterator[Execute]:
        """One read transaction on this thread's connection; an error ends the connection."""
        connection = self._connection()
        try:
            begin: Execute = connection.cursor().execute
            begin("begin")
            execute = reading(begin)
            if self._hub_no == _NO_HUB:
                found = execute(query("hub_no"), (self.hub,)).fetchall()
                if found:
                    self._vault = encrypting.vault_of(
                        execute, found[0][0], self.hub, self._cipher, self.location
                    )
                self._hub_no = found[0][0] if found else _NO_HUB
            yield execute
            begin("commit")
        except apsw.Error as error:
            self.close_reader()
            raise translated(error, self.location) from error
        except BaseException:
            self.close_reader()
            raise
        if not self._keeps_connections:
            self.close_reader()

    def _connection(self) -> apsw.Connection:
        self._process.check(self.location)
        connection: apsw.Connection | None = self._local.__dict__.get("connection")
        if connection is None:
            connection = self._local.connection = open_reader(self.location)
            self._connections.add(connection)
        return connection

    def _close_readers(self) -> None:
        """Close every idle connection, so that the writer closes last and empties the log."""
        for connection in list(self._connections):
            with suppress(apsw.Error):
                connection.close(force=True)
        self._connections = weakref.WeakSet()
        self._local = threading.local()


def _place(row: HistoryRow) -> tuple[int, int, int]:
    return row[:3]


def _is_guarded(execute: Execute) -> bool:
    """Whether the file has the tables of version 2; a file that no engine has opened since does not."""
    return _version(execute) >= 2


def _version(execute: Execute) -> int:
    [(version,)] = execute("pragma user_version").fetchall()
    return int(version)


def read_instances(
    execute: Execute, hub_no: int, instance_ids: Sequence[str], vault: Vault | None
) -> list[InstanceRow]:
    """The rows of existing instances, by ascending number."""
    found = query_many("instances_by_id").values(execute, instance_ids, before=(hub_no,))
    for number in filter(None, map(number_of, instance_ids)):
        found += execute(query("instance_by_no"), (hub_no, number)).fetchall()
    rows = instances_of(opened(vault, "instances", found))
    if len(rows) == 1 and rows[0].instance_id == instance_ids[0]:
        return rows
    asked = set(instance_ids)
    return sorted((row for row in rows if row.instance_id in asked), key=lambda row: row.instance_no)


def read_states(
    execute: Execute, column: str, numbers: Sequence[int], vault: Vault | None
) -> dict[int, bytes]:
    """By instance_no, the values of this column of `state`."""
    statement = "custom_status_of" if column == "custom_status" else "entity_states_of"
    found = query_many(statement).values(execute, numbers)
    return dict(found if vault is None else vault.open_state(column, found))


def read_histories(
    execute: Execute, rows: Sequence[InstanceRow], vault: Vault | None
) -> dict[int, list[HistoryRow]]:
    """By instance_no, the history of each row's execution, in order."""
    histories: dict[int, list[HistoryRow]] = {}
    found = query_many("history_of_executions").pairs(execute, _executions_of(rows))
    for row in opened(vault, "history", found):
        histories.setdefault(row[0], []).append(history_of(row))
    for history in histories.values():
        history.sort(key=lambda row: row.episode)
    return histories


def read_bodies(
    execute: Execute, rows: Sequence[InstanceRow], vault: Vault | None
) -> dict[int, dict[tuple[int, int], bytes]]:
    """By instance_no, the bodies of each row's execution by (episode, no)."""
    bodies: dict[int, dict[tuple[int, int], bytes]] = {}
    found = query_many("payloads_of_executions").pairs(execute, _executions_of(rows))
    for number, _, episode, no, body in opened(vault, "payloads", found):
        bodies.setdefault(number, {})[episode, no] = body_of(body)
    return bodies


def _executions_of(rows: Sequence[InstanceRow]) -> list[tuple[int, int]]:
    return sorted({(row.instance_no, row.execution_no) for row in rows})


def _with_history(execute: Execute, row: InstanceRow, vault: Vault | None) -> StoredInstance:
    histories, bodies = read_histories(execute, [row], vault), read_bodies(execute, [row], vault)
    return StoredInstance(row, histories.get(row.instance_no, []), bodies.get(row.instance_no, {}))


def _read_waits(execute: Execute, numbers: Sequence[int], vault: Vault | None) -> list[WaitRow]:
    found = query_many("waits_of").values(execute, numbers)
    return sorted(map(wait_of, opened(vault, "waits", found)), key=lambda row: row[:2])


def _bodies_of(
    execute: Execute, rows: Sequence[HistoryRow], vault: Vault | None
) -> dict[tuple[int, int, int], dict[int, bytes]]:
    """The bodies of these history rows. Most have none, and are not queried."""
    keys = [row[:3] for row in rows if b'"body":' in row.events]
    bodies: dict[tuple[int, int, int], dict[int, bytes]] = {}
    found = query_many("payloads_of_episodes").pairs(execute, keys)
    for number, execution, episode, no, body in opened(vault, "payloads", found):
        bodies.setdefault((number, execution, episode), {})[no] = body_of(body)
    return bodies
