"""The PostgreSQL store: the engine's half of the port, exclusive or with several workers. `reader.py` is the
clients' half.

One connection belongs to the loop's thread. It survives errors that are certainly rolled back (a rejected
value, a conflict, no space, a lost fence). After any other error the state of the database is unknown: the
connection is never used again, and every verb raises until `reopen` has opened a new one and ended the former
session. Lease renewal and upkeep have their own connections.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

import psycopg

from perdure.errors import (
    CommitConflict,
    CommitRefused,
    FenceLost,
    StoreError,
    StoreFull,
    StoreUnusable,
)
from perdure.model.damaged import history_of, seen_of
from perdure.model.encryption import Unreadable
from perdure.model.instances import PARTITIONS, execution_id_of
from perdure.model.records import (
    ActivityRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    Poll,
    SeenRow,
    StoredInstance,
)
from perdure.model.ring import KEPT, oldest_kept
from perdure.store.column_encryption import demand_readable, opened
from perdure.store.memory_tables import AUDIT_KEPT, DROPPED_KEPT
from perdure.store.port import Opening
from perdure.store.postgres import encrypting, membership
from perdure.store.postgres import transfer as moving
from perdure.store.postgres.binary import number, numbers, text, texts
from perdure.store.postgres.commit import RESULTS, arrays, calls_of
from perdure.store.postgres.connection import ENGINE, UPKEEP, connect, leasing
from perdure.store.postgres.errors import FOR_ITS_DATA, translated
from perdure.store.postgres.migrating import bring_up_to_date
from perdure.store.postgres.notify import Hints
from perdure.store.postgres.pipeline import Backend, Statement, Wire
from perdure.store.postgres.query import is_sayable
from perdure.store.postgres.reader import PostgresReader, instances_of
from perdure.store.postgres.ring import take_ring
from perdure.store.rekeying import readable_messages
from perdure.store.transfer import UNFINISHED, demand_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from perdure.model.encryption import Cipher
    from perdure.model.records import Batch
    from perdure.store.port import Census, Profile
    from perdure.store.rekeying import Rekeyed
    from perdure.store.transfer import Key, Row

_ROLLED_BACK: Final = (CommitRefused, CommitConflict, StoreFull, FenceLost)
_EXPIRED_AT_ONCE: Final = 1_000
_EXPIRY_ROUNDS: Final = 20
_DAY: Final = 24 * 3600 * 1_000_000
_CAUTIOUS: Final = "the connection was lost or interrupted; it must be opened again"


class PostgresStore(PostgresReader):
    """A hub in a PostgreSQL database."""

    is_shared = True

    def __init__(
        self, url: str, hub: str, cipher: Cipher | None = None, *, new_partitions: int = PARTITIONS
    ) -> None:
        super().__init__(url, hub, cipher)
        self._new_partitions = new_partitions
        self.place = f"{self._address.shown} {hub}"
        self.late_results = 0
        self._wire: Wire | None = None
        self._why_not = "it is not open"
        self._former: Backend | None = None  # the former session, which the server may still consider alive
        self._profile: Profile | None = None
        self._state = "living"
        self._partitions = new_partitions
        self._incarnation = 0
        self._own: list[int] = []  # possible incarnations of this store; more than one after a failed reopen
        self._owned: frozenset[int] = frozenset()
        self._every: tuple[int, ...] = ()
        self._importing = 0
        self._told: set[int] = set()  # unreadable messages that were logged
        self._hints = Hints(self._address, hub)
        self._lease = _Aside(self)
        self._upkeep = _Aside(self)

    # ------------------------------------------------------------------------------------ open and close

    def register(self, profile: Profile) -> None:
        self._profile = profile

    def open(self) -> Opening:
        """Open the hub. If it is already open, this is the same as `reopen`."""
        return self.reopen()

    def reopen(self) -> Opening:
        self._process.check(self._address.shown)
        again = self._wire is not None or bool(self._own)
        self._drop_connection("it is being opened again")
        wire = connect(self._address, ENGINE)
        try:
            opening = self._take(wire, again=again)
        except psycopg.Error as error:
            wire.close()
            raise translated(error, self._address.shown) from error
        except BaseException:
            wire.close()
            raise
        self._wire = wire
        self._readers.open()
        self._hints.become(self._incarnation)
        return opening

    def _take(self, wire: Wire, *, again: bool) -> Opening:
        profile = self._profile
        bring_up_to_date(self._address, wire)
        if self._former is not None and not self._address.pooler:
            membership.end_session(wire, self._former)
        self._former = wire.backend
        membership.be_present(wire, self._address, self.hub, alone=profile is None, again=again)
        self._hub_no, self._partitions = wire.hub_no, partitions = self._take_hub(wire)
        self._vault = encrypting.take_vault(wire, self.hub, self._cipher, self._address.shown)
        self._every = tuple(range(partitions))
        if profile is None:
            opening = membership.open_alone(wire)
            self._own, self._incarnation = [], 0
        else:
            incarnation = membership.next_incarnation(wire)
            before, self._own = self._own, [*self._own, incarnation]
            opening = membership.enter(wire, profile, self._state, before, incarnation, partitions)
            self._own, self._incarnation = [incarnation], incarnation
        self._owned = opening.owned
        worker = f"{profile.worker}#{self._incarnation}.{opening.now}" if profile is not None else ""
        return replace(opening, worker=worker, ring=take_ring(wire, worker, alone=profile is None))

    def _take_hub(self, wire: Wire) -> tuple[int, int]:
        """The hub's number and its number of partitions; a new hub is created."""
        found = wire.one("hub", text(self.hub)) or _new_hub(wire, self.hub, self._new_partitions)
        hub_no, partitions = found[0]
        return int(hub_no), int(partitions)

    def close(self) -> None:
        if self._process.is_another():
            return  # the parent's connection
        self._hints.stop()
        self._leave()
        self._drop_connection("it is closed")
        self._lease.close()
        self._upkeep.close()
        self._readers.close(for_good=True)
        self._own, self._incarnation, self._owned, self._state = [], 0, frozenset(), "living"
        self._former = None

    def _leave(self) -> None:
        """Void this store's incarnation if the database can be reached; if not, the lease expires."""
        if not self._own:
            return
        own = self._own
        with suppress(StoreError, psycopg.Error):
            if self._wire is not None and not self._wire.is_broken:
                membership.leave(self._wire, own)
            else:
                self._upkeep.do(lambda wire: membership.leave(wire, own))

    def _drop_connection(self, why: str) -> None:
        wire, self._wire, self._why_not = self._wire, None, why
        if wire is not None:
            wire.close()

    def _refuse(self) -> NoReturn:
        raise StoreError(f"{self._address.shown} cannot be used: {self._why_not}")

    # -------------------------------------------------------------------------------------------- commit

    def commit(self, batch: Batch) -> None:
        self._process.check(self._address.shown)
        wire = self._wire
        if wire is None:
            self._refuse()
        if self._vault is not None:
            batch = self._vault.sealed(batch)
        try:
            calls = calls_of(batch, self._incarnation, self._partitions)
        except FOR_ITS_DATA as error:
            raise translated(error, self._address.shown) from error
        if not calls:
            return
        answers = self._asked_by_loop(wire, calls)
        if batch.results:
            [taken] = [answer for call, answer in zip(calls, answers, strict=True) if call.name == RESULTS]
            self.late_results += len(batch.results) - taken.touched
        if batch.partitions_released:
            self._owned -= frozenset(batch.partitions_released)

    def _asked_by_loop(self, wire: Wire, calls: Sequence[Statement]) -> list[Any]:
        try:
            return wire.ask(calls)
        except psycopg.Error as error:
            said = translated(error, self._address.shown, shared=bool(self._incarnation))
            if not isinstance(said, _ROLLED_BACK):
                self._drop_connection(
                    f"a transaction ended with {type(error).__name__}; it must be opened again"
                )
            raise said from error
        except BaseException:
            self._drop_connection(_CAUTIOUS)
            raise

    # --------------------------------------------------------------------------------------------- reads

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        wanted = (texts([name for name in dict.fromkeys(instance_ids) if is_sayable(name)]),)
        stored, history, bodies, messages, states, placed = self._read(
            Statement("instances_by_id", wanted),
            Statement("histories_by_id", wanted),
            Statement("bodies_by_id", wanted),
            Statement("held_by_id", wanted),
            Statement("entity_states_by_id", wanted),
            Statement("placed_by_id", wanted),
        )
        if self._vault is not None:
            states = self._vault.open_state("entity_state", states)
        demand_readable(states)  # work on an empty state would overwrite it
        found = {row.instance_no: StoredInstance(row) for row in instances_of(stored, self._vault)}
        for row in map(history_of, opened(self._vault, "history", history)):
            found[row.instance_no].history.append(row)
        for instance_no, _, episode, no, body in opened(self._vault, "payloads", bodies):
            found[instance_no].bodies[episode, no] = body
        for instance_no, state in states:
            found[instance_no].entity_state = state
        by_id = {one.row.instance_id: one for one in found.values()}
        for message in self._messages(messages):
            if message.instance_id in by_id:
                by_id[message.instance_id].held.append(message)
        for instance_id, execution_id, task_id in placed:
            one = by_id.get(instance_id)
            if one is not None and _is_running(one.row, execution_id):
                one.placed |= {(execution_id, task_id)}
        for one in found.values():
            one.history.sort(key=_episode)
        return list(found.values())

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        [rows] = self._read(
            Statement("seen", (texts([name for name in set(operation_ids) if is_sayable(name)]),))
        )
        return sorted(map(seen_of, opened(self._vault, "seen", rows)))

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        own, at, most = self._polled(), number(now), number(limit)
        messages, due, following = self._read(
            Statement("visible_messages", (own, at, most)),
            Statement("due_instances", (own, number(horizon), most)),
            Statement("next_visible_at", (own, at)),
        )
        return Poll(self._messages(messages), due, following[0][0])

    def _polled(self) -> bytes:
        return numbers(sorted(self._owned) if self._incarnation else self._every)

    def _messages(self, rows: list[Any]) -> list[InboxRow]:
        if self._vault is not None:
            rows = readable_messages(self._vault.open("inbox", rows), self._told)
        return list(map(InboxRow._make, rows))

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        return self._read(Statement("local_work", (self._polled(), number(after_no), number(limit))))[0]

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        return self._read(Statement("parked", (self._polled(), number(after_no), number(limit))))[0]

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        wanted = texts([name for name in dict.fromkeys(instance_ids) if is_sayable(name)])
        return instances_of(self._read(Statement("instances_by_id", (wanted,)))[0], self._vault)

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        values = (text(status), number(before), *map(number, after), number(limit))
        return instances_of(self._read(Statement("finished", values))[0], self._vault)

    def _read(self, *calls: Statement) -> list[list[Any]]:
        """One round trip of the loop; any error ends the connection."""
        self._process.check(self._address.shown)
        wire = self._wire
        if wire is None:
            self._refuse()
        try:
            return [answer.rows for answer in wire.ask(calls)]
        except psycopg.Error as error:
            self._drop_connection(f"a read ended with {type(error).__name__}; it must be opened again")
            raise translated(error, self._address.shown) from error
        except BaseException:
            self._drop_connection(_CAUTIOUS)
            raise

    # ------------------------------------------------------------------------------------ beside other workers

    def renew(self) -> bool:
        profile, incarnation = self._profile, self._incarnation
        if profile is None or not incarnation:
            return False
        prolong = (number(incarnation), number(profile.lease))
        self._lease.purpose = leasing(profile.lease)
        if self._lease.do(lambda wire: wire.one("renew", *prolong)):
            return True
        # The loop may have a new incarnation in the meantime.
        return incarnation != self._incarnation and self.renew()

    def drain(self) -> None:
        self._check_shared()
        self._state = "draining"
        self._read(Statement("drain", (number(self._incarnation),)))

    def census(self) -> Census:
        return membership.census(self._ask(Statement("now"), Statement("workers"), Statement("partitions")))

    def expire(self, incarnations: Sequence[int]) -> None:
        self._asked_by_loop(self._check_shared(), [Statement("expire", (numbers(list(incarnations)),))])

    def void(self, incarnation: int) -> bool:
        wire = self._check_shared()
        try:
            return membership.void(wire, incarnation)
        except psycopg.Error as error:
            self._drop_connection(f"a takeover ended with {type(error).__name__}; it must be opened again")
            raise translated(error, self._address.shown) from error
        except BaseException:
            self._drop_connection(_CAUTIOUS)
            raise

    def take(self, partitions: Sequence[int]) -> list[int]:
        wire = self._check_shared()
        me, wanted = number(self._incarnation), list(partitions) if self._state == "living" else []
        calls = [Statement("fence", (me,)), Statement("take", (me, numbers(wanted)))]
        taken = sorted(row[0] for row in self._asked_by_loop(wire, calls)[1].rows)
        self._owned |= frozenset(taken)
        return taken

    def claim(self, pools: Sequence[str], names: Sequence[str], limit: int) -> list[ActivityRow]:
        wire = self._check_shared()
        me = number(self._incarnation)
        wanted = (texts(list(dict.fromkeys(pools))), texts(list(names)), number(limit))
        rows = self._asked_by_loop(wire, [Statement("fence", (me,)), Statement("claim", (me, *wanted))])[
            1
        ].rows
        claimed = map(ActivityRow._make, opened(self._vault, "activities", rows))
        return sorted(filter(_is_readable, claimed), key=lambda row: (row.placed_at, row[:3]))

    def claims(self) -> list[ActivityRow]:
        return sorted(
            map(ActivityRow._make, self._read(Statement("claims", (number(self._incarnation),)))[0])
        )

    def unclaim(self, activities: Sequence[tuple[str, str, int]]) -> None:
        if activities:
            keys = arrays((texts, texts, numbers), activities)
            self._read(Statement("unclaim", (*keys, number(self._incarnation))))

    def placed(self, instance_ids: Sequence[str]) -> list[ActivityRow]:
        wanted = texts([name for name in dict.fromkeys(instance_ids) if is_sayable(name)])
        return sorted(map(ActivityRow._make, self._ask(Statement("placed_rows", (wanted,)))[0]))

    def notify(self, incarnations: Sequence[int]) -> None:
        if self._wire is not None:
            self._hints.send(incarnations)

    def listen(self, heard: Callable[[], None]) -> None:
        self._check_shared()
        self._hints.listen(heard)

    def _check_shared(self) -> Wire:
        self._process.check(self._address.shown)
        if self._wire is None:
            self._refuse()
        if not self._incarnation:
            raise StoreError(f"{self._address.shown} is open exclusively: register before it is opened")
        return self._wire

    # --------------------------------------------------------------------------------------------- moving

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = self._working(lambda wire: moving.sizes(wire, self._schema))
        return found

    def export(self, table: str, after: Key, limit: int) -> tuple[list[Row], Key]:
        rows, after = self._working(lambda wire: moving.export(wire, self._schema, table, after, limit))
        rows = opened(self._vault, table, rows)
        demand_readable(rows)
        return rows, after

    def begin_import(self) -> Opening:
        demand_empty(self.sizes(), f"hub {self.hub!r} of {self._address.shown}")
        name = text(self.hub + UNFINISHED)

        def begin(wire: Wire) -> int:
            for hub_no, _ in wire.one("hub", name):
                wire.ask(moving.clear(self._schema, hub_no))
            # The copy replaces the empty hub that is there, and its rows are placed in as many partitions.
            [(hub_no, _)] = _new_hub(wire, self.hub + UNFINISHED, self._partitions)
            return int(hub_no)

        self._importing = self._working(begin)
        return Opening(1, 1)

    def import_rows(self, table: str, rows: Sequence[Row]) -> None:
        if self._vault is not None:
            rows = self._vault.seal(table, rows)
        try:
            call = moving.insert(self._schema, self._importing, self._partitions, table, rows)
        except FOR_ITS_DATA as error:
            raise translated(error, self._address.shown) from error
        self._working(lambda wire: wire.ask([call]))

    def finish_import(self) -> None:
        new, old, schema = self._importing, self._hub_no, self._schema
        self._working(
            lambda wire: wire.ask(
                [
                    Statement("", (), f"update {schema}.encryption set hub_no = {new} where hub_no = {old}"),
                    *moving.clear(schema, old),
                    Statement(
                        "",
                        (text(self.hub),),
                        f"update {schema}.hubs set name = $1::text where hub_no = {new}",
                    ),
                ]
            )
        )
        self.reopen()

    @contextmanager
    def _dropping(self) -> Iterator[Wire]:
        self._process.check(self._address.shown)
        wire = self._wire
        if wire is None:
            self._refuse()
        try:
            yield wire
        except psycopg.Error as error:
            self._drop_connection(f"a transaction ended with {type(error).__name__}; it must be opened again")
            raise translated(error, self._address.shown) from error
        except BaseException:
            self._drop_connection(_CAUTIOUS)
            raise

    def _working(self, work: Callable[[Wire], Any]) -> Any:
        """Work outside the loop's hot path; any failure ends the connection."""
        with self._dropping() as wire:
            return work(wire)

    # ---------------------------------------------------------------------------------------- encrypting

    def rekey(self, progress: Callable[[str, int, int], object] = lambda *_: None) -> Rekeyed:
        """Encrypt with the current key all plain rows and those of other keys, one page per transaction."""
        if self._vault is None:
            raise StoreUnusable(f"{self._address.shown} has no encryption key: set PERDURE_ENCRYPTION_KEYS")

        def ask(asked: Sequence[tuple[str, tuple[bytes, ...]]]) -> list[Any]:
            calls = [Statement("", values, sql) for sql, values in asked]
            rows: list[Any] = self._working(lambda wire: wire.ask(calls)[-1].rows)
            return rows

        return encrypting.PostgresRekeying(self._vault, self._hub_no, self._schema, ask).run(progress)

    def vacuum(self) -> None:
        """Rewrite the hub's tables, so that no deleted or replaced content remains in them."""
        for table in (*moving.KEYS, "activities"):
            with self._dropping() as wire:
                wire.text(f"vacuum full {self._schema}.{table}")

    # --------------------------------------------------------------------------------------- maintenance

    def maintain(self, now: int) -> None:
        """Delete expired rows, on any thread: a bounded number at a time, and per call."""
        self._process.check(self._address.shown)
        if self._wire is None:
            return
        most = number(_EXPIRED_AT_ONCE)
        calls = [
            Statement("expire_seen", (number(now), most)),
            Statement("expire_dropped", (number(now - DROPPED_KEPT), most)),
            Statement("expire_audit", (number(now - AUDIT_KEPT), most)),
            Statement("expire_workers", (number(now - _DAY),)),
            *(Statement("expire_ring", (number(one), number(oldest_kept(now, one)))) for one in KEPT),
        ]

        def expire(wire: Wire) -> None:
            for _ in range(_EXPIRY_ROUNDS):
                if max(answer.touched for answer in wire.ask(calls)) < _EXPIRED_AT_ONCE:
                    return

        with suppress(CommitConflict):  # another worker does it
            self._upkeep.do(expire)


