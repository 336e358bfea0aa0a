"""The orchestrators: a program's bodies as real orchestrator functions, in both styles.

What can be shared is: opening a task, and turning its outcome into a log entry. The two drivers below differ
only in `yield` and `await`. They also do what tests of a cache must: watch that time never goes back, act
while being put away, be interrupted, and, when the world says so, be code that does not fit its history.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any, Protocol

import msgspec

from perdure.engine.activities.offloaded import with_offloaded
from perdure.engine.activities.signals import AttemptSignals
from perdure.engine.functions.registry import Registry
from perdure.errors import Evicted, FunctionNotFound, TaskFailedError
from perdure.model.failures import MESSAGE_LIMIT
from perdure.model.retry import RetryPolicy
from perdure.replay.activity_context import ActivityContext
from perdure.replay.context import OrchestrationContext
from perdure.replay.decide import Code
from perdure.replay.entity import EntityCode
from perdure.replay.environment import CallTarget
from perdure.replay.human_tasks import HumanTask
from perdure.replay.settle import Invocation
from perdure.replay.task import NO_DEFAULT, CallTask, RetryTask, Task
from simulation.activities import input_of
from simulation.entities import codes
from simulation.program import (
    Ask,
    Body,
    Boom,
    Branches,
    Call,
    Every,
    First,
    Hasty,
    Loose,
    Marked,
    Monitor,
    Nap,
    Panel,
    Part,
    Program,
    Quit,
    Section,
    Sleep,
    Status,
    Step,
    Sub,
    Tell,
    Wait,
)
from simulation.reference import CUT, Entry

Context = OrchestrationContext
AGAIN = "-kid"  # in ids of sub-orchestrations that are made from their callers'


class Probe(Protocol):
    """The world's effects on running code."""

    def step(self, context: Context) -> None:
        """Before each step. May raise Interrupted, as the watchdog does."""

    def misfits(self, name: str) -> bool:
        """Whether the code deployed now disagrees with every history of this body."""

    def expects(self, name: str) -> Any:
        """The type that the code deployed now reads results of activities as; None for any."""

    def has(self, name: str) -> bool:
        """Whether this incarnation has the orchestrator at all."""

    def hangs(self) -> bool:
        """Whether the entity's operation that runs now is interrupted, as the watchdog does it."""

    def met(self, case: str) -> None: ...


class Unfit(msgspec.Struct):
    """What results of activities never are: a class that has gained a member."""

    v: int
    pad: str
    added: str


class Failed(RuntimeError):
    """Never raised; keeps the name of what bodies raise in one place."""

    kind = "RuntimeError"


class Bodies:
    """A program's bodies, as the engine's `FunctionTable`."""

    def __init__(self, program: Program, probe: Probe) -> None:
        self.environment = _Environment(program)
        self._probe = probe
        self.entities = codes(probe)
        self._entries = {program.name(n): _Entry(self._code(program, n)) for n in range(len(program.bodies))}

    def orchestrator(self, name: str, version: str | None = None) -> _Entry | None:
        return self._entries.get(name) if self._probe.has(name) else None

    fails_on_nondeterminism = False

    def refuses(self, version: str) -> bool:
        return False

    def missing(self, name: str, version: str) -> str:
        return f"no worker here has the orchestrator {name!r}"

    def entity(self, name: str) -> EntityCode | None:
        return self.entities.get(name) if self._probe.has(name) else None

    def operate(self, invocation: Invocation) -> Any:
        """Run an entity's operation outside the loop, at once."""
        runners = with_offloaded(Registry(), self.entities.values(), self.environment).activities
        running = runners[invocation.name].function(ActivityContext(invocation, AttemptSignals()))
        if not inspect.iscoroutine(running):
            return running
        try:
            running.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("it waits for something")

    def code(self, name: str) -> Code:
        return self._entries[name].code

    def _code(self, program: Program, number: int) -> Code:
        body, name = program.bodies[number], program.name(number)
        run = _Run(program, body, name, self._probe)
        function = run.generator if body.style == "generator" else run.coroutine
        return Code(name, function)


class _Entry:
    version = ""

    def __init__(self, code: Code) -> None:
        self.code = code

    def admit(self, event_name: str, body: Any, known: Any = None) -> None:
        """Every event is admitted."""


class _Environment:
    def __init__(self, program: Program) -> None:
        self.pause: Callable[[str], bool] = lambda _: False
        self._names = {program.name(n) for n in range(len(program.bodies))}

    def activity(self, function: Any) -> CallTarget:
        return CallTarget(function)

    def orchestrator(self, function: Any) -> CallTarget:
        if function not in self._names:
            raise FunctionNotFound(function)
        return CallTarget(function)

    def entity(self, name: str) -> None:
        """Every entity is there; whether a worker has it is another matter."""

    def operation(self, entity: str, operation: str) -> None:
        """Nothing is known of entities."""

    def is_renamed(self, action: Any, recorded: Any) -> bool:
        return False

    def logger(self, instance_id: str, is_live: Callable[[], bool]) -> Any:
        return None


