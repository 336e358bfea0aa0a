"""A whole system on one thread: engine, activities, clients and time, each moved by hand.

The real loop and hub, the real client and the real store; only threads are missing. Activities run between two
turns of the loop, clients take their turn when everything else stands still, and the clock moves when told.
So a run is the same every time, takes a millisecond or two, and can be broken at every call of the store.

When the store says that the process is dead (`Crash`), everything in memory is dropped and a new process
begins on what the store holds. Clients that had no answer ask again with the same operation id, as clients do.
What they were told, what activities did and what the store holds are compared at the end: see `checks`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from perdure import App, Client
from perdure.engine.activities import Runner, completed, failed
from perdure.engine.activities.offloaded import with_offloaded
from perdure.engine.clock import new_salt
from perdure.engine.core.dispatcher import Dispatcher
from perdure.engine.core.ports import Limits, RandomSource
from perdure.engine.functions.registry import plan_of
from perdure.engine.functions.resolved import FunctionTable
from perdure.engine.loop.loop import Loop
from perdure.errors import OutcomeUnknown, PerdureError, StoreError
from perdure.model.failures import failure_of
from perdure.model.messages import ActivityResult, Message
from perdure.replay.activity_context import ActivityContext
from perdure.replay.settle import Invocation
from perdure.store.port import Store
from perdure.testing import VirtualClock
from perdure.testing.faults import Crash, FaultPlan, FaultyStore

SOON = 1_200_000  # microseconds: longer than the loop waits before it tries a failed store again
MOST_TURNS = 5_000  # turns until a world that does not come to rest is called stuck
TINY = Limits(episodes=2, feeds=2, inline_bytes=600, keep_executions=1_000)
ROOMY = Limits(inline_bytes=600, keep_executions=1_000)


class NoAnswer(Exception):
    """The process died before it had answered."""


class Host:
    """The event loop that replies belong to: it runs at once what it is handed."""

    def call_soon_threadsafe(self, resolve: Callable[[Any], None], pairs: Any) -> None:
        resolve(pairs)


HOST = Host()


class Reply:
    """The future of one request, resolved on the spot."""

    def __init__(self) -> None:
        self.value: Any = None
        self.is_done = False

    def get_loop(self) -> Host:
        return HOST

    def done(self) -> bool:
        return self.is_done

    def set_result(self, value: Any) -> None:
        self.value, self.is_done = value, True

    set_exception = set_result

    def __await__(self) -> Generator[Reply, None, Any]:
        yield self
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


@dataclass(frozen=True)
class Ran:
    """The witness's note that an activity's body was entered."""

    name: str
    instance_id: str
    key: str
    task: tuple[str, int]
    attempt: int
    result: bytes


@cache
def functions_of(app: App) -> FunctionTable:
    """An application's orchestrators; their annotations are read once for all lives."""
    return FunctionTable(app.registry)


@cache
def runners_of(app: App) -> dict[str, Runner]:
    functions = functions_of(app)
    runnable = with_offloaded(app.registry, functions.entities.values(), functions.environment)
    return {
        name: Runner(plan_of(activity, (ActivityContext,)), {})
        for name, activity in runnable.activities.items()
    }


class Bodies:
    """The activity pool: runs bodies one after the other, when told."""

    def __init__(self, app: App, deliver: Callable[[ActivityResult], None], witness: list[Ran]) -> None:
        self.runners = runners_of(app)
        self.waiting: deque[Invocation] = deque()
        self._in_flight: set[tuple[str, int]] = set()
        self._deliver = deliver
        self._witness = witness

    def start(self, invocations: Iterable[Invocation], handover: object) -> None:
        for invocation in invocations:
            key = (invocation.execution_id, invocation.task_id)
            if key not in self._in_flight:
                self._in_flight.add(key)
                self.waiting.append(invocation)

    def cancel(self, calls: Iterable[tuple[str, int]], executions: Collection[str] = ()) -> list[Any]:
        gone = {*calls, *(key for key in self._in_flight if key[0] in executions)}
        self._in_flight -= gone
        self.waiting = deque(i for i in self.waiting if (i.execution_id, i.task_id) not in gone)
        return []

    def forget(self, calls: Iterable[tuple[str, int]]) -> list[Any]:
        self._in_flight.difference_update(calls)
        return []

    @property
    def is_busy(self) -> bool:
        return bool(self._in_flight)

    def run_one(self) -> None:
        invocation = self.waiting.popleft()
        try:
            value = self.runners[invocation.name].call(invocation)
            result = completed(invocation, run(value) if isinstance(value, Coroutine) else value)
        except Exception as error:
            result = failed(invocation, failure_of(error))
        self._witness.append(
            Ran(
                invocation.name,
                invocation.instance_id,
                invocation.idempotency_key,
                (invocation.execution_id, invocation.task_id),
                invocation.attempt,
                bytes(result.result) if result.failure is None else b"failed",
            )
        )
        self._deliver(result)


