"""The world: a heap of events in virtual time, workers, their clients, and what befalls them."""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from heapq import heappop, heappush
from typing import Any

from perdure.model.messages import Message
from simulation.backend import SharedBackend, StoreBackend, backend_of
from simulation.clients import Actor, Dealing
from simulation.clock import WorldClock
from simulation.cluster_worker import ClusterWorker
from simulation.database import Database
from simulation.exported import Exported
from simulation.failing_store import FailingStore
from simulation.injector import Injector
from simulation.ledger import Ledger
from simulation.log import LogBackend, LogSession
from simulation.operator import Operator
from simulation.plan import Client, Plan
from simulation.randomness import SeededRandomness
from simulation.sometimes import Sometimes
from simulation.worker import SimulatedWorker

MOST_STEPS = 3_000  # turns with something to do once the world has healed; the worst seeds need a tenth
# Seconds in which a world with several workers must come to rest: many instances may hold one lock in turn,
# each for a minute.
LONGEST = 14_400

Event = tuple[int, int, SimulatedWorker | None, bool, Callable[[], None]]


class World:
    """One run. `run()` lives it to its end; what went wrong is in `ledger.problems`."""

    def __init__(self, plan: Plan, *, verbose: bool = False) -> None:
        self.plan = plan
        self.met = Sometimes()
        self.chance = SeededRandomness(plan.seed)
        self.injector = Injector(plan.faults)
        self.ledger = Ledger(self.met, shared=plan.knobs.workers > 0)
        self.exported = Exported(self.ledger, self.chance, self.met)
        self.salts = self.chance.of("salts")
        self.dealings: list[Dealing] = []
        self.known_ids: set[str] = set()
        self.names: Counter[tuple[str, ...]] = Counter()  # orders so far, by verb and target
        self.used: dict[str, tuple[str, ...]] = {}  # who used a name first
        self.steps = 0
        self._heap: list[Event] = []
        self._numbers = 0
        self._hash = blake2b(digest_size=16)
        self._verbose = verbose
        self.database: Database | None = None
        self.clock, self.backend, self.workers = self._made()
        self.bodies = self.workers[0].bodies
        self.actors = [Actor(self, client) for client in plan.clients]
        self._operator = Operator(self)

    def _made(self) -> tuple[WorldClock, StoreBackend, list[SimulatedWorker]]:
        knobs = self.plan.knobs
        if knobs.workers:
            clock = WorldClock(0.0, 0.0)
            shared = SharedBackend(clock.now)
            self.database = Database(self, clock, shared.store)
            return (
                clock,
                shared,
                [ClusterWorker(self, number, self.database) for number in range(knobs.workers + knobs.doors)],
            )
        clock = WorldClock(knobs.drift, knobs.creeping)
        if knobs.store == "log":
            chance = self.chance.of("log")
            log = LogBackend(clock, self.injector, chance, self.met, self.after)
            session = LogSession(log, self.injector, self.ledger, self.met, self._committing, chance)
            return clock, log, [SimulatedWorker(self, clock, session, log)]
        backend = backend_of(knobs.store)
        store = FailingStore(backend.store, self.injector, self.ledger, self.met, self._committing)
        return clock, backend, [SimulatedWorker(self, clock, store, backend)]

    # ------------------------------------------------------------------------------------------ the run

    def run(self) -> str:
        """Run until the world is at rest, or a check fails. Returns the hash of the trace."""
        handler = _Overheard(self.ledger)
        log = logging.getLogger("perdure.engine")
        kept, log.propagate = (log.level, log.propagate), False
        log.setLevel(logging.ERROR)
        log.addHandler(handler)
        try:
            for worker in self.workers:
                worker.guarded(worker.boot)
            self.after(self.plan.knobs.heals_at, self._operator.heal, alone=True)
            self._live()
            for worker in self.workers:
                worker.die()
        finally:
            log.removeHandler(handler)
            log.setLevel(kept[0])
            log.propagate = kept[1]
        return self._hash.hexdigest()

    def dispose(self) -> None:
        """Leave nothing behind."""
        self.backend.dispose()

    def _live(self) -> None:
        while self._heap and not self.ledger.problems and not self._operator.is_at_rest():
            event = heappop(self._heap)
            self.clock.true = max(self.clock.true, event[0])
            self._happen(event)
            if self.steps > (self._operator.healed_at or self.steps) + MOST_STEPS:
                self._unrest("it still turns")
            if self.clock.true > (self.plan.knobs.heals_at + LONGEST) * 1e6 and self.database is not None:
                self._unrest("it takes for ever")
        if not self.ledger.problems and not self._operator.is_at_rest():
            self._unrest("nothing is left to happen")

    def _happen(self, event: Event) -> None:
        _, _, worker, _, action = event
        if worker is None:
            action()
        elif worker.stands_still_until > self.clock.true:
            self._again(event, worker.stands_still_until)
        else:
            worker.guarded(action)

    def _again(self, event: Event, at: int) -> None:
        heappush(self._heap, (at, *event[1:]))

    def meanwhile(self, seconds: float, busy: SimulatedWorker) -> None:
        """Let time pass during a worker's call: the other workers and the clients continue."""
        until = self.clock.true + int(seconds * 1e6)
        busy.is_busy = True
        if sys.exc_info()[1] is None:
            self._others_live(until)
        else:  # on a thread of its own: otherwise their errors would have the current one as their context
            _apart(lambda: self._others_live(until))
        self.clock.true = max(self.clock.true, until)
        busy.is_busy = False

    def _others_live(self, until: int) -> None:
        put_off: list[Event] = []
        while self._heap and self._heap[0][0] <= until and not self.ledger.problems:
            event = heappop(self._heap)
            _, _, worker, alone, _ = event
            if alone or (worker is not None and worker.is_busy):
                put_off.append(event)
                continue
            self.clock.true = max(self.clock.true, event[0])
            self._happen(event)
        for event in put_off:
            heappush(self._heap, event)

    def _unrest(self, how: str) -> None:
        code = "I31" if any(True for _ in self.ledger.living()) else "unrest"
        self.ledger.problem(code, f"{how}: {self._operator.why_not()}")

    def after(
        self,
        seconds: float,
        action: Callable[[], None],
        worker: SimulatedWorker | None = None,
        *,
        alone: bool = False,
    ) -> None:
        """Schedule an action, for a worker or the world; `alone` waits until no worker is in the middle of a
        call.
        """
        self._numbers += 1
        event = (self.clock.true + int(seconds * 1e6), self._numbers, worker, alone, action)
        heappush(self._heap, event)

    def trace(self, *what: object) -> None:
        """One line of what happened; two runs are the same when these are."""
        line = f"{self.clock.true} {' '.join(map(str, what))}"
        self._hash.update(line.encode())
        if self._verbose:
            print(f"{self.clock.true / 1e6:11.6f}  {' '.join(map(str, what))[:400]}")

    def fingerprint(self, heads: bytes) -> None:
        """Something of which every bit is to be the same in the same run."""
        self._hash.update(heads)

    def _committing(self) -> None:
        self.clock.true += int(self.plan.knobs.commit * 1e6)

    # ---------------------------------------------------------------------------------------- its people

    def post(self, message: Message, reply: Any, key: int, attempt: int) -> SimulatedWorker | None:
        """Send a message to a random worker, which is returned; None if none is alive."""
        worker = self.workers[int(self.chance.draw("door", key, attempt) * len(self.workers))]
        if worker.loop is None:
            return None
        name = () if self.database is None else (worker.name,)
        self.trace(
            "post", *name, type(message).__name__, message.instance_id, getattr(message, "operation_id", "")
        )
        worker.post(message, reply)
        return worker

    def connection_lost(self, worker: SimulatedWorker) -> None:
        """A process is gone: its clients get no answers."""
        for actor in self.actors:
            actor.connection_lost(worker)

    @property
    def crashes(self) -> int:
        """How many processes have died so far."""
        return sum(worker.incarnation - 1 for worker in self.workers)

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


def _apart(action: Callable[[], None]) -> None:
    """Do it on another thread, and wait for that."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


class _Overheard(logging.Handler):
    """Errors of the engine's own code are logged with their traceback: here they are failures."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.ERROR)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            text = logging.Formatter().formatException(record.exc_info)
            self._ledger.problem("engine-error", f"{record.getMessage()}\n{text}")
