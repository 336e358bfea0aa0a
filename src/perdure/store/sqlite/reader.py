"""The clients' half of the port: questions from any thread, answered from what is committed.

Each thread has a read-only connection of its own, so nobody waits for the loop or for one another. Reading
transactions are short: a long one would keep the log from being emptied. No engine need be there: an instance
of this class alone reads a file that nobody serves. After a fork neither side's locks are what SQLite thinks
they are in the child, so the child is refused.
"""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec

from perdure.errors import StoreUnusable
from perdure.model.bodies import inline
from perdure.model.events import decode_events, encode_events
from perdure.model.records import (
    AuditRow,
    DroppedRow,
    HistoryRow,
    InstanceRow,
    KeyRow,
    SeenRow,
    StoredInstance,
    WaitRow,
)
from perdure.store.sqlite.connection import open_reader
from perdure.store.sqlite.errors import translated
from perdure.store.sqlite.query import build, build_count
from perdure.store.sqlite.statements import query, query_many

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perdure.model.records import AuditFilter, InstanceFilter

    Execute = Callable[..., Any]

_NO_HUB: Final = -1


class Reader:
    """Reads one hub of one file."""

    def __init__(self, path: str, hub: str) -> None:
        self.location = os.path.realpath(path)  # also when the working directory changes
        self.hub = hub
        self._hub_no = _NO_HUB
        self._pid = 0  # of the process that used it first
        self._local = threading.local()
        self._connections: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()

    def get(self, instance_id: str, *, history: bool = False) -> StoredInstance | None:
        with self._snapshot() as execute:
            rows = read_instances(execute, self._hub_no, [instance_id])
            if not rows:
                return None
            found = _with_history(execute, rows[0]) if history else StoredInstance(rows[0])
            number = [rows[0].instance_no]
            found.waits = _read_waits(execute, number)
            found.custom_status = dict(query_many("custom_status_of").values(execute, number)).get(number[0])
            if rows[0].kind == "entity":
                found.entity_state = dict(query_many("entity_states_of").values(execute, number)).get(
                    number[0]
                )
        return found

    def ends(self, rows: Sequence[InstanceRow]) -> dict[int, list[bytes]]:
        found: dict[int, list[HistoryRow]] = {row.instance_no: [] for row in rows}
        with self._snapshot() as execute:
            ends = query_many("ends_of_executions").pairs(execute, _executions_of(rows))
            for row in sorted(map(HistoryRow._make, ends)):
                found[row.instance_no].append(row)
            bodies = _bodies_of(execute, [row for ends in found.values() for row in ends])
        return {
            number: [_with_bodies(row.events, bodies.get(row[:3], {})) for row in ends]
            for number, ends in found.items()
        }

    def query(self, wanted: InstanceFilter) -> list[InstanceRow]:
        with self._snapshot() as execute:
            sql, values = build(wanted, self._hub_no)
            return list(map(InstanceRow._make, execute(sql, values).fetchall()))

    def count(self, wanted: InstanceFilter) -> int:
        with self._snapshot() as execute:
            [(found,)] = execute(*build_count(wanted, self._hub_no)).fetchall()
            return int(found)

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        with self._snapshot() as execute:
            return _read_waits(execute, list(dict.fromkeys(instance_nos)))

    def custom_status(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        with self._snapshot() as execute:
            return dict(query_many("custom_status_of").values(execute, list(dict.fromkeys(instance_nos))))

    def entity_states(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        with self._snapshot() as execute:
            return dict(query_many("entity_states_of").values(execute, list(dict.fromkeys(instance_nos))))

    def counts(self) -> dict[str, int]:
        with self._snapshot() as execute:
            counted = execute(query("counts"), (self._hub_no,)).fetchall()
        counts: dict[str, int] = {}
        for status, count in counted:
            counts[status] = counts.get(status, 0) + count
        total = counts.pop("", 0)
        counts["Completed"] = counts.get("Completed", 0) + total - sum(counts.values())
        return {status: count for status, count in counts.items() if count}

    def dropped(self, instance_id: str | None, limit: int) -> list[DroppedRow]:
        with self._snapshot() as execute:
            if instance_id is None:
                rows = execute(query("dropped_all"), (self._hub_no, limit)).fetchall()
            else:
                rows = execute(query("dropped_of"), (self._hub_no, instance_id, limit)).fetchall()
        return list(map(DroppedRow._make, rows))

    def executions(self, instance_no: int) -> list[int]:
        with self._snapshot() as execute:
            return [row[0] for row in execute(query("executions"), (instance_no,)).fetchall()]

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        with self._snapshot() as execute:
            rows = execute(query("instance_by_no"), (self._hub_no, instance_no)).fetchall()
            if not rows:
                return None
            row = InstanceRow._make(rows[0])
            found = _with_history(execute, row._replace(execution_no=execution_no))
        found.row = row
        return found

    def keys(self) -> list[KeyRow]:
        with self._snapshot() as execute:
            rows = execute(query("keys"), (self._hub_no,)).fetchall() if _is_guarded(execute) else []
        return sorted(map(KeyRow._make, rows), key=lambda row: (row.created_at, row.key_id))

    def audit(self, wanted: AuditFilter) -> list[tuple[int, AuditRow]]:
        asked = (wanted.who, wanted.operation, wanted.instance_id, wanted.since, wanted.before_no, wanted.top)
        with self._snapshot() as execute:
            rows = execute(query("audit"), (self._hub_no, *asked)).fetchall() if _is_guarded(execute) else []
        return [(number, AuditRow(*row)) for number, *row in rows]

    def answered(self, operation_id: str) -> SeenRow | None:
        with self._snapshot() as execute:
            rows = query_many("seen").values(execute, [operation_id], before=(self._hub_no,))
        return SeenRow(*rows[0]) if rows else None

    def close_reader(self) -> None:
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close(force=True)

    # ---------------------------------------------------------------------------------------- connections

    @contextmanager
    def _snapshot(self) -> Iterator[Execute]:
        """One reading transaction on this thread's connection; an error ends the connection."""
        connection = self._connection()
        try:
            execute: Execute = connection.cursor().execute
            execute("begin")
            if self._hub_no == _NO_HUB:
                found = execute(query("hub_no"), (self.hub,)).fetchall()
                self._hub_no = found[0][0] if found else _NO_HUB
            yield execute
            execute("commit")
        except apsw.Error as error:
            self.close_reader()
            raise translated(error, self.location) from error
        except BaseException:
            self.close_reader()
            raise

    def _connection(self) -> apsw.Connection:
        self._check_process()
        connection: apsw.Connection | None = self._local.__dict__.get("connection")
        if connection is None:
            connection = self._local.connection = open_reader(self.location)
            self._connections.add(connection)
        return connection

    def _check_process(self) -> None:
        pid = os.getpid()
        if self._pid == 0:
            self._pid = pid
        if self._pid != pid:
            raise StoreUnusable(
                f"{self.location} was opened by process {self._pid}; a forked child must not use its "
                "connections. Start child processes with the spawn or forkserver method"
            )

    def _close_readers(self) -> None:
        """Close every thread's connection that is idle, so that the writer, last, empties the log."""
        for connection in list(self._connections):
            with suppress(apsw.Error):
                connection.close(force=True)
        self._connections = weakref.WeakSet()
        self._local = threading.local()


def _is_guarded(execute: Execute) -> bool:
    """Whether the file has the tables of version 2; one that no engine has opened since does not."""
    [(version,)] = execute("pragma user_version").fetchall()
    return bool(version >= 2)


def read_instances(execute: Execute, hub_no: int, instance_ids: Sequence[str]) -> list[InstanceRow]:
    """The rows of those that exist, by ascending number."""
    found = query_many("instances_by_id").values(execute, instance_ids, before=(hub_no,))
    return sorted(map(InstanceRow._make, found), key=lambda row: row.instance_no)


def read_histories(execute: Execute, rows: Sequence[InstanceRow]) -> dict[int, list[HistoryRow]]:
    """By instance_no, the history of each row's execution, in order."""
    histories: dict[int, list[HistoryRow]] = {}
    for row in query_many("history_of_executions").pairs(execute, _executions_of(rows)):
        histories.setdefault(row[0], []).append(HistoryRow._make(row))
    for history in histories.values():
        history.sort(key=lambda row: row.episode)
    return histories


def read_bodies(execute: Execute, rows: Sequence[InstanceRow]) -> dict[int, dict[tuple[int, int], bytes]]:
    """By instance_no, the bodies of each row's execution by (episode, no)."""
    bodies: dict[int, dict[tuple[int, int], bytes]] = {}
    for number, _, episode, no, body in query_many("payloads_of_executions").pairs(
        execute, _executions_of(rows)
    ):
        bodies.setdefault(number, {})[episode, no] = body
    return bodies


def _executions_of(rows: Sequence[InstanceRow]) -> list[tuple[int, int]]:
    return sorted({(row.instance_no, row.execution_no) for row in rows})


def _with_history(execute: Execute, row: InstanceRow) -> StoredInstance:
    histories, bodies = read_histories(execute, [row]), read_bodies(execute, [row])
    return StoredInstance(row, histories.get(row.instance_no, []), bodies.get(row.instance_no, {}))


def _read_waits(execute: Execute, numbers: Sequence[int]) -> list[WaitRow]:
    return sorted(
        map(WaitRow._make, query_many("waits_of").values(execute, numbers)), key=lambda row: row[:2]
    )


def _bodies_of(execute: Execute, rows: Sequence[HistoryRow]) -> dict[tuple[int, int, int], dict[int, bytes]]:
    """The bodies of these history rows, which most do not have: those are not asked for."""
    keys = [row[:3] for row in rows if b'"body":' in row.events]
    bodies: dict[tuple[int, int, int], dict[int, bytes]] = {}
    for number, execution, episode, no, body in query_many("payloads_of_episodes").pairs(execute, keys):
        bodies.setdefault((number, execution, episode), {})[no] = body
    return bodies


def _with_bodies(events: bytes, bodies: dict[int, bytes]) -> bytes:
    if not bodies:
        return events
    try:
        return encode_events(inline(decode_events(events), bodies))
    except msgspec.MsgspecError:  # written by a newer version: better shown without its body than not at all
        return events
