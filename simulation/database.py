"""The model of PostgreSQL: one hub in memory that several workers reach through connections that fail.

The store in memory keeps the data; this module adds the effects of a network and a server. A statement may
arrive late, after its session has ended; a transaction may be in progress and hold its incarnation's row, so
that a worker that voids that incarnation must wait; an answer may never come; hints may get lost; and for a
while the server may reject all connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn, TypeVar

from perdure.errors import CommitConflict, CommitRefused, FenceLost, StoreError
from perdure.model.records import (
    ActivityRow,
    Batch,
    InstanceRow,
    Poll,
    SeenRow,
    StoredInstance,
    WaitRow,
)
from perdure.store.memory import MemoryStore
from perdure.store.port import Census, Opening, Profile
from simulation.failing_store import FailingStore
from simulation.injector import SimulatedCrash
from simulation.ownership import Ownership

if TYPE_CHECKING:
    from simulation.clock import WorldClock
    from simulation.ledger import RunRecord
    from simulation.plan import Fault
    from simulation.stage import Process, Stage

T = TypeVar("T")
HINT = 0.002  # seconds that a hint is under way


class Database:
    """The server: the statements on their way, the row locks, and the listeners."""

    def __init__(self, world: Stage, clock: WorldClock, root: MemoryStore) -> None:
        self.world = world
        self.clock = clock
        self.root = root
        self.away_until = 0  # world time
        self.locked: Counter[int] = Counter()  # transactions under way, by incarnation
        self.ownership = Ownership(
            world.ledger,
            world.met,
            root._place.roster,
            clock,
            is_exact=not world.plan.knobs.drift and all(f.effect != "jump" for f in world.plan.faults),
        )
        self.listeners: dict[int, tuple[Process, Callable[[], None]]] = {}

    def connect(self) -> MemoryStore:
        return self.root.beside()

    @property
    def is_away(self) -> bool:
        return self.away_until > self.clock.true

    def go_away(self, seconds: float) -> None:
        """It refuses everybody for a while; transactions under way are rolled back, locks let go."""
        self.away_until = max(self.away_until, self.clock.true + int(seconds * 1e6))
        self.world.trace("away", seconds)
        self.world.met("the database was away for all")

    def land(self, door: MemoryStore, batch: Batch) -> list[RunRecord]:
        """Execute a commit. Raises the store's errors; an unexpected error is a problem."""
        ledger, incarnation = self.world.ledger, door._incarnation
        try:
            door.commit(batch)
        except CommitConflict:
            self.world.met("two workers raced for one id or operation")
            raise
        except (CommitRefused, FenceLost) as error:
            if isinstance(error, FenceLost) and self.ownership.is_void(incarnation):
                self.world.met("a commit refused by the fence")
            else:
                ledger.problem("refused", f"the store would not have what the engine wrote: {error}")
            raise
        self.ownership.committed(incarnation, batch)
        purged_alive = ledger.applied(batch, incarnation)
        self.ownership.compare()
        return purged_alive

    def send_late(self, door: MemoryStore, batch: Batch, seconds: float, *, holds: bool) -> None:
        """A commit whose sender is not heard any more. With `holds` it is under way on the server already."""
        incarnation = door._incarnation
        ghost = self.connect()
        ghost._profile, ghost._incarnation, ghost._is_open = door._profile, incarnation, True
        self.locked[incarnation] += holds
        self.world.after(seconds, lambda: self._arrive(ghost, batch, holds=holds))

    def _arrive(self, ghost: MemoryStore, batch: Batch, *, holds: bool) -> None:
        self.locked[ghost._incarnation] -= holds
        if self.is_away and not holds:
            return  # reset with all other connections
        try:
            self.land(ghost, batch)
        except StoreError:
            self.world.met("a commit arrived when its incarnation was void")
            return
        self.world.trace("landed", ghost._incarnation)
        self.world.met("a commit landed after its sender had lost the connection")

    def hint(self, incarnation: int) -> None:
        found = self.listeners.get(incarnation)
        if found is None:
            return
        fault = self.world.injector.at("hint")
        if fault is not None and fault.effect == "lost":
            self.world.met("a hint lost")
            return
        member, heard = found
        late = fault.amount if fault is not None else 0.0
        if late:
            self.world.met("a hint late")

        def arrives() -> None:
            if self.listeners.get(incarnation) == found:
                heard()

        self.world.after(HINT + late, arrives, member)


