"""A worker: one process that serves the hub, with its loop, its activities, and its deaths."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.envelope import Envelope
from perdure.engine.core.instance import Instance
from perdure.engine.core.ports import Limits, RandomSource, Released, Running
from perdure.engine.loop.loop import Loop
from perdure.errors import Interrupted, StoreError
from perdure.model.messages import Message
from perdure.model.records import Batch
from perdure.replay.context import OrchestrationContext
from simulation.activity_pool import FakePool
from simulation.exported import SimulatedTracer
from simulation.injector import SimulatedCrash
from simulation.interpreter import Bodies, Unfit

if TYPE_CHECKING:
    from simulation.backend import StoreBackend
    from simulation.clock import WorkerClock, WorldClock
    from simulation.failing_store import FailingStore
    from simulation.stage import Stage

BOOT_AFTER = 0.7  # seconds until a dead process is started again


class SimulatedWorker:
    """The engine that has its hub to itself."""

    name = ""

    def __init__(
        self,
        world: Stage,
        clock: WorldClock | WorkerClock,
        store: FailingStore,
        backend: StoreBackend | None = None,
    ) -> None:
        self.world = world
        self.clock = clock
        self.store = store
        self.probe = WorldProbe(world)
        self.bodies = Bodies(world.plan.program, self.probe)
        self.incarnation = 0  # of the process
        self.loop: Loop | None = None
        self.pool: FakePool | None = None
        self.stands_still_until = 0
        self.was_taken_over = False  # by another one
        self.is_busy = False  # in the middle of something, while the others go on
        self._backend = backend
        self._turn_at: int | None = None

    # ----------------------------------------------------------------------------------------- the process

    def boot(self) -> None:
        self.incarnation += 1
        self.probe.boot()
        loop = self._new_loop()
        loop.pool = self.pool = self._new_pool()  # type: ignore[assignment]
        self.loop = loop
        self.bodies.environment.pause = lambda instance_id: self._pause_in_a_step(loop, instance_id)
        self._joins(loop, self.pool)
        self.world.trace("boot", *self._named, self.incarnation)
        try:
            loop.open()
        except StoreError:
            self.crash()
            return
        self._turn_in(0.0)

    @property
    def _named(self) -> tuple[str, ...]:
        return (self.name,) if self.name else ()

    def _new_loop(self) -> Loop:
        dispatcher = Dispatcher(self.bodies, self._random_source(), limits=self._limits(), running=self.probe)
        return Loop(
            dispatcher,
            self.store,
            self.clock,
            Never(),
            finished=self._finished,
            committed=self._committed,
            telemetry=self._traces(dispatcher),
        )

    def _traces(self, dispatcher: Dispatcher) -> SimulatedTracer:
        """The tracer of a new process, which also exports."""
        tracer = SimulatedTracer(self.world.exported)
        dispatcher.tracing, dispatcher.tells = tracer, True
        return tracer

    def _random_source(self) -> RandomSource:
        return RandomSource(lambda: self.world.salts.randbytes(16), self.clock.monotonic)

    def _limits(self) -> Limits:
        knobs = self.world.plan.knobs
        return Limits(
            episodes=knobs.episodes,
            feeds=knobs.feeds,
            row_bytes=knobs.row_bytes,
            inline_bytes=knobs.inline_bytes,
            buffered_events=knobs.buffered_events,
            keep_executions=knobs.keep_executions,
        )

    def _joins(self, loop: Loop, pool: FakePool) -> None:
        """Be one among others; here there are none."""

    def _new_pool(self, slots: int = 0) -> FakePool:
        world = self.world
        return FakePool(
            world.plan.knobs,
            world.chance,
            world.injector,
            world.met,
            incarnation=self.incarnation,
            name=self.name,
            after=self.after,
            operate=self.bodies.operate,
            started=self._begun,
            ran=self._ran,
            deliver=self._deliver,
            slots=slots,
        )

    def _begun(self, invocation: Any) -> None:
        self.world.ledger.begun(invocation.instance_id, invocation.execution_id, invocation.task_id)

    def guarded(self, action: Callable[[], None]) -> None:
        """Something of this process, which may be its death."""
        try:
            action()
        except SimulatedCrash:
            self.crash()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        self.world.after(seconds, action, self)

    def crash(self) -> None:
        """The process is gone: its memory is lost, and its clients get no answers."""
        self.world.trace("crash", *self._named)
        self.die()
        if self._backend is not None:
            self._backend.crash()
        self.world.connection_lost(self)
        self.after(BOOT_AFTER, self.boot)

    def die(self) -> None:
        loop, pool = self.loop, self.pool
        self.loop = self.pool = None
        self._turn_at = None
        if pool is not None:
            pool.is_alive = False
        if loop is not None:
            loop.dispatcher.drop_everything()

    def heal(self) -> None:
        """No more faults from now on; the clock is the world's own."""

    def post(self, message: Message, reply: Any) -> None:
        """A client's message has come."""
        assert self.loop is not None
        self.loop.post(message, reply)
        self._turn_in(self.world.plan.knobs.gap)

    def _deliver(self, message: Any) -> None:
        if self.loop is not None:
            self.world.trace(
                "result", *self._named, message.instance_id, message.execution_id, message.task_id
            )
            self.loop.post(message)
            self._turn_in(self.world.plan.knobs.gap)

    def _ran(self, body: Any) -> None:
        self.world.trace("ran", *self._named, body.instance_id, body.task_id, body.attempt)
        self.world.ledger.ran(body)

    # --------------------------------------------------------------------------------------------- turning

    def _turn_in(self, seconds: float) -> None:
        at = self.world.clock.true + int(seconds * 1e6)
        if self.loop is None or (self._turn_at is not None and self._turn_at <= at):
            return
        self._turn_at = at
        loop = self.loop
        self.after(seconds, lambda: self._turn(loop, at))

    def _turn(self, loop: Loop, at: int) -> None:
        if self.loop is not loop or self._turn_at != at:
            return
        self._turn_at = None
        stale = loop.dispatcher.counters["stale_results"]
        self._befall(loop)
        envelopes = loop.take(wait=False)
        self._note_results(envelopes)
        self._count(loop, envelopes)
        loop.turn(envelopes)
        self.world.ledger.note_given_up(loop._poisoned_rows)
        if loop.dispatcher.counters["stale_results"] > stale:
            self.world.met("a stale activity result dropped")
        if loop.dispatcher.lines:
            self.world.met("messages that stood in line for the next batch")
        if loop.dispatcher.lines or not loop.inbox.empty():
            self._turn_in(0.0)
        else:
            following = loop.next_at()
            assert following is not None
            self._turn_in(self._idles(self.clock.until(following) / 1e6))

    def _count(self, loop: Loop, envelopes: list[Envelope]) -> None:
        self.world.steps += 1

    def _idles(self, seconds: float) -> float:
        return seconds

    def _note_results(self, envelopes: list[Envelope]) -> None:
        ledger = self.world.ledger
        for envelope in envelopes:
            message = envelope.message
            key = (getattr(message, "execution_id", ""), getattr(message, "task_id", -1))
            if type(message).__name__ == "ActivityResult" and key in ledger.completed:
                self.world.met("a duplicate result dropped")

    def _pause_in_a_step(self, loop: Loop, instance_id: str) -> bool:
        """A step takes long, and clients go on meanwhile: their starts are accepted in the middle of it."""
        pause = self.world.injector.at("pause")
        if pause is None:
            return False
        self.world.meanwhile(pause.amount, self)
        loop.early.accept()
        parts = pause.effect == "part" and loop.early.keeps_others_waiting(instance_id)
        if parts:
            self.world.met("a long step done again in a batch of its own")
        return parts

    def _befall(self, loop: Loop) -> None:
        """What happens between two turns: evictions, and clocks that are set."""
        dispatcher, world = loop.dispatcher, self.world
        if world.plan.knobs.evicts_always:
            dispatcher.cache.evict_idle(2**62)
        fault = world.injector.at("step")
        if fault is not None and fault.effect == "evict":
            dispatcher.cache.evict_idle(2**62, int(fault.amount))
        elif fault is not None and fault.effect == "jump":
            world.clock.offset += int(fault.amount * 1e6)
            world.met("the clock went back" if fault.amount < 0 else "the clock leapt ahead")
            world.trace("jump", fault.amount)
        elif fault is not None:
            self._suffer(fault)
        if dispatcher.counters["replays"] and dispatcher.counters["evictions"]:
            world.met("an eviction, and a replay after it")

    def _suffer(self, fault: Any) -> None:
        """What happens only to one among several."""

    def _committed(self, batch: Batch, _: float) -> None:
        if batch.is_empty():
            return
        world = self.world
        world.fingerprint(b"".join(row.hash for row in batch.history))
        sizes = [len(batch.inbox_added), len(batch.inbox_removed), len(batch.seen), len(batch.dropped)]
        if self.loop is not None and self.loop.dispatcher.making is not None:
            world.met("a start accepted in the middle of a step")
        what = [(row.instance_no, row.status, row.due_at) for row in batch.updates]
        born = [row.instance_id for row in batch.new_instances]
        world.trace("commit", *self._named, batch.at, born, what, sizes)
        if any(at > batch.at + 60_000_000 for _, _, at in what if at is not None):
            world.met("a timer beyond the horizon")

    def _finished(self, released: Released, _: object) -> None:
        """When waits for an end are resolved, the end must be committed."""
        ledger = self.world.ledger
        for instance in released.finished:
            run = ledger.runs.get(instance.no)
            if run is not None and not run.is_finished and not run.purged and not self._went_on(run):
                ledger.problem("I16", f"{run} was announced as finished and is {run.row.status}")
        ended = {instance.no for instance in released.finished}
        for run in self.store.purged_alive:
            if run.row.instance_no not in ended:
                ledger.problem("I34", f"{run} was purged while {run.row.status}")
        self.store.purged_alive = []

    def _went_on(self, run: Any) -> bool:
        """Whether another worker has taken it up again since."""
        return False


