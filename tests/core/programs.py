"""Small random orchestrators as data, interpreted in both styles, and a way to live them without an engine."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any

from msgspec import Raw

from perdure import RetryPolicy
from perdure.errors import OrchestratorError, PayloadError, TaskFailedError
from perdure.failure import Failure
from perdure.model import events as ev
from perdure.replay.context import OrchestrationContext
from perdure.replay.decide import ARRIVALS, Code, Execution
from perdure.replay.environment import Identity
from perdure.replay.settle import Outcome, settle
from perdure.replay.state import State
from perdure.testing.history import Episode
from perdure.testing.replaying import _Lenient

Op = tuple[Any, ...]
Chance = random.Random
POLICY = RetryPolicy(first_interval=5, backoff=2, max_attempts=3, jitter=0.5)
EXPECTED = (TaskFailedError, TimeoutError, OrchestratorError, PayloadError)
WAITED_FOR = ("call", "retry", "child", "timer", "event", "typed", "deadline", "default")
KINDS = (*WAITED_FOR, "all", "any", "race", "spawn", "join", "cancel", "look", "forget", "can", "fail")


def random_program(chance: Chance, depth: int = 2, most: int = 5) -> list[Op]:
    return [_random_op(chance, depth) for _ in range(chance.randint(1, most))]


def _random_op(chance: Chance, depth: int) -> Op:
    kind = chance.choice(KINDS if depth else WAITED_FOR)
    match kind:
        case "timer" | "cancel":
            return kind, chance.choice([0, 1, 30, 3600])
        case "event" | "typed" | "deadline" | "default":
            return kind, chance.choice("AB"), chance.choice([1, 60])
        case "all" | "any" | "race":
            return kind, [_random_op(chance, 0) for _ in range(chance.randint(1, 3))]
        case "spawn":
            return kind, random_program(chance, depth - 1, 3)
        case _:
            return kind, chance.choice(["left", "right"])


def _task(context: OrchestrationContext, op: Op) -> Any:
    match op:
        case "call", name:
            return context.call_activity(name, {"some", "names", "in", "a", "set"})
        case "retry", name:
            return context.call_activity(name, retry=POLICY)
        case "child", name:
            return context.call_sub_orchestrator(name, context.new_uuid())
        case "timer", seconds:
            return context.create_timer(seconds)
        case "event", name, _:
            return context.wait_for_external_event(name)
        case "typed", name, _:
            return context.wait_for_external_event(name, int)
        case "deadline", name, seconds:
            return context.wait_for_external_event(name, timeout=seconds)
        case "default", name, seconds:
            return context.wait_for_external_event(name, int, timeout=seconds, default=-1)
    raise AssertionError(op)


def _look(context: OrchestrationContext) -> Any:
    context.set_custom_status(context.new_uuid())
    return [context.random().random(), str(context.new_guid()), context.current_utc_datetime.isoformat()]


def _won(winner: Any, tasks: list[Any]) -> Any:
    for task in tasks:
        if task is not winner:
            try:
                task.cancel()
            except OrchestratorError:
                pass  # sub-orchestrations cannot be cancelled
    return [tasks.index(winner), winner.is_faulted]


def run_yield(context: OrchestrationContext, program: list[Op]):
    seen: list[Any] = []
    branches: list[Any] = []
    for op in program:
        try:
            match op[0]:
                case "all":
                    seen.append((yield context.task_all([_task(context, part) for part in op[1]])))
                case "any":
                    tasks = [_task(context, part) for part in op[1]]
                    seen.append(_won((yield context.task_any(tasks)), tasks))
                case "race":
                    tasks = [_task(context, part) for part in op[1]]
                    seen.append(tasks.index((yield context.task_any(tasks))))
                case "spawn":
                    branches.append(context.spawn(run_yield(context, op[1])))
                case "join":
                    seen.append((yield context.task_all(branches)))
                case "cancel":
                    context.create_timer(op[1]).cancel()
                case "look":
                    seen.append(_look(context))
                case "forget":
                    context.call_activity(op[1])
                case "can":
                    context.continue_as_new(seen)
                case "fail":
                    raise TimeoutError("on purpose")
                case _:
                    seen.append((yield _task(context, op)))
        except EXPECTED as error:
            seen.append(str(error))
    return seen


async def run_async(context: OrchestrationContext, program: list[Op]):
    seen: list[Any] = []
    branches: list[Any] = []
    for op in program:
        try:
            match op[0]:
                case "all":
                    seen.append(await context.task_all([_task(context, part) for part in op[1]]))
                case "any":
                    tasks = [_task(context, part) for part in op[1]]
                    seen.append(_won(await context.task_any(tasks), tasks))
                case "race":
                    tasks = [_task(context, part) for part in op[1]]
                    seen.append(tasks.index(await context.task_any(tasks)))
                case "spawn":
                    branches.append(context.spawn(run_async(context, op[1])))
                case "join":
                    seen.append(await context.task_all(branches))
                case "cancel":
                    context.create_timer(op[1]).cancel()
                case "look":
                    seen.append(_look(context))
                case "forget":
                    context.call_activity(op[1])
                case "can":
                    context.continue_as_new(seen)
                case "fail":
                    raise TimeoutError("on purpose")
                case _:
                    seen.append(await _task(context, op))
        except EXPECTED as error:
            seen.append(str(error))
    return seen


def execution_of(run: Any, program: list[Op]) -> Execution:
    def orchestrator(context: OrchestrationContext) -> Any:
        return run(context, program)

    return Execution(Code("program", orchestrator), Identity("claim", "e-1"), _Lenient())


def arrive(execution: Execution, at: int, arrival: Any) -> list[ev.HistoryEvent]:
    """Feed one arrival and return the decisions behind it."""
    execution.begin_episode(at)
    outcome = Outcome("claim", "e-1")
    settle(execution.arrive(arrival), outcome)
    return outcome.events


def live(
    run: Any, program: list[Op], chance: Chance, most: int = 25
) -> tuple[list[Episode], State, Execution]:
    """Live a program among random arrivals; returns its history, what fold says of it, and the live execution."""
    execution, state = execution_of(run, program), State()
    episodes: list[Episode] = []
    pairing = chance.choice([ev.OLDEST, ev.AWAITED])
    at, arrival = 1_000_000, ev.ExecutionStarted(name="program", pairing=pairing)
    while True:
        if not episodes or at > episodes[-1][0] or chance.random() < 0.5:
            episodes.append((at, []))
        events = [arrival, *arrive(execution, at, arrival)]
        episodes[-1][1].extend(events)
        for event in events:
            state.apply(event, at)
        most -= 1
        if state.ending is not None or not most:
            return episodes, state, execution
        at, arrival = _next_arrival(state, at, chance)


def _next_arrival(state: State, at: int, chance: Chance) -> tuple[int, Any]:
    candidates: list[Any] = [
        *(ev.TaskCompleted(task_id=n, result=Raw(b'{"of": %d}' % n)) for n in state.activities),
        *(ev.TaskFailed(task_id=n, failure=Failure("ValueError", f"of {n}")) for n in state.activities),
        *(ev.SubOrchestrationCompleted(task_id=n, result=Raw(b"7")) for n in state.children),
        *(ev.SubOrchestrationFailed(task_id=n, failure=Failure("KeyError")) for n in state.children),
        *(ev.TimerFired(timer_id=n) for n in state.timers),
        ev.EventRaised(name="A", input=Raw(chance.choice([b"1", b'"misfit"']))),
        ev.EventRaised(name="b", input=Raw(chance.choice([b"2", b"[]"]))),
    ]
    arrival = chance.choice(candidates)
    at += chance.choice([0, 0, 1, 2_000_000])
    if isinstance(arrival, ev.TimerFired):
        at = max(at, state.timers[arrival.timer_id].fire_at)
    return at, arrival


def exchanges(episodes: list[Episode]) -> list[tuple[int, Any, list[Any]]]:
    """(time, arrival, decisions) one by one."""
    found: list[tuple[int, Any, list[Any]]] = []
    for at, events in episodes:
        for event in events:
            if isinstance(event, ARRIVALS):
                found.append((at, event, []))
            else:
                found[-1][2].append(event)
    return found


def fingerprint(lives: int) -> str:
    """One digest over the histories of many random lives: the same in every process."""
    digest = hashlib.sha256()
    for seed in range(lives):
        chance = random.Random(seed)
        episodes, _, execution = live(run_async, random_program(chance), chance)
        execution.close()
        for at, events in episodes:
            digest.update(b"%d %b" % (at, ev.encode_events(events)))
    return digest.hexdigest()


if __name__ == "__main__":
    sys.stdout.write(fingerprint(int(sys.argv[1])))