class DatabaseSession(FailingStore):
    """One worker's way to the database: a `SharedStore` whose connections fail."""

    is_shared = True
    place = ""
    late_results = 0

    def __init__(self, member: Process, database: Database) -> None:
        world = database.world
        super().__init__(database.connect(), world.injector, world.ledger, world.met, lambda: None)
        self.inner: MemoryStore
        self._member = member
        self._database = database
        self._world = world
        self.is_aside = False  # it is the thread beside the loop that asks

    @property
    def incarnation(self) -> int:
        return self.inner._incarnation

    # -------------------------------------------------------------------------------------- a round trip

    def _ask(self, verb: str, question: Callable[[], T]) -> T:
        """One question, and what may befall it on the way there and back."""
        self._check()
        fault = self._injector.at(verb)
        effect = fault.effect if fault is not None else ""
        self._befall_before(effect, fault)
        answer = question()
        if effect == "fail after":
            self._met("an answer of the database lost")
            self._break("the answer was lost")
        if effect == "slow after":
            assert fault is not None
            self._world.meanwhile(fault.amount, self._member)
            self._check()
        return answer

    def _befall_before(self, effect: str, fault: Fault | None) -> None:
        if effect == "crash":
            self._met("a crash in a read of the store")
            self._crash()
        if effect == "fail":
            self._met("a read of the store failed")
            self._break("a read failed")
        if effect == "slow":
            assert fault is not None
            self._world.meanwhile(fault.amount, self._member)
            self._check()

    def _check(self) -> None:
        if self._database.is_away:
            self._broken = True
            raise StoreError("simulated: the database cannot be reached")
        super()._check()

    def _break(self, why: str) -> NoReturn:
        if self._injector.is_healed:
            raise AssertionError(f"a fault after the healing: {why}")
        super()._break(why)

    # ------------------------------------------------------------------------------------ coming and going

    def register(self, profile: Profile) -> None:
        self.inner.register(profile)

    def _opened(self, how: Callable[[], Opening]) -> Opening:
        if self._database.is_away:
            raise StoreError("simulated: the database cannot be reached")
        before = self.incarnation
        opening = super()._opened(lambda: self._enter(how))
        self._database.listeners.pop(before, None)
        if self._world.injector.at("opened") is not None:
            self._met("an answer of the database lost")
            self._broken = True
            raise StoreError("simulated: registered, and the answer was lost")
        return opening

    def _enter(self, how: Callable[[], Opening]) -> Opening:
        before, database = self.incarnation, self._database
        while database.locked[before]:
            self._met("a worker coming back waited for its own commit")
            self._world.meanwhile(0.1, self._member)
            if database.is_away:
                raise StoreError("simulated: the database cannot be reached")
        opening = how()
        database.ownership.entered(opening, before, self._member.name)
        self._world.trace("entered", self._member.name, before, opening.incarnation, sorted(opening.owned))
        self._ledger.passed_on(before, opening.incarnation)
        return opening

    def close(self) -> None:
        """Given up in good order; void at once, if the database can be reached and nothing is under way."""
        database, incarnation = self._database, self.incarnation
        database.listeners.pop(incarnation, None)
        if database.is_away or database.locked[incarnation]:
            return
        was_void = database.ownership.is_void(incarnation)
        self.inner.close()
        if not was_void:
            database.ownership.voided(incarnation, by=incarnation)
            self._ledger.passed_on(incarnation, None)

    # ---------------------------------------------------------------------------------------------- reading

    def load(self, instance_ids: Sequence[str]) -> list[StoredInstance]:
        return self._ask("load", lambda: self.inner.load(instance_ids))

    def history_of(self, instance_no: int, execution_no: int) -> StoredInstance | None:
        return self._ask("load", lambda: self.inner.history_of(instance_no, execution_no))

    def seen(self, operation_ids: Sequence[str]) -> list[SeenRow]:
        return self._ask("seen", lambda: self.inner.seen(operation_ids))

    def rows(self, instance_ids: Sequence[str]) -> list[InstanceRow]:
        return self._ask("seen", lambda: self.inner.rows(instance_ids))

    def waits(self, instance_nos: Sequence[int]) -> list[WaitRow]:
        return self._ask("waits", lambda: self.inner.waits(instance_nos))

    def finished(self, status: str, before: int, after: tuple[int, int], limit: int) -> list[InstanceRow]:
        return self._ask("finished", lambda: self.inner.finished(status, before, after, limit))

    def poll(self, now: int, horizon: int, limit: int) -> Poll:
        return self._ask("poll", lambda: self.inner.poll(now, horizon, limit))

    def local_work(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        return self._ask("local_work", lambda: self.inner.local_work(after_no, limit))

    def parked(self, after_no: int, limit: int) -> list[tuple[int, str]]:
        return self._ask("parked", lambda: self.inner.parked(after_no, limit))

    def census(self) -> Census:
        return self._ask("census", self.inner.census)

    def claims(self) -> list[ActivityRow]:
        return self._ask("claims", self.inner.claims)

    def placed(self, instance_ids: Sequence[str]) -> list[ActivityRow]:
        return self._ask("placed", lambda: self.inner.placed(instance_ids))

    # --------------------------------------------------------------------------------------- being one of many

    def renew(self) -> bool:
        """On a connection of its own: that fails without the other."""
        if self._database.is_away:
            raise StoreError("simulated: the database cannot be reached")
        fault = self._injector.at("renew")
        effect = fault.effect if fault is not None else ""
        if effect == "fail":
            self._met("a renewal failed")
            raise StoreError("simulated: the lease could not be prolonged")
        if effect == "slow" and not self.is_aside:
            assert fault is not None
            self._met("a renewal under way for long")
            self._world.meanwhile(fault.amount, self._member)
        renewed = self.inner.renew()
        if renewed and self._database.ownership.is_void(self.incarnation):
            self._ledger.problem("I28", f"incarnation {self.incarnation} is void and prolonged its lease")
        if not renewed:
            self._met("a lease lost, and noticed")
        if effect == "fail after":
            raise StoreError("simulated: the lease was prolonged, and the answer lost")
        return renewed

    def drain(self) -> None:
        self._ask("drain", self.inner.drain)

    def expire(self, incarnations: Sequence[int]) -> None:
        self._ask("expire", lambda: self.inner.expire(incarnations))

    def void(self, incarnation: int) -> bool:
        return self._ask("void", lambda: self._void(incarnation))

    def _void(self, incarnation: int) -> bool:
        database = self._database
        if database.locked[incarnation]:
            self._met("a takeover that waited for a commit under way")
            return False
        if not self.inner.void(incarnation):
            return False
        self._met("a takeover")
        self._world.trace("voided", incarnation, self._member.name)
        for other in self._world.workers:
            if isinstance(other.store, DatabaseSession) and other.store.incarnation == incarnation:
                other.was_taken_over = True
        database.ownership.voided(incarnation, by=self.incarnation)
        self._ledger.passed_on(incarnation, None)
        return True

    def take(self, partitions: Sequence[int]) -> list[int]:
        return self._ask("take", lambda: self._take(partitions))

    def _take(self, partitions: Sequence[int]) -> list[int]:
        taken = self.inner.take(partitions)
        self._world.trace("took", self._member.name, taken)
        self._database.ownership.taken(self.incarnation, taken)
        return taken

    def claim(self, pools: Sequence[str], names: Sequence[str], limit: int) -> list[ActivityRow]:
        return self._ask("claim", lambda: self._claim(pools, names, limit))

    def _claim(self, pools: Sequence[str], names: Sequence[str], limit: int) -> list[ActivityRow]:
        rows = self.inner.claim(pools, names, limit)
        if len(rows) > limit or any(row.pool not in pools for row in rows):
            self._ledger.problem("I20", f"of {pools} at most {limit} were asked for, and {rows} given")
        for row in rows:
            self._ledger.claimed((row.execution_id, row.task_id), row.attempt, self.incarnation)
            self._world.trace("claimed", self._member.name, *row[:3], row.attempt)
        return rows

    def unclaim(self, activities: Sequence[tuple[str, str, int]]) -> None:
        self._ask("unclaim", lambda: self._unclaim(activities))

    def _unclaim(self, activities: Sequence[tuple[str, str, int]]) -> None:
        self.inner.unclaim(activities)
        self._met("a claim of which the answer was lost let go")
        for _, execution_id, task_id in activities:
            self._ledger.unclaimed((execution_id, task_id), self.incarnation)

    def notify(self, incarnations: Sequence[int]) -> None:
        for incarnation in incarnations:
            self._database.hint(incarnation)

    def listen(self, heard: Callable[[], None]) -> None:
        self._database.listeners[self.incarnation] = self._member, heard

    # ------------------------------------------------------------------------------------------- committing

    def commit(self, batch: Batch) -> None:
        self._check()
        fault = self._injector.at("commit")
        effect = fault.effect if fault is not None else ""
        amount = fault.amount if fault is not None else 0.0
        self._commits += 1
        if effect == "full":
            self._full = int(amount)
        self._befall_commit(effect, amount, batch)
        self._refuse(batch)
        self.purged_alive = self._database.land(self.inner, batch)
        self._befall_answer(effect, amount)
        self.is_recovering = False

    def _befall_commit(self, effect: str, amount: float, batch: Batch) -> None:
        """On the way there."""
        match effect:
            case "crash before":
                self._met("a crash before a commit took effect")
                self._crash()
            case "fail before":
                self._met("a commit unknown and found not done")
                self._break("the commit failed before it was done")
            case "conflict":
                self._met("a deadlock, or a serialization failure")
                raise CommitConflict("simulated: rolled back because of a deadlock")
            case "late":
                self._database.send_late(self.inner, batch, amount, holds=False)
                self._break("the connection was lost; the commit is on its way")
            case "under way":
                self._database.send_late(self.inner, batch, amount, holds=True)
                self._break("the connection was lost; the commit is under way")
            case "crash under way":
                self._database.send_late(self.inner, batch, amount, holds=True)
                self._met("a worker died with a commit under way")
                raise SimulatedCrash
            case "slow":
                self._met("a commit that took long to arrive")
                self._world.meanwhile(amount, self._member)
                self._check()

    def _befall_answer(self, effect: str, amount: float) -> None:
        """On the way back."""
        match effect:
            case "fail after":
                self._met("a commit unknown and found done")
                self._break("the commit failed after it was done")
            case "crash after":
                self._met("a crash after a commit took effect")
                self._crash()
            case "slow after":
                self._met("a commit whose answer took long")
                self._world.meanwhile(amount, self._member)