class _Run:
    """One body's code."""

    def __init__(self, program: Program, body: Body, name: str, probe: Probe) -> None:
        self._program = program
        self._body = body
        self._name = name
        self._probe = probe

    # ------------------------------------------------------------------------------------ generator style

    def generator(self, context: Context) -> Generator[Task[Any], Any, Any]:
        given = self._begin(context)
        log = list(given["log"])
        try:
            for step in self._body.generations[given["gen"]]:
                yield from self._steps(context, step, log)
        except GeneratorExit:
            self._put_away(context)
            raise
        return self._end(context, given, log)

    def _steps(self, context: Context, step: Step, log: list[Entry]) -> Generator[Task[Any], Any, None]:
        self._probe.step(context)
        since = context.current_utc_datetime
        match step:
            case Branches():
                branches = [context.spawn(self._branch(context, branch)) for branch in step.branches]
                logs = yield context.task_all(branches)
                log.append(["branches", logs])
            case Hasty() | Nap() | Quit():
                waiting = self._aside(context, step)
                entry = yield from self._outcome(context, step.call)
                self._abandon(waiting)
                log.append(entry)
            case Monitor():
                log.append((yield from self._monitor(context, step)))
            case First():
                tasks = [self._open(context, part) for part in step.parts]
                winner = yield context.task_any(tasks)
                log.append(self._won(tasks, winner, step))
            case Section():
                log.append((yield from self._section(context, step)))
            case Panel():
                task = _panel_of(context, step)
                log.append(_decided(task, (yield task)))
            case Boom(held=held) if held:
                with (yield context.lock(held)):
                    self._act(context, step, log)
            case Boom() | Status() | Marked() | Loose() | Tell():
                self._act(context, step, log)
            case _:
                log.append((yield from self._outcome(context, step)))
        _in_order(context, since)

    def _monitor(self, context: Context, step: Monitor) -> Generator[Task[Any], Any, Entry]:
        for _ in range(step.rounds):
            stop = context.wait_for_external_event(step.event)
            if (yield context.task_any([stop, context.create_timer(step.seconds)])) is stop:
                return ["monitored", stop.result]
        return ["monitored", None]

    def _section(self, context: Context, step: Section) -> Generator[Task[Any], Any, Entry]:
        entries: list[Entry] = []
        lock = yield context.lock(*step.entities)
        for entity in step.entities:
            entries.append((yield from self._passage(context, step, entity, "enter")))  # noqa: PERF401
        if not step.stays:
            with lock:
                yield context.create_timer(step.seconds)
                for entity in step.entities:
                    entries.append((yield from self._passage(context, step, entity, "leave")))  # noqa: PERF401
        return ["section", entries]

    def _passage(
        self, context: Context, step: Section, entity: str, what: str
    ) -> Generator[Task[Any], Any, Entry]:
        token = f"{context.execution_id}:{step.key}{entity}:{what}"
        try:
            return ["asked", (yield context.call_entity(entity, "put", token)) == token]
        except TaskFailedError as error:
            return _failed(step, error)

    def _branch(self, context: Context, steps: tuple[Step, ...]) -> Generator[Task[Any], Any, list[Entry]]:
        log: list[Entry] = []
        for step in steps:
            yield from self._steps(context, step, log)
        return log

    def _outcome(self, context: Context, step: Any) -> Generator[Task[Any], Any, Entry]:
        due = context.current_utc_datetime.timestamp()
        while isinstance(step, Wait) and step.bare:
            try:
                return _entry(context, step, (yield self._open(context, step)), due)
            except:  # noqa: E722
                self._probe.met("code swallowed what was to end it")
        try:
            value = yield self._open(context, step)
        except (TaskFailedError, TimeoutError) as error:
            return _failed(step, error)
        return _entry(context, step, value, due)

    # ------------------------------------------------------------------------------------ coroutine style

    async def coroutine(self, context: Context) -> Any:
        given = self._begin(context)
        log = list(given["log"])
        try:
            for step in self._body.generations[given["gen"]]:
                await self._astep(context, step, log)
        except GeneratorExit:
            self._put_away(context)
            raise
        return self._end(context, given, log)

    async def _astep(self, context: Context, step: Step, log: list[Entry]) -> None:
        self._probe.step(context)
        since = context.current_utc_datetime
        match step:
            case Branches():
                branches = [context.spawn(self._abranch(context, branch)) for branch in step.branches]
                log.append(["branches", await context.task_all(branches)])
            case Hasty() | Nap() | Quit():
                waiting = self._aside(context, step)
                entry = await self._aoutcome(context, step.call)
                self._abandon(waiting)
                log.append(entry)
            case Monitor():
                log.append(await self._amonitor(context, step))
            case First():
                tasks = [self._open(context, part) for part in step.parts]
                log.append(self._won(tasks, await context.task_any(tasks), step))
            case Section():
                log.append(await self._asection(context, step))
            case Panel():
                task = _panel_of(context, step)
                log.append(_decided(task, await task))
            case Boom(held=held) if held:
                async with context.lock(held):
                    self._act(context, step, log)
            case Boom() | Status() | Marked() | Loose() | Tell():
                self._act(context, step, log)
            case _:
                log.append(await self._aoutcome(context, step))
        _in_order(context, since)

    async def _amonitor(self, context: Context, step: Monitor) -> Entry:
        for _ in range(step.rounds):
            stop = context.wait_for_external_event(step.event)
            if await context.task_any([stop, context.create_timer(step.seconds)]) is stop:
                return ["monitored", stop.result]
        return ["monitored", None]

    async def _asection(self, context: Context, step: Section) -> Entry:
        lock = await context.lock(*step.entities)
        entries = [await self._apassage(context, step, entity, "enter") for entity in step.entities]
        if not step.stays:
            async with lock:
                await context.create_timer(step.seconds)
                entries += [await self._apassage(context, step, entity, "leave") for entity in step.entities]
        return ["section", entries]

    async def _apassage(self, context: Context, step: Section, entity: str, what: str) -> Entry:
        token = f"{context.execution_id}:{step.key}{entity}:{what}"
        try:
            return ["asked", await context.call_entity(entity, "put", token) == token]
        except TaskFailedError as error:
            return _failed(step, error)

    async def _abranch(self, context: Context, steps: tuple[Step, ...]) -> list[Entry]:
        log: list[Entry] = []
        for step in steps:
            await self._astep(context, step, log)
        return log

    def _aoutcome(self, context: Context, step: Any) -> Coroutine[Any, Any, Entry]:
        async def outcome() -> Entry:
            due = context.current_utc_datetime.timestamp()
            while isinstance(step, Wait) and step.bare:
                try:
                    return _entry(context, step, await self._open(context, step), due)
                except:  # noqa: E722
                    self._probe.met("code swallowed what was to end it")
            try:
                value = await self._open(context, step)
            except (TaskFailedError, TimeoutError) as error:
                return _failed(step, error)
            return _entry(context, step, value, due)

        return outcome()

    # ---------------------------------------------------------------------------------------------- shared

    def _begin(self, context: Context) -> dict[str, Any]:
        if context.is_replaying and self._probe.misfits(self._name):
            context.call_activity("what no history holds")
        given: dict[str, Any] = context.get_input()
        return given

    def _end(self, context: Context, given: dict[str, Any], log: list[Entry]) -> Any:
        following = given["gen"] + 1
        if following < len(self._body.generations):
            keeps = self._body.keeps_events(given["gen"])
            context.continue_as_new({"gen": following, "log": log}, save_events=keeps)
            return None
        return log

    def _put_away(self, context: Context) -> None:
        """As a careless `finally:` would: nothing of this may reach a batch."""
        try:
            context.call_activity("what was never asked for")
        except Evicted:
            self._probe.met("user code acted while it was put away")
            raise

    def _act(self, context: Context, step: Boom | Status | Marked | Loose | Tell, log: list[Entry]) -> None:
        match step:
            case Boom():
                raise RuntimeError(json.dumps(log))
            case Status():
                context.set_custom_status(step.value)
            case Marked():
                log.append(["patched", context.patched(step.name)])
            case Loose():
                self._open(context, step.call)
            case Tell():
                at = context.current_utc_datetime + timedelta(seconds=step.delay) if step.delay else None
                token = f"{context.execution_id}:{step.key}"
                context.signal_entity(step.entity, step.operation, token, at=at)

    def _aside(self, context: Context, step: Hasty | Nap | Quit) -> Task[Any]:
        if isinstance(step, Nap):
            return context.create_timer(step.seconds)
        if isinstance(step, Quit):
            return self._open(context, step.quits)
        return context.wait_for_external_event(step.event)

    def _abandon(self, waiting: Task[Any]) -> None:
        if isinstance(waiting, CallTask | RetryTask) and not waiting.is_completed:
            self._probe.met("an activity cancelled by its orchestrator")
        waiting.cancel()

    def _won(self, tasks: list[Task[Any]], winner: Task[Any], step: First) -> Entry:
        at = next(i for i, task in enumerate(tasks) if task is winner)
        for task, part in zip(tasks, step.parts, strict=True):
            if task is not winner and isinstance(part, Wait | Sleep):
                task.cancel()
        part = step.parts[at]
        if at:
            self._probe.met("a race won by a later part")
        try:
            return ["first", at, _plain(part, winner.result)]
        except (TaskFailedError, TimeoutError) as error:
            return ["first", at, _failed(part, error)]

    def _open(self, context: Context, step: Part | Every) -> Task[Any]:
        match step:
            case Call():
                expected = self._probe.expects(self._name)
                name, policy = _activity(context, step), _policy(step)
                return context.call_activity(name, input_of(step), expected, retry=policy)
            case Sub():
                own_id = _id_of(context, step)
                retry = RetryPolicy(first_interval=1.0, max_attempts=step.attempts) if step.attempts else None
                name = self._program.name(step.body)
                return context.call_sub_orchestrator(name, {"gen": 0, "log": []}, own_id, retry=retry)
            case Ask():
                token = f"{context.execution_id}:{step.key}"
                return context.call_entity(step.entity, step.operation, token)
            case Sleep():
                return context.create_timer(step.seconds)
            case Wait() if step.is_task:
                self._probe.met("a person asked, with reminders")
                return _asked_of_people(context, step)
            case Wait():
                if step.default:
                    return context.wait_for_external_event(step.event, timeout=step.timeout, default=-1)
                return context.wait_for_external_event(step.event, timeout=step.timeout)
            case Every():
                return context.task_all([self._open(context, part) for part in step.parts])


