"""The world: a heap of events in virtual time, one worker, its clients, and what befalls them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush
from queue import SimpleQueue
from typing import Any

from perdure.engine.contract import Chance as HubChance
from perdure.engine.contract import Limits, Released, Running
from perdure.engine.envelope import Envelope
from perdure.engine.hub import Hub
from perdure.engine.loop import Loop
from perdure.engine.warm import Instance
from perdure.errors import Interrupted, StoreError
from perdure.model.messages import Message
from perdure.model.records import Batch
from perdure.replay.context import OrchestrationContext
from simulation.backend import Backend, backend_of
from simulation.chance import Chance
from simulation.clients import Actor, Dealing
from simulation.clock import WorldClock
from simulation.injector import Crash, Injector
from simulation.interpreter import Bodies
from simulation.ledger import Ledger
from simulation.plan import Client, Plan
from simulation.pool import FakePool
from simulation.sometimes import Sometimes
from simulation.store import TroubledStore
from simulation.tending import Tending

MOST_STEPS = 3_000  # turns of the loop once the world has healed; the worst seeds need a tenth
BOOT_AFTER = 0.7  # seconds until a dead process is started again


class World:
    """One run. `run()` lives it to its end; what went wrong is in `ledger.problems`."""

    def __init__(self, plan: Plan, *, verbose: bool = False) -> None:
        self.plan = plan
        self.met = Sometimes()
        self.chance = Chance(plan.seed)
        self.injector = Injector(plan.faults)
        self.ledger = Ledger(self.met)
        self.clock = WorldClock(plan.knobs.drift, plan.knobs.creeping)
        self.backend: Backend = backend_of(plan.knobs.store)
        self.store = TroubledStore(self.backend.store, self.injector, self.ledger, self.met, self._committing)
        self.probe = WorldProbe(self)
        self.bodies = Bodies(plan.program, self.probe)
        self.dealings: list[Dealing] = []
        self.known_ids: set[str] = set()
        self.steps = 0
        self.incarnation = 0
        self.loop: Loop | None = None
        self.pool: FakePool | None = None
        self._salts = self.chance.of("salts")
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = 0
        self._turn_at: int | None = None
        self._hash = blake2b(digest_size=16)
        self._verbose = verbose
        self.actors = [Actor(self, client) for client in plan.clients]
        self._tending = Tending(self)

    # ------------------------------------------------------------------------------------------ the run

    def run(self) -> str:
        """Live until everything has come to rest, or something is wrong. Returns the hash of the trace."""
        handler = _Overheard(self.ledger)
        log = logging.getLogger("perdure.engine")
        kept, log.propagate = (log.level, log.propagate), False
        log.setLevel(logging.ERROR)
        log.addHandler(handler)
        try:
            self._guarded(self._boot)
            self.after(self.plan.knobs.heals_at, self._tending.heal)
            self._live()
            self._die()
        finally:
            log.removeHandler(handler)
            log.setLevel(kept[0])
            log.propagate = kept[1]
        return self._hash.hexdigest()

    def dispose(self) -> None:
        """Leave nothing behind."""
        self.backend.dispose()

    def _live(self) -> None:
        while self._heap and not self.ledger.problems and not self._tending.is_at_rest():
            at, _, action = heappop(self._heap)
            self.clock.true = max(self.clock.true, at)
            self._guarded(action)
            if self.steps > (self._tending.healed_at or self.steps) + MOST_STEPS:
                self._unrest("it still turns")
        if not self.ledger.problems and not self._tending.is_at_rest():
            self._unrest("nothing is left to happen")

    def _unrest(self, how: str) -> None:
        code = "I31" if any(True for _ in self.ledger.living()) else "unrest"
        self.ledger.problem(code, f"{how}: {self._tending.why_not()}")

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Crash:
            self.crash()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen later."""
        self._numbers += 1
        heappush(self._heap, (self.clock.true + int(seconds * 1e6), self._numbers, action))

    def trace(self, *what: object) -> None:
        """One line of what happened; two runs are the same when these are."""
        line = f"{self.clock.true} {' '.join(map(str, what))}"
        self._hash.update(line.encode())
        if self._verbose:
            print(f"{self.clock.true / 1e6:11.6f}  {' '.join(map(str, what))[:400]}")

    # ----------------------------------------------------------------------------------------- the process

    def _boot(self) -> None:
        self.incarnation += 1
        self.probe.boot()
        knobs = self.plan.knobs
        limits = Limits(
            episodes=knobs.episodes,
            feeds=knobs.feeds,
            row_bytes=knobs.row_bytes,
            inline_bytes=knobs.inline_bytes,
            buffered_events=knobs.buffered_events,
            keep_executions=knobs.keep_executions,
        )
        chance = HubChance(lambda: self._salts.randbytes(16), self.clock.monotonic)
        hub = Hub(self.bodies, chance, limits=limits, running=self.probe)
        loop = Loop(hub, self.store, self.clock, _Never(), finished=self._finished, committed=self._committed)
        loop.pool = self.pool = self._new_pool()  # type: ignore[assignment]
        self.loop = loop
        self.trace("boot", self.incarnation)
        try:
            loop.open()
        except StoreError:
            self.crash()
            return
        self._turn_in(0.0)

    def _new_pool(self) -> FakePool:
        return FakePool(
            self.plan.knobs,
            self.chance,
            self.injector,
            self.met,
            incarnation=self.incarnation,
            after=self.after,
            operate=self.bodies.operate,
            started=lambda i: self.ledger.begun(i.instance_id, i.execution_id, i.task_id),
            ran=self._ran,
            deliver=self._deliver,
        )

    def crash(self) -> None:
        """The process is gone: nothing in its memory counts, and those who waited for it learn nothing."""
        self.trace("crash")
        self._die()
        self.backend.crash()
        for actor in self.actors:
            actor.connection_lost()
        self.after(BOOT_AFTER, self._boot)

    def _die(self) -> None:
        loop, pool = self.loop, self.pool
        self.loop = self.pool = None
        self._turn_at = None
        if pool is not None:
            pool.is_alive = False
        if loop is not None:
            loop.hub.drop_everything()

    def post(self, message: Message, reply: Any = None) -> bool:
        """Send a message to the engine; false when nobody is there."""
        if self.loop is None:
            return False
        self.trace("post", type(message).__name__, message.instance_id, getattr(message, "operation_id", ""))
        self.loop.post(message, reply)
        self._turn_in(self.plan.knobs.gap)
        return True

    def _deliver(self, message: Any) -> None:
        if self.loop is not None:
            self.trace("result", message.instance_id, message.execution_id, message.task_id)
            self.loop.post(message)
            self._turn_in(self.plan.knobs.gap)

    def _ran(self, body: Any) -> None:
        self.trace("ran", body.instance_id, body.task_id, body.attempt)
        self.ledger.ran(body)

    # --------------------------------------------------------------------------------------------- turning

    def _turn_in(self, seconds: float) -> None:
        at = self.clock.true + int(seconds * 1e6)
        if self.loop is None or (self._turn_at is not None and self._turn_at <= at):
            return
        self._turn_at = at
        loop = self.loop
        self.after(seconds, lambda: self._turn(loop, at))

    def _turn(self, loop: Loop, at: int) -> None:
        if self.loop is not loop or self._turn_at != at:
            return
        self._turn_at = None
        self.steps += 1
        stale = loop.hub.counters["stale_results"]
        self._befall(loop)
        envelopes = loop.take(wait=False)
        self._note_results(envelopes)
        loop.turn(envelopes)
        self.ledger.note_given_up(loop._poisoned_rows)
        if loop.hub.counters["stale_results"] > stale:
            self.met("a stale activity result dropped")
        if loop._rest or not loop.inbox.empty():
            self._turn_in(0.0)
        else:
            following = loop.next_at()
            assert following is not None
            self._turn_in(self.clock.until(following) / 1e6)

    def _note_results(self, envelopes: list[Envelope]) -> None:
        for envelope in envelopes:
            message = envelope.message
            key = (getattr(message, "execution_id", ""), getattr(message, "task_id", -1))
            if type(message).__name__ == "ActivityResult" and key in self.ledger.completed:
                self.met("a duplicate result dropped")

    def _befall(self, loop: Loop) -> None:
        """What happens between two turns: evictions, and clocks that are set."""
        hub = loop.hub
        if self.plan.knobs.evicts_always:
            hub.evict_idle(2**62)
        fault = self.injector.at("step")
        if fault is not None and fault.effect == "evict":
            hub.evict_idle(2**62, int(fault.amount))
        elif fault is not None:
            self.clock.offset += int(fault.amount * 1e6)
            self.met("the clock went back" if fault.amount < 0 else "the clock leapt ahead")
            self.trace("jump", fault.amount)
        if hub.counters["replays"] and hub.counters["evictions"]:
            self.met("an eviction, and a replay after it")

    def _committing(self) -> None:
        self.clock.true += int(self.plan.knobs.commit * 1e6)

    def _committed(self, batch: Batch, _: float) -> None:
        if batch.is_empty():
            return
        heads = b"".join(row.hash for row in batch.history)
        sizes = [len(batch.inbox_added), len(batch.inbox_removed), len(batch.seen), len(batch.dropped)]
        self._hash.update(heads)
        what = [(row.instance_no, row.status, row.due_at) for row in batch.updates]
        self.trace("commit", batch.at, [row.instance_id for row in batch.new_instances], what, sizes)
        if any(at > batch.at + 60_000_000 for _, _, at in what if at is not None):
            self.met("a timer beyond the horizon")

    def _finished(self, released: Released, _: object) -> None:
        """Those who wait for an end are told it is there: then it must be."""
        for instance in released.finished:
            run = self.ledger.runs.get(instance.no)
            if run is not None and not run.is_finished and not run.purged:
                self.ledger.problem("I16", f"{run} was announced as finished and is {run.row.status}")
        ended = {instance.no for instance in released.finished}
        for run in self.ledger.purged_alive:
            if run.row.instance_no not in ended:
                self.ledger.problem("I34", f"{run} was purged while {run.row.status}")
        self.ledger.purged_alive.clear()

    @property
    def may_interrupt(self) -> bool:
        """Whether operations of entities may be interrupted in this world."""
        return any(fault.kind in ("hang", "swallow") for fault in self.plan.faults)

    def is_being_started(self, mine: Dealing) -> bool:
        """Whether another client is starting the same id right now."""
        return any(
            other is not mine and not other.outcome and other.order.verb == "start"
            for other in self.dealings
            if other.target == mine.target and other.attempts
        )

    def add_actor(self, client: Client) -> None:
        self.actors.append(Actor(self, client))


