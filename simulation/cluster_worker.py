"""A member: a worker among others, composed as `Engine` does it, and what befalls it alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from perdure.engine.cluster.coordinator import Sharing
from perdure.engine.cluster.membership import Membership, quietly_renewed
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.partitions import Partitions
from perdure.engine.core.placement import Placement
from perdure.engine.core.ports import RandomSource
from perdure.engine.loop.loop import Loop
from perdure.errors import StoreError
from perdure.model.records import ANSWERED
from perdure.store.port import Profile
from simulation.activities import ACTIVITIES, POOL, pool_of
from simulation.activity_pool import FakePool
from simulation.clock import WorkerClock
from simulation.database import Database, DatabaseSession
from simulation.injector import SimulatedCrash
from simulation.worker import BOOT_AFTER, Never, SimulatedWorker

if TYPE_CHECKING:
    from simulation.plan import Fault
    from simulation.stage import Stage

LONGEST_DOZE = 6.0  # seconds
MOST_BEGINS = 20  # of one activity; faults explain fewer
LOOKS = 0.25  # seconds between two looks whether a leaving worker's activities have ended


class ClusterWorker(SimulatedWorker):
    """One of several workers over one hub."""

    def __init__(self, world: Stage, number: int, database: Database) -> None:
        knobs = world.plan.knobs
        self.world = world
        self._database = database
        self._number = number
        self._drift = knobs.drift * (0, 1, -1, 0.5, -0.5)[number % 5]
        self.is_door = number >= knobs.workers  # takes messages, and runs nothing
        self._crept = 0.0
        self._idle = 0  # turns without anything to do
        self.store: DatabaseSession
        self.clock: WorkerClock
        self.is_leaving = False
        self._frozen_until = 0  # the loop's thread is frozen, and the rest continues
        super().__init__(world, WorkerClock(database.clock, self._drift), DatabaseSession(self, database))
        self.name = f"w{number}"

    # ----------------------------------------------------------------------------------------- the process

    def boot(self) -> None:
        if self.incarnation:
            self.world.met("a worker came back as another process")
        self.clock = WorkerClock(self._database.clock, 0.0 if self.world.injector.is_healed else self._drift)
        self.store = DatabaseSession(self, self._database)
        self.is_leaving = self.was_taken_over = False
        self._frozen_until = 0
        super().boot()

    def _new_loop(self) -> Loop:
        dispatcher = Dispatcher(
            self.bodies,
            RandomSource(lambda: self.world.salts.randbytes(16), self._creeping),
            limits=self._limits(),
            running=self.probe,
            accept_only=self.is_door,
            territory=Partitions(),
        )
        return Loop(
            dispatcher,
            self.store,
            self.clock,
            Never(),
            finished=self._finished,
            committed=self._committed,
            telemetry=self._traces(dispatcher),
        )

    def _creeping(self) -> float:
        """Time passes while it is measured, if the plan says so: that is what cuts batches by time."""
        self._crept += self.world.plan.knobs.creeping
        return self.clock.monotonic() + self._crept

    def _new_pool(self, slots: int = 0) -> FakePool:
        return super()._new_pool(self.world.plan.knobs.slots)

    def _joins(self, loop: Loop, pool: FakePool) -> None:
        knobs, dispatcher = self.world.plan.knobs, loop.dispatcher
        territory = dispatcher.territory
        assert territory is not None
        served = (POOL,) if self._serves_pool() else ()
        role = "api" if self.is_door else "worker"
        self.store.register(Profile(self.name, role, served, "{}", int(knobs.lease * 1e6)))
        if not self.is_door:
            pools = {name: pool_of(name) if knobs.pooled else "" for name in ACTIVITIES}
            dispatcher.placement = Placement(pools, served, pool)  # type: ignore[arg-type]
        store: Any = self.store  # a `SharedStore` without what only clients and `perdure verify` read
        membership = Membership(store, territory, self.clock, lease=knobs.lease, is_worker=not self.is_door)
        sharing = Sharing(store, dispatcher, self.clock, territory, membership, dispatcher.placement)
        sharing.nudge = self._nudged
        sharing.withdrawn = pool.cancel
        loop.sharing = sharing
        self.after(knobs.lease / 3, lambda: self._stay(membership))

    def _serves_pool(self) -> bool:
        knobs = self.world.plan.knobs
        return knobs.workers - knobs.pooled <= self._number < knobs.workers

    def _nudged(self) -> None:
        if self.loop is not None:
            self.loop.nudge()
            self._turn_in(self.world.plan.knobs.gap)

    def _stay(self, membership: Membership) -> None:
        """The thread beside the loop that renews the lease."""
        loop = self.loop
        if loop is None or loop.sharing is None or loop.sharing.membership is not membership:
            return
        self.store.is_aside = True
        quietly_renewed(membership)
        self.store.is_aside = False
        self.after(self.world.plan.knobs.lease / 3, lambda: self._stay(membership))

    def _begun(self, invocation: Any) -> None:
        key = invocation.execution_id, invocation.task_id
        self.world.ledger.begun(
            invocation.instance_id,
            *key,
            stale=not self._may_run(invocation.instance_id, key),
        )
        self.world.trace("begun", self.name, invocation.instance_id, *key, invocation.attempt)
        ledger = self.world.ledger
        ledger.begins[key] += 1
        if ledger.begins[key] > MOST_BEGINS:
            ledger.problem("again", f"activity {key} of {invocation.instance_id} is run again and again")
        for other in self.world.workers:
            if isinstance(other, ClusterWorker) and other is not self and self._is_twice(other, key):
                self.world.ledger.problem(
                    "twice",
                    f"activity {key} of {invocation.instance_id} began at {self.name} while {other.name} runs it",
                )

    def _is_twice(self, other: ClusterWorker, key: tuple[str, int]) -> bool:
        """Whether the other one runs this already, and neither has ever been taken for dead."""
        return other.rightly_runs(key) and not self.was_taken_over

    def rightly_runs(self, key: tuple[str, int]) -> bool:
        """Whether it runs this, has not been asked to stop, and was never taken for dead."""
        return self.pool is not None and self.pool.is_running(key) and not self.was_taken_over

    def _may_run(self, instance_id: str, key: tuple[str, int]) -> bool:
        """Whether the activity really belongs to this worker, whatever it believes."""
        incarnation = self.store.incarnation
        placed = self.world.ledger.placed.get(key)
        if placed is not None and placed.claimant != ANSWERED:
            return placed.claimant == incarnation
        return self._database.ownership.owner_of(instance_id) == incarnation

    def _went_on(self, run: Any) -> bool:
        return run.row.instance_id in self.world.ledger.rewound

    # --------------------------------------------------------------------------------------------- turning

    def _turn(self, loop: Loop, at: int) -> None:
        if self.loop is loop and self._turn_at == at and self._frozen_until > self.world.clock.true:
            self._turn_at = None
            self._turn_in((self._frozen_until - self.world.clock.true) / 1e6)
            return
        super()._turn(loop, at)

    def _idles(self, seconds: float) -> float:
        """An idle worker polls more and more seldom: polls may be late, and long waits pass quickly."""
        return max(seconds, min(self.world.plan.knobs.doze * 2.0 ** min(self._idle, 8), LONGEST_DOZE))

    def _count(self, loop: Loop, envelopes: list[Envelope]) -> None:
        self.world.steps += bool(envelopes)
        self._idle = 0 if envelopes else self._idle + 1

    def _suffer(self, fault: Fault) -> None:
        world, now = self.world, self.world.clock.true
        until = now + int(fault.amount * 1e6)
        world.trace(fault.effect, self.name, fault.amount)
        match fault.effect:
            case "pause":
                self.stands_still_until = until
                if fault.amount > world.plan.knobs.lease:
                    world.met("a worker paused beyond its lease, and continued")
            case "freeze":
                self._frozen_until = until
                world.met("a loop held up while its lease was prolonged")
            case "leave":
                self.leave(fault.amount)
            case "die":
                world.met("a worker died")
                raise SimulatedCrash
            case "away":
                self._database.go_away(fault.amount)

    def heal(self) -> None:
        """Nothing befalls it any more."""
        self.clock.heal()
        self.stands_still_until = self._frozen_until = 0

    # --------------------------------------------------------------------------------------------- leaving

    def leave(self, drain: float) -> None:
        """Leave in order: release everything, wait for running activities, and return later."""
        loop = self.loop
        if loop is None or self.is_leaving:
            return
        self.is_leaving = True
        loop.leaving = True
        self._nudged()
        deadline = self.world.clock.true + int(drain * 1e6)
        self.after(LOOKS, lambda: self._drained(loop, deadline, drain))

    def _drained(self, loop: Loop, deadline: int, drain: float) -> None:
        if self.loop is not loop:
            return
        assert self.pool is not None
        if self.pool.is_busy and self.world.clock.true < deadline:
            self.after(LOOKS, lambda: self._drained(loop, deadline, drain))
            return
        self.world.met("a worker left in good order")
        self.world.trace("left", self.name)
        loop.stopping = True
        loop.refuse_rest()
        self.die()
        try:
            self.store.close()
        except StoreError:
            self.world.trace("left without a word", self.name)
        self.world.connection_lost(self)
        self.after(max(drain, BOOT_AFTER), self.boot)
