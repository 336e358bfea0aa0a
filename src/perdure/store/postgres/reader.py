"""The clients' half of the port: queries from any thread, answered from committed state.

Each verb is one round trip and one snapshot. No engine is needed: an instance of this class alone reads a hub
that is not served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg

from perdure.model import damaged
from perdure.model.damaged import (
    audit_of,
    dropped_of,
    end_of,
    history_of,
    key_of,
    seen_of,
    wait_of,
)
from perdure.model.records import (
    AuditRow,
    DroppedRow,
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
from perdure.store.port import Gauges, History
from perdure.store.postgres import encrypting
from perdure.store.postgres import transfer as moving
from perdure.store.postgres.address import address_of
from perdure.store.postgres.binary import number, numbers, text, texts
from perdure.store.postgres.errors import translated
from perdure.store.postgres.migrating import VERSION, too_new, too_old
from perdure.store.postgres.pipeline import Statement
from perdure.store.postgres.pool import Readers
from perdure.store.postgres.query import build, build_count, build_tasks, can_match, is_sayable
from perdure.store.postgres.statements import quoted
from perdure.store.reading import OneProcess, counted, flaws_of, with_bodies
from perdure.store.task_query import tasks_of
from perdure.store.transfer import TABLES, strayed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perdure.model.encryption import Cipher
    from perdure.model.records import AuditFilter, InstanceFilter
    from perdure.store.column_encryption import Vault
    from perdure.store.postgres.pipeline import StatementResult

_NO_HUB: Final = -1
Bodies = dict[tuple[int, int], bytes]  # (episode, no) -> body


class PostgresReader:
    """Reads one hub; with `cipher`, encrypted content too."""

    location = ""  # without a file

    def __init__(self, url: str, hub: str, cipher: Cipher | None = None) -> None:
        self.hub = hub
        self._address = address_of(url)
        self._schema = quoted(self._address.schema)
        self._readers = Readers(self._address)
        self._hub_no = _NO_HUB
        self._cipher = cipher
        self._vault: Vault | None = None  # of a hub with encryption
        self._process = OneProcess()

    def get(self, instance_id: str, *, history: History = False) -> StoredInstance | None:
        if not is_sayable(instance_id):
            return None
        own = (text(instance_id),)
        calls = [
            Statement("instances_by_id", (texts([instance_id]),)),
            Statement("waits_of_one", own),
            Statement("state_of_one", own),
        ]
        if history is True:  # a short history is recognized by its row before it is read
            calls += [Statement("history_of_one", own), Statement("bodies_of_one", own)]
        rows, waits, state, *past = self._ask(*calls)
        if not rows:
            return None
        found = StoredInstance(instances_of(rows, self._vault)[0])
        found.waits = list(map(wait_of, opened(self._vault, "waits", waits)))
        for custom_status, entity_state in state:
            found.custom_status = self._opened_state("custom_status", found.row, custom_status)
            if found.row.kind == "entity":
                found.entity_state = self._opened_state("entity_state", found.row, entity_state)
        if history is True:
            self._add_history(found, *past)
        return found

    def _opened_state(self, column: str, row: InstanceRow, stored: bytes | None) -> bytes | None:
        if stored is None or self._vault is None:
            return stored
        [(_, plain)] = self._vault.open_state(column, [(row.instance_no, stored)])
        return plain  # type: ignore[no-any-return]

    def _add_history(self, found: StoredInstance, history: list[Any], bodies: list[Any]) -> None:
        found.history = list(map(history_of, opened(self._vault, "history", history)))
        found.bodies = {(row[2], row[3]): row[4] for row in opened(self._vault, "payloads", bodies)}

    def ends(self, rows: Sequence[InstanceRow]) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {row.instance_no: [] for row in rows}
        by_number = {row.instance_no: row for row in rows}
        executions = sorted({(row.instance_no, row.execution_no) for row in rows})
        if not executions:
            return found
        which = tuple(numbers(column) for column in zip(*executions, strict=True))
        ends, stored = self._ask(Statement("ends_of_executions", which), Statement("bodies_of_ends", which))
        bodies: dict[tuple[int, int, int], dict[int, bytes]] = {}
        for instance_no, execution_no, episode, no, body in opened(self._vault, "payloads", stored):
            bodies.setdefault((instance_no, execution_no, episode), {})[no] = body
        for row in map(history_of, opened(self._vault, "history", ends)):
            owner = by_number[row.instance_no]
            events = with_bodies(end_of(owner, row), bodies.get(row[:3], {}), owner.salt)
            found[row.instance_no].append(events)
        return found

    def query(self, wanted: InstanceFilter) -> list[InstanceRow]:
        if not can_match(wanted):
            return []
        sql, values = self._built(build, wanted)
        return instances_of(self._ask(Statement("", values, sql))[0], self._vault)

    def count(self, wanted: InstanceFilter) -> int:
        if not can_match(wanted):
            return 0
        sql, values = self._built(build_count, wanted)
        return int(self._ask(Statement("", values, sql))[0][0][0])

    def _built(self, builder: Any, wanted: InstanceFilter | TaskFilter) -> tuple[str, tuple[bytes, ...]]:
        self._find_hub()
        built: tuple[str, tuple[bytes, ...]] = builder(wanted, self._schema, self._hub_no)
        return built

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        [rows] = self._ask(Statement("waits_of", (numbers(list(dict.fromkeys(instance_nos))),)))
        return list(map(wait_of, opened(self._vault, "waits", rows)))

    def tasks(self, wanted: TaskFilter) -> list[TaskRow]:
        sql, values = self._built(build_tasks, wanted)
        return tasks_of(self._ask(Statement("", values, sql))[0], self._vault)

    def custom_status(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        return self._states("custom_status", instance_nos)

    def entity_states(self, instance_nos: Sequence[int]) -> dict[int, bytes]:
        return self._states("entity_state", instance_nos)

    def _states(self, column: str, instance_nos: Sequence[int]) -> dict[int, bytes]:
        [rows] = self._ask(Statement(f"{column}_of", (numbers(list(dict.fromkeys(instance_nos))),)))
        return dict(rows if self._vault is None else self._vault.open_state(column, rows))

    def held(self, instance_ids: Sequence[str]) -> list[InboxRow]:
        wanted = [name for name in dict.fromkeys(instance_ids) if is_sayable(name)]
        [rows] = self._ask(Statement("held_by_id", (texts(wanted),)))
        return list(map(InboxRow._make, opened(self._vault, "inbox", rows)))

    def counts(self) -> dict[str, int]:
        [rows] = self._ask(Statement("counts"))
        return {status: count for status, count in counted(rows).items() if count}

    def gauges(self) -> Gauges:
        oldest, waits, [(size,)] = self._ask(
            Statement("oldest_unfinished"), Statement("waits_by_event"), Statement("size_on_disk")
        )
        return Gauges(dict(oldest), dict(waits), size)

    def ring(self, resolution: int) -> list[RingRow] | None:
        return list(map(RingRow._make, self._ask(Statement("ring", (number(resolution),)))[0]))

    def dropped(self, instance_id: str | None, limit: int) -> list[DroppedRow]:
        if instance_id is None:
            [rows] = self._ask(Statement("dropped_all", (number(limit),)))
        elif is_sayable(instance_id):
            [rows] = self._ask(Statement("dropped_of", (number(limit), text(instance_id))))
        else:
            return []
        return list(map(dropped_of, opened(self._vault, "dropped", rows)))

    def executions(self, instance_no: int) -> list[int]:
        [rows] = self._ask(Statement("executions", (number(instance_no),)))
        return [row[0] for row in rows]

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        which = (number(instance_no), number(execution_no))
        rows, *past = self._ask(
            Statement("instance_by_no", which[:1]),
            Statement("history_of_execution", which),
            Statement("bodies_of_execution", which),
        )
        if not rows:
            return None
        found = StoredInstance(instances_of(rows, self._vault)[0])
        self._add_history(found, *past)
        return found

    def keys(self) -> list[KeyRow]:
        [rows] = self._ask(Statement("keys"))
        keys = map(key_of, opened(self._vault, "keys", rows))
        return sorted(keys, key=lambda row: (row.created_at, row.key_id))

    def audit(self, wanted: AuditFilter) -> list[tuple[int, AuditRow]]:
        asked = (wanted.who, wanted.operation, wanted.instance_id)
        if not all(value is None or is_sayable(value) for value in asked):
            return []
        values = (
            *(None if value is None else text(value) for value in asked),
            *(None if value is None else number(value) for value in (wanted.since, wanted.before_no)),
            number(wanted.top),
        )
        [rows] = self._ask(Statement("audit", values))
        return [(row[0], audit_of(row[1:])) for row in rows]

    def flaws(self) -> Iterator[tuple[int, str]]:
        yield from flaws_of(self._page, self._vault)
        strays = self._ask(*(Statement("", (), sql) for sql in moving.strays(self._schema).values()))
        for table, [(count,)] in zip(moving.strays(self._schema), strays, strict=True):
            if count:
                yield 0, strayed(table, count)

    def _page(self, table: str, after: tuple[Any, ...], limit: int) -> tuple[list[Any], tuple[Any, ...]]:
        self._find_hub()
        sql, values = moving.page(self._hub_no, self._schema, table, after, limit)
        [found] = self._ask(Statement("", values, sql))
        return moving.without_key(table, found, after)

    def raw(self, instance_id: str) -> dict[str, list[dict[str, Any]]]:
        found = self.get(instance_id)
        if found is None:
            return {}
        asked = moving.raw(self._hub_no, self._schema, found.row.instance_no, instance_id)
        answers = self._ask(*(Statement("", values, sql) for sql, values in asked.values()))
        return {
            table: [dict(zip(TABLES[table].columns, row, strict=True)) for row in rows]
            for table, rows in zip(asked, answers, strict=True)
        }

    def answered(self, operation_id: str) -> SeenRow | None:
        if not is_sayable(operation_id):
            return None
        [rows] = self._ask(Statement("seen", (texts([operation_id]),)))
        return seen_of(opened(self._vault, "seen", rows)[0]) if rows else None

    def hubs(self) -> list[str]:
        """The names of all hubs of the schema."""
        self._process.check(self._address.shown)
        [names] = self._asked([Statement("hubs")])
        return [name for (name,) in names.rows]

    def close_reader(self) -> None:
        """Close the idle connections for reading; the next query opens another."""
        self._readers.close()

    # ------------------------------------------------------------------------------------------------ asking

    def _ask(self, *calls: Statement) -> list[list[Any]]:
        """The rows of each statement, from one snapshot."""
        self._find_hub()
        return [answer.rows for answer in self._asked(calls)]

    def _find_hub(self) -> None:
        """Look up the hub's number, unless it is known."""
        self._process.check(self._address.shown)
        if self._hub_no != _NO_HUB:
            return
        version, found = self._asked(
            [
                Statement("", (), f"select coalesce(max(version), 0) from {self._schema}.versions"),
                Statement("hub", (text(self.hub),)),
            ]
        )
        if version.rows[0][0] > VERSION:
            raise too_new(self._address, version.rows[0][0])
        if version.rows[0][0] < VERSION:
            raise too_old(self._address, version.rows[0][0])
        for hub_no, _ in found.rows:
            self._vault = encrypting.vault_of(
                self._asked([Statement("encryption_proofs")], hub_no)[0].rows,
                self.hub,
                self._cipher,
                self._address.shown,
            )
            self._hub_no = hub_no

    def _asked(self, calls: Sequence[Statement], hub_no: int | None = None) -> list[StatementResult]:
        try:
            return self._readers.ask(calls, self._hub_no if hub_no is None else hub_no)
        except psycopg.Error as error:
            raise translated(error, self._address.shown) from error


def instances_of(rows: list[Any], vault: Vault | None) -> list[InstanceRow]:
    """The rows, decrypted if there is a vault."""
    return damaged.instances_of(opened(vault, "instances", rows))


__all__ = ["PostgresReader", "instances_of"]