class WorldProbe(Running):
    """What the world does to orchestrators' code: the hub's `Running` and the interpreter's `Probe` in one."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._missing: set[str] = set()
        self._misfits: set[str] = set()
        self.has_been_poor = False

    def boot(self) -> None:
        """A new deployment: it may lack an orchestrator, or have one that fits no history."""
        if self._missing and not self._world.injector.is_healed:
            self._world.met("no worker had the orchestrator, and later one did")
        fault = self._world.injector.at("boot")
        self._missing = {fault.target} if fault is not None and fault.effect == "missing" else set()
        self._misfits = {fault.target} if fault is not None and fault.effect == "misfit" else set()
        self.has_been_poor = bool(self._missing or self._misfits)

    def enter(self, instance: Instance) -> None:
        if self._world.injector.crashes("enter"):
            self._world.met("a crash in the middle of user code")
            raise Crash

    def leave(self) -> bool:
        """Whether the code had been interrupted and swallowed that."""
        return self._world.injector.at("swallow") is not None

    def step(self, context: OrchestrationContext) -> None:
        if not context.is_replaying and self._world.injector.at("hang") is not None:
            self._world.met("user code was interrupted by the watchdog")
            raise Interrupted("simulated: it ran too long")

    def hangs(self) -> bool:
        if self._world.injector.at("hang") is None:
            return False
        self._world.met("an operation interrupted by the watchdog")
        return True

    def misfits(self, name: str) -> bool:
        if name in self._misfits:
            self._world.met("code did not fit history, and later did")
        return name in self._misfits

    def has(self, name: str) -> bool:
        return name not in self._missing

    def met(self, case: str) -> None:
        self._world.met(case)


class _Never:
    """A `Waiter` that never waits: the world turns the loop when it is time."""

    def wait(self, inbox: SimpleQueue[Any], until: int | None, busy: Callable[[], bool]) -> None:
        return None


class _Overheard(logging.Handler):
    """Errors of the engine's own code are logged with their traceback: here they are failures."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            self._ledger.problem("engine-error", f"{record.getMessage()}\n{text}")