def _new_hub(wire: Wire, hub: str, partitions: int) -> list[Any]:
    """Create a hub, unless another process has just done so. Returns its number and its partitions."""
    name = text(hub)
    *_, found = wire.ask(
        [
            Statement("add_hub", (name, number(partitions))),
            Statement("add_partitions", (name,)),
            Statement("hub", (name,)),
        ]
    )
    return found.rows


class _Aside:
    """A second connection, for any thread, one at a time; created on demand and after an error."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._wire: Wire | None = None
        self.purpose = UPKEEP

    def do(self, work: Callable[[Wire], Any]) -> Any:
        """Raises StoreError. Work that fails because its connection had died is repeated on a new one."""
        address = self._store._address
        with self._lock:
            used_before = self._wire is not None
            while True:
                wire = self._wire or connect(address, self.purpose)
                wire.hub_no, self._wire = self._store._hub_no, None
                try:
                    done = work(wire)
                except psycopg.Error as error:
                    wire.close()
                    if used_before and error.sqlstate is None:
                        used_before = False
                        continue
                    raise translated(error, address.shown) from error
                except BaseException:
                    wire.close()
                    raise
                self._wire = wire
                return done

    def close(self) -> None:
        with self._lock:
            wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


def _is_running(row: InstanceRow, execution_id: str) -> bool:
    """Whether this is the current execution. An entity's operations outside the loop belong to execution 0."""
    if row.completed_at is not None:
        return False
    return execution_id == execution_id_of(row.salt, 0 if row.kind == "entity" else row.execution_no)


def _is_readable(row: ActivityRow) -> bool:
    return not isinstance(row.invocation, Unreadable)


def _episode(row: HistoryRow) -> int:
    return row.episode


__all__ = ["PostgresStore"]