def _asked_of_people(context: Context, step: Wait) -> Task[Any]:
    """The wait as a human task: the same outcomes, with more timers, and rows that say what is asked."""
    assert step.timeout is not None
    return context.human_task(
        step.event,
        title="Go on?",
        facts={"event": step.event},
        timeout=step.timeout,
        remind=(step.timeout / 4, step.timeout / 2),
        default=-1 if step.default else NO_DEFAULT,
    )


def _panel_of(context: Context, panel: Panel) -> HumanTask[Any]:
    """Several people are asked."""
    half = timedelta(seconds=panel.timeout / 2)
    return context.human_task(
        panel.event,
        title="Pay?",
        roles=("judge",),
        timeout=panel.timeout,
        escalate={half: "chief"} if panel.escalates else None,
        decisions=panel.decisions,
        default=-1,
    )


def _decided(task: HumanTask[Any], value: Any) -> Entry:
    if value == -1:
        return ["undecided"]
    keys = value if isinstance(value, list) else [value]
    return ["decided", [[key, person] for key, person in zip(keys, task.decided_by, strict=True)]]


def _id_of(context: Context, sub: Sub) -> str | None:
    if sub.again:
        return f"{context.instance_id}{AGAIN}{sub.body}"
    return sub.id_of or (f"own-{sub.key}-{context.execution_id}" if sub.own_id else None)