T = TypeVar("T")


class WorldProbe(Running):
    """The world's effects on orchestrators' code: the engine's `Running` and the interpreter's `Probe` in one."""

    def __init__(self, world: Stage) -> None:
        super().__init__()
        self._world = world
        self._missing: set[str] = set()
        self._misfits: set[str] = set()
        self._unfit: set[str] = set()
        self.has_been_poor = False

    def boot(self) -> None:
        """A new deployment: it may lack an orchestrator, or have one that fits no history."""
        if self._missing and not self._world.injector.is_healed:
            self._world.met("no worker had the orchestrator, and later one did")
        fault = self._world.injector.at("boot")
        self._missing = {fault.target} if fault is not None and fault.effect == "missing" else set()
        self._misfits = {fault.target} if fault is not None and fault.effect == "misfit" else set()
        self._unfit = {fault.target} if fault is not None and fault.effect == "unfit" else set()
        self.has_been_poor = bool(self._missing or self._misfits or self._unfit)

    def run(self, instance: Instance, code: Callable[..., T], *given: Any) -> T:
        if self._world.injector.crashes("enter"):
            self._world.met("a crash in the middle of user code")
            raise SimulatedCrash
        value = code(*given)
        if self._world.injector.at("swallow") is not None:
            raise Interrupted("simulated: it swallowed its interruption")
        return value

    def step(self, context: OrchestrationContext) -> None:
        if context.is_replaying:
            return
        if self._world.injector.at("hang") is not None:
            self._world.met("user code was interrupted by the watchdog")
            raise Interrupted("simulated: it ran too long")
        context._pause()

    def hangs(self) -> bool:
        if self._world.injector.at("hang") is None:
            return False
        self._world.met("an operation interrupted by the watchdog")
        return True

    def misfits(self, name: str) -> bool:
        if name in self._misfits:
            self._world.met("code did not fit history, and later did")
        return name in self._misfits

    def expects(self, name: str) -> Any:
        if name not in self._unfit:
            return None
        self._world.met("results did not fit the code, and later did")
        return Unfit

    def has(self, name: str) -> bool:
        return name not in self._missing

    def met(self, case: str) -> None:
        self._world.met(case)


class Never:
    """An `InboxWaiter` that never waits: the world turns the loop when it is time."""

    def wait(self, inbox: SimpleQueue[Any], until: int | None, busy: Callable[[], bool]) -> None:
        return None
