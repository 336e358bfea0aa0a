"""What the database itself saw: which incarnation wrote what and when, who owned what, and what histories say.

Triggers, installed beside the hub's tables, take notes that no worker can forge or forget. When an incarnation
enters, its session is marked with it; the first statement of a transaction that changes anything of the hub notes
transaction and mark; what becomes void, and which partition goes to whom, is noted with its transaction and time.
A commit of a void incarnation is then a transaction that bears its mark and was committed after the one that
voided it, by the server's own record of commits (`track_commit_timestamp`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

SETTINGS = {"track_commit_timestamp": "on"}  # of the server
CHANGES = "insert or update or delete"
NOTED = {
    **dict.fromkeys(("instances", "history", "payloads", "state", "inbox", "waits", "activities"), CHANGES),
    "dropped": "insert",  # upkeep, which no incarnation does, deletes what is old
}

_NOTES = """
create schema testbed;
create table testbed.entered (incarnation bigint primary key, worker text, role text, at float8);
create table testbed.voided (incarnation bigint primary key, by bigint, xid xid8, at float8);
create table testbed.commits (xid xid8 primary key, incarnation bigint, first text);
create table testbed.owned (no bigint generated always as identity, partition bigint, incarnation bigint, at float8);

create function testbed.mark() returns bigint language sql stable as $$
    select nullif(current_setting('testbed.incarnation', true), '')::bigint
$$;
create function testbed.clock() returns float8 language sql volatile as $$
    select extract(epoch from clock_timestamp())::float8
$$;

create function testbed.enters() returns trigger language plpgsql as $$
begin
    perform set_config('testbed.incarnation', new.incarnation::text, false);
    insert into testbed.entered values (new.incarnation, new.worker, new.role, testbed.clock());
    return null;
end $$;
create trigger testbed_enters after insert on {schema}.workers for each row execute function testbed.enters();

create function testbed.voids() returns trigger language plpgsql as $$
begin
    insert into testbed.voided values (new.incarnation, testbed.mark(), pg_current_xact_id(), testbed.clock());
    return null;
end $$;
create trigger testbed_voids after update on {schema}.workers for each row
    when (new.state = 'void' and old.state <> 'void') execute function testbed.voids();

create function testbed.owns() returns trigger language plpgsql as $$
begin
    insert into testbed.owned (partition, incarnation, at) values (new.partition, new.incarnation, testbed.clock());
    return null;
end $$;
create trigger testbed_owns after update on {schema}.partitions for each row
    when (new.incarnation is distinct from old.incarnation) execute function testbed.owns();

create function testbed.writes() returns trigger language plpgsql as $$
begin
    insert into testbed.commits
    values (pg_current_xact_id(), testbed.mark(), lower(tg_op) || ' of ' || tg_table_name) on conflict do nothing;
    return null;
end $$;
"""
_NOTE_OF_TABLE = """
create trigger testbed_writes after {changes} on {schema}.{table}
    for each statement execute function testbed.writes();
"""

_STALE = """
select count(*), coalesce(sum((select count(*) from {schema}.history h where h.xmin = c.xid::xid)), 0)
from testbed.commits c join testbed.voided v using (incarnation)
where c.xid <> v.xid and pg_xact_commit_timestamp(c.xid::xid) >= pg_xact_commit_timestamp(v.xid::xid)
"""
_EVENTS = """
with events as (
    select h.instance_no, h.execution_no, e from {schema}.history h
    cross join lateral jsonb_array_elements(convert_from(h.events, 'UTF8')::jsonb) as e
)
"""
_TWICE = (
    _EVENTS
    + """
select i.instance_id, said.what, count(*) from (
    select instance_no, execution_no, 'task ' || (e ->> 'task_id') as what from events
    where e ->> 'type' in ('TaskCompleted', 'TaskFailed', 'TaskCanceled')
    union all
    select instance_no, execution_no, 'child ' || (e ->> 'task_id') from events
    where e ->> 'type' in ('SubOrchestrationCompleted', 'SubOrchestrationFailed')
    union all
    select instance_no, execution_no, 'operation ' || (e ->> 'task_id') from events
    where e ->> 'type' in ('EntityOperationCompleted', 'EntityOperationFailed')
    union all
    select instance_no, execution_no, 'timer ' || (e ->> 'timer_id') from events where e ->> 'type' = 'TimerFired'
    union all
    select instance_no, execution_no, 'event ' || (e ->> 'operation_id') from events
    where e ->> 'type' = 'EventRaised'
    union all
    select instance_no, execution_no, 'start' from events where e ->> 'type' = 'ExecutionStarted'
) as said
join {schema}.instances i using (instance_no)
group by i.instance_id, said.execution_no, said.what having count(*) > 1
"""
)
_RESULTS = _EVENTS + "select e -> 'result' from events where e ->> 'type' = 'TaskCompleted'"
_RAISED = _EVENTS + "select e ->> 'operation_id' from events where e ->> 'type' = 'EventRaised'"
_UNOWNED = """
select p.partition from {schema}.partitions p
left join {schema}.workers w on w.incarnation = p.incarnation and w.state <> 'void' where w.incarnation is null
"""


@dataclass
class Life:
    """A process from its start to its death, with the times it was stopped."""

    name: str
    born: float
    died: float = float("inf")
    pauses: list[tuple[float, float]] = field(default_factory=list)

    def lives_at(self, at: float) -> bool:
        return self.born <= at < self.died and not any(since <= at < until for since, until in self.pauses)


@dataclass(frozen=True)
class Outage:
    """A worker's death, or its being stopped, and how long its partitions were without a living owner."""

    worker: str
    what: str  # killed | paused
    partitions: int
    seconds: float  # until the last of them had one; infinite if it never had