def _activity(context: Context, call: Call) -> str:
    return f"work-{context.random().randrange(3)}-{context.new_uuid()[:2]}" if call.drawn else "work"


def _policy(call: Call) -> RetryPolicy | None:
    if not call.attempts:
        return None
    return RetryPolicy(call.first, call.attempts, call.backoff, non_retryable=("Fatal",))


def _entry(context: Context, step: Any, value: Any, due: float) -> Entry:
    if isinstance(step, Every):
        return ["every", [_plain(p, v) for p, v in zip(step.parts, value, strict=True)]]
    if isinstance(step, Sleep):
        return ["slept", context.current_utc_datetime.timestamp() + 1e-5 >= due + step.seconds]
    return _plain(step, value)


def _plain(part: Part, value: Any) -> Entry:
    match part:
        case Wait():
            return ["default"] if value == -1 else ["event", value]
        case Sleep():
            return ["slept", True]
        case Ask():
            return ["asked", value.rpartition(":")[2] == str(part.key)]
        case _:
            return ["ok", value]


def _failed(step: Any, error: TaskFailedError | TimeoutError) -> Entry:
    if isinstance(error, TimeoutError):
        return ["timeout"]
    kind = error.failure.type
    if isinstance(step, Every):
        return ["every-failed", kind]
    if kind != Failed.kind:
        return ["failed", kind, None]
    message = error.failure.message
    return ["failed", kind, json.loads(message) if len(message) < MESSAGE_LIMIT else CUT]


def _in_order(context: Context, since: Any) -> None:
    if context.current_utc_datetime < since:
        raise AssertionError(f"time went back, from {since} to {context.current_utc_datetime}")