class Process:
    """One life of the engine's process, and the gateway of its clients."""

    hub = "crash"

    def __init__(self, world: World, store: FaultyStore) -> None:
        self.store = store
        self._world = world
        core = Dispatcher(
            functions_of(world.app), RandomSource(new_salt, world.clock.monotonic), limits=world.limits
        )
        self.core = core
        self.loop = Loop(core, store, world.clock, _NoWaiter(), finished=lambda *_: None)
        functions_of(world.app).environment.pause = self.loop.early.look_within
        self.bodies = Bodies(world.app, self.loop.post, world.witness)
        self.loop.pool = self.bodies  # type: ignore[assignment]
        self.loop.open()

    async def accept(self, message: Message) -> Any:
        reply = Reply()
        self._world.waiting.append(reply)
        self.loop.post(message, reply)
        return await reply

    async def finished(self, instance_id: str, timeout: float | None) -> None:
        raise NotImplementedError

    async def read(self, question: Callable[[], Any], *, brief: bool = False) -> Any:
        return question()

    def pulses(self, executions: Mapping[str, str]) -> dict[Any, Any]:
        return {}

    def now(self) -> int:
        return self._world.clock.now()

    replaces_running = False

    def output_of_failure(self, name: str, failure: Any) -> str:
        return str(failure)

    def new_instance_id(self) -> str:
        self._world.ids += 1
        return f"made-up-{self._world.ids}"

    def has_orchestrator(self, name: str) -> None:
        self._world.app.registry.orchestrator(name)


class _NoWaiter:
    def wait(self, inbox: object, until: int | None, busy: object) -> None:
        raise AssertionError("nobody waits on this thread")


@dataclass(frozen=True)
class Step:
    """One request of a client's: made with the same operation id until it is answered."""

    label: str
    make: Callable[[Client, str], Coroutine[Any, Any, Any]]
    event_to: str = ""
    renews: str = ""  # the instance whose earlier life ends with this


WORLDS: list[World] = []
"""Those made by the present test."""


@dataclass
class World:
    """See the module. `plans` are the faults of the first process, the second, ..."""

    app: App
    inner: Store
    plans: list[FaultPlan] = field(default_factory=list)
    limits: Limits = ROOMY
    evict: bool = False  # put every execution away after each turn
    lifo: bool = False  # activities finish in reverse

    def __post_init__(self) -> None:
        self.clock = VirtualClock()
        self.witness: list[Ran] = []
        self.answers: list[tuple[str, str]] = []
        self.unknown = 0
        self.paused = False  # activities are started and do not finish
        self.accepted: set[str] = set()
        self.events: dict[str, str] = {}  # operation id -> instance id
        self.waiting: list[Reply] = []
        self.lives: list[FaultyStore] = []
        self.ids = 0
        self.operations = 0
        WORLDS.append(self)
        self.process = self._begin()

    # ---------------------------------------------------------------------------------------- life and death

    def _begin(self) -> Process:
        for _ in range(10):
            plan = self.plans[len(self.lives)] if len(self.lives) < len(self.plans) else None
            store = self.lives[-1].restarted(plan) if self.lives else FaultyStore(self.inner, plan)
            self.lives.append(store)
            try:
                return Process(self, store)
            except (Crash, StoreError):
                continue  # a supervisor starts it again
        raise AssertionError("the process dies over and over")

    def end(self) -> None:
        """Close what is alive, without any of its cleaning up reaching anything."""
        self.process.core.drop_everything()
        self.inner.close_reader()
        self.inner.close()

    def kill(self) -> None:
        """The process dies now; the next one begins."""
        self.process.core.drop_everything()
        self.process = self._begin()
        lost, self.waiting = self.waiting, []
        for reply in lost:
            if not reply.is_done:
                reply.set_result(NoAnswer())

    @property
    def store(self) -> FaultyStore:
        return self.process.store

    @property
    def loop(self) -> Loop:
        return self.process.loop

    @property
    def calls(self) -> list[str]:
        """The verbs asked of the store by the present process."""
        return self.store.calls

    # ------------------------------------------------------------------------------------------------ moving

    def turn(self) -> bool:
        """Take and commit once; returns whether there was anything to do."""
        try:
            taken = self.loop.take(wait=False)
            busy = bool(taken or self.loop.dispatcher.lines)
            if busy:
                self.loop.turn(taken)
            if self.evict:
                self.process.core.cache.evict_idle(2**62)
        except Crash:
            self.kill()
            return True
        return busy

    def settle(self) -> None:
        """Until nothing is left to do at this instant, and a failed store has been tried again."""
        quiet = 0
        for _ in range(MOST_TURNS):
            if self.turn():
                quiet = 0
            elif self.process.bodies.waiting and not self.paused:
                self.run_bodies()
                quiet = 0
            elif quiet < 4:
                quiet += 1  # recovery takes a page a turn
            elif (at := self.loop.next_at()) is not None and at < self.clock.now() + SOON:
                self.clock.move(max(at, self.clock.now() + 1))
            else:
                return
        raise AssertionError(f"the loop spins: {self.calls[-20:]}")

    def run_bodies(self, most: int = 1_000) -> None:
        """Run the activities that have been started, as many as there are now."""
        bodies = self.process.bodies
        if self.lifo:
            bodies.waiting.reverse()
        for _ in range(min(most, len(bodies.waiting))):
            bodies.run_one()

    def pass_time(self, seconds: float) -> None:
        """Let time go by, stopping wherever the loop has something to do."""
        goal = self.clock.now() + int(seconds * 1e6)
        while True:
            self.settle()
            at = self.loop.next_at()
            if at is None or at > goal:
                break
            self.clock.move(at)
        self.clock.move(goal)
        self.settle()

    # ----------------------------------------------------------------------------------------------- clients

    def ask(self, *steps: Step) -> list[Any]:
        """Make these requests at once, each again with the same id until it is answered."""
        operations = [self._operation() for _ in steps]
        left = list(range(len(steps)))
        answers: list[Any] = [None] * len(steps)
        for _ in range(10):
            tried = [(n, run_until_reply(steps[n].make(self.client, operations[n]))) for n in left]
            self.settle()
            left = []
            for n, pending in tried:
                answers[n] = pending.finish()
                if isinstance(answers[n], NoAnswer | OutcomeUnknown | StoreError):
                    self.unknown += 1
                    left.append(n)
            if not left:
                break
        for step, operation, answer in zip(steps, operations, answers, strict=True):
            self._note(step, operation, answer)
        self.waiting.clear()
        return answers

    def repeat(self, operation: str, step: Step) -> Any:
        """Make a request with the id of an earlier one."""
        count, self.operations = self.operations, int(operation.removeprefix("op-")) - 1
        answer = self.ask(step)[0]
        self.operations = count
        return answer

    def _operation(self) -> str:
        self.operations += 1
        return f"op-{self.operations}"

    def _note(self, step: Step, operation: str, answer: Any) -> None:
        """What a client was told must be so in the store, and stay so."""
        if not isinstance(answer, BaseException):
            self.accepted.add(operation)
            if step.renews:
                self.events = {op: to for op, to in self.events.items() if to != step.renews}
            if step.event_to:
                self.events[operation] = step.event_to
            if step.label != "without id" and answer != 0:
                assert self.inner.seen([operation]), f"{step.label} was acknowledged and is not in the store"
        elif not isinstance(answer, PerdureError):
            raise answer
        self.answers.append((step.label, outcome_of(answer)))

    @property
    def client(self) -> Client:
        return Client(self.process)

    def start(self, name: str, instance_id: str | None, value: Any = None, **options: Any) -> Any:
        return self.ask(start(name, instance_id, value, **options))[0]

    def raise_event(self, instance_id: str, name: str, value: Any = None) -> Any:
        return self.ask(event(instance_id, name, value))[0]

    def manage(self, verb: str, instance_id: str, *arguments: Any, **options: Any) -> Any:
        return self.ask(manage(verb, instance_id, *arguments, **options))[0]

    def status(self, instance_id: str) -> Any:
        return run(self.client.get_status(instance_id, show_history=True, show_history_output=True))