@dataclass(frozen=True)
class Stale:
    """Transactions of incarnations committed after these were void, and rows of history among them."""

    transactions: int
    rows: int


class Evidence:
    """For one database with one hub."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._schema = "perdure"

    def close(self) -> None:
        self._connection.close()

    def gather(self) -> None:
        """Begin to take notes. The hub must have been opened once, so that its tables are there."""
        found = self._connection.execute(
            "select table_schema from information_schema.tables where table_name = 'partitions' "
            "and table_schema not like 'pg%'"
        ).fetchall()
        assert len(found) == 1, f"one hub was expected in this database: {found}"
        self._schema = found[0][0]
        self._rows(_NOTES)
        for table, changes in NOTED.items():
            self._rows(_NOTE_OF_TABLE, table, changes)

    def finished(self, prefix: str) -> set[str]:
        """The orchestrations that have ended, of those whose id begins so and that are nobody's children."""
        asked = (
            "select instance_id from {schema}.instances"
            " where completed_at is not null and kind <> 'entity' and parent_id is null"
        )
        return {name for (name,) in self._rows(asked) if name.startswith(prefix)}

    def awaiting(self, event: str) -> set[str]:
        """The instances that wait for an event of this name."""
        asked = (
            "select i.instance_id, w.name from {schema}.waits w join {schema}.instances i using (instance_no)"
        )
        return {instance_id for instance_id, name in self._rows(asked) if name == event}

    def owners(self) -> set[str]:
        """The workers that own partitions, if every one has an owner who is not void; else none."""
        asked = "select w.worker from {schema}.partitions p left join {schema}.workers w on w.state <> 'void'"
        found = {worker for (worker,) in self._rows(asked + " and w.incarnation = p.incarnation")}
        return set() if None in found else found

    def entered(self, worker: str) -> int:
        """How many incarnations a worker has had."""
        return sum(name == worker for (name,) in self._rows("select worker from testbed.entered"))

    def commits(self) -> int:
        return int(self._rows("select count(*) from testbed.commits where incarnation is not null")[0][0])

    def unattributed(self) -> dict[str, int]:
        """Transactions that changed something and came from no incarnation, by what they did first."""
        nobodys = "select first, count(*) from testbed.commits where incarnation is null group by first"
        return {first: int(times) for first, times in self._rows(nobodys)}

    def takeovers(self) -> int:
        """Incarnations that were voided by another worker."""
        by_others = "select count(*) from testbed.voided v where v.by is distinct from v.incarnation"
        entered = " and not exists (select 1 from testbed.entered a join testbed.entered b using (worker)"
        himself = " where a.incarnation = v.incarnation and b.incarnation = v.by)"
        return int(self._rows(by_others + entered + himself)[0][0])

    def stale(self) -> Stale:
        ((transactions, rows),) = self._rows(_STALE)
        return Stale(int(transactions), int(rows))

    def twice(self) -> list[str]:
        """What stands in a history twice and may stand there once."""
        return [f"{instance}: {what} {times} times" for instance, what, times in self._rows(_TWICE)]

    def results(self) -> list[Any]:
        """All results of activities."""
        return [result for (result,) in self._rows(_RESULTS)]

    def raised(self) -> list[str]:
        """The ids of all events raised."""
        return [operation for (operation,) in self._rows(_RAISED)]

    def left_over(self) -> dict[str, int]:
        """Rows that should be gone when everything has ended."""
        counts = {}
        for table in ("inbox", "activities", "waits"):
            counts[table] = int(self._rows("select count(*) from {schema}.{table}", table)[0][0])
        return {table: count for table, count in counts.items() if count}

    def unowned(self) -> int:
        return len(self._rows(_UNOWNED))

    def outages(self, lives: Sequence[Life]) -> list[Outage]:
        """Every death and every pause of a worker that owned anything."""
        by_name = {life.name: life for life in lives}
        entered = self._rows("select incarnation, worker from testbed.entered")
        life_of = {incarnation: by_name.get(worker) for incarnation, worker in entered}
        owned = self._rows("select partition, incarnation, at from testbed.owned order by no")
        owners: dict[int, list[tuple[float, Life | None]]] = {}
        for partition, incarnation, at in owned:
            owners.setdefault(partition, []).append((at, life_of.get(incarnation)))
        found = []
        for life in lives:
            ends = [("paused", since, until) for since, until in life.pauses]
            ends += [("killed", life.died, float("inf"))] if life.died < float("inf") else []
            for what, at, until in ends:
                lengths = [
                    length
                    for ownership in owners.values()
                    if (length := _length(ownership, life, at, until)) is not None
                ]
                if lengths:
                    found.append(Outage(life.name, what, len(lengths), max(lengths)))
        return found

    def _rows(self, statement: str, table: str = "", changes: str = "") -> list[tuple[Any, ...]]:
        filled = sql.SQL(statement).format(
            schema=sql.Identifier(self._schema), table=sql.Identifier(table), changes=sql.SQL(changes)
        )
        cursor = self._connection.execute(filled)
        return cursor.fetchall() if cursor.description else []


def _length(ownership: list[tuple[float, Life | None]], life: Life, at: float, until: float) -> float | None:
    """How long a partition that was this life's had no living owner; None if it was not."""
    times = [since for since, _ in ownership]
    before = bisect_right(times, at)
    its_own = before > 0 and ownership[before - 1][1] is life
    given_late = any(owner is life and since < until for since, owner in ownership[before:])  # on its way
    if not its_own and not given_late:
        return None
    for since, owner in ownership[before:]:
        if owner is not None and owner.lives_at(since):
            return since - at
    return float("inf")