# -------------------------------------------------------------------------------------------------- requests


def start(name: str, instance_id: str | None, value: Any = None, **options: Any) -> Step:
    return Step(
        f"start {instance_id}",
        lambda client, op: client.start_new(name, instance_id, value, operation_id=op, **options),
        renews=instance_id or "",
    )


def event(instance_id: str, name: str, value: Any = None) -> Step:
    return Step(
        f"{name} to {instance_id}",
        lambda client, op: client.raise_event(instance_id, name, value, event_id=op),
        event_to=instance_id,
    )


def manage(verb: str, instance_id: str, *arguments: Any, **options: Any) -> Step:
    """terminate, suspend, resume, purge_instance_history."""
    return Step(
        f"{verb} {instance_id}",
        lambda client, op: getattr(client, verb)(instance_id, *arguments, operation_id=op, **options),
        renews=instance_id if verb == "purge_instance_history" else "",
    )


def start_without_id(name: str, instance_id: str, value: Any = None) -> Step:
    """A client that relies on the instance id alone."""
    return Step(
        "without id",
        lambda client, _: client.start_new(name, instance_id, value, on_existing="return_existing"),
    )


class Pending:
    """A coroutine that waits for its reply."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], answer: Any, *, is_done: bool) -> None:
        self._coroutine = coroutine
        self._answer = answer
        self._is_done = is_done

    def finish(self) -> Any:
        while not self._is_done:
            assert self._answer.is_done, "nobody answers"
            self._step()
        return self._answer

    def _step(self) -> None:
        try:
            self._answer = self._coroutine.send(None)
        except StopIteration as stop:
            self._answer, self._is_done = stop.value, True
        except Exception as error:
            self._answer, self._is_done = error, True


def run_until_reply(coroutine: Coroutine[Any, Any, Any]) -> Pending:
    pending = Pending(coroutine, None, is_done=False)
    pending._step()
    return pending


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits for something")


def outcome_of(answer: Any) -> str:
    return type(answer).__name__ if isinstance(answer, BaseException) else repr(answer)
