"""Random orchestrators for the SDK's context: what they do follows from a seed, and from what they are told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df

from perdure.app import App
from perdure.engine.functions.registry import Activity, Definition, Entity, Orchestrator
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.asking import Names
from perdure.hosts.azure_functions.bridge import bridged
from perdure.hosts.azure_functions.entities import entity_body
from perdure.replay.context import OrchestrationContext

Make = Callable[[Any, Names], Callable[[OrchestrationContext], Any]]
EVENTS = 14
"""How many names of events there are. Each is raised twice to each program, which waits for it twice at most."""
GENERATIONS = 4
"""How often a program begins at most: with `continue_as_new` for the second time, and so on."""
RETRIED = frozenset({"flaky", "failing", "flaky_child", "failing_child"})
"""What the programs call with retries, and never without."""
OPTIONS = df.RetryOptions(60_000, 3)
STEPS = ("wait", "wait", "wait", "keep", "collect", "repeat", "aside")


class Drawn:
    """One generation of a program: its input is a seed, its number, and the waits of earlier ones."""

    def __init__(self, context: df.DurableOrchestrationContext) -> None:
        self.context = context
        self.seed, self.generation, self.events = context.get_input()
        self.chance = random.Random(f"{self.seed} {self.generation}")
        self.trace: list[Any] = []
        self.kept: list[Any] = []
        self.asked: list[Any] = []

    def run(self) -> Generator[Any, Any, Any]:
        for _ in range(self.chance.randint(3, 7)):
            yield from getattr(self, self.chance.choice(STEPS))()
        if self.generation < GENERATIONS and self.chance.random() < 0.4:
            yield from self.again()
        if self.chance.random() < 0.05:
            raise ValueError(f"no more of {self.seed}")
        return self.trace

    def again(self) -> Generator[Any, Any, None]:
        """Continue as new, and go on as programs do: nothing that is asked for afterwards counts."""
        next_input = [self.seed, self.generation + 1, self.events]
        self.context.continue_as_new(next_input)
        if self.chance.random() < 0.2:
            self.context.continue_as_new([self.seed, GENERATIONS, 0])
        for _ in range(self.chance.randint(0, 2)):
            yield from getattr(self, self.chance.choice((*STEPS, "repeat")))()
        if self.chance.random() < 0.1:
            raise ValueError(f"{self.seed} has continued as new")

    def wait(self) -> Generator[Any, Any, None]:
        """Wait for a tree of tasks, and look at its outcome."""
        task = self.tree(self.chance.randint(0, 2))
        yield from self.see(task)

    def see(self, task: Any) -> Generator[Any, Any, None]:
        self.asked.append(task)
        try:
            value = yield task
        except Exception as error:
            self.trace.append(shown(error))
        else:
            self.trace.append(shown(value))

    def keep(self) -> Generator[Any, Any, None]:
        """Make a task, and yield it later or never."""
        self.kept.append(self.leaf())
        yield from ()

    def collect(self) -> Generator[Any, Any, None]:
        if self.kept:
            yield from self.see(self.kept.pop(self.chance.randrange(len(self.kept))))

    def repeat(self) -> Generator[Any, Any, None]:
        """Yield a task again, which is done or in an earlier compound."""
        found = [one for asked in self.asked for one in within(asked) if not may_change(one)]
        if found:
            yield from self.see(self.chance.choice(found))

    def aside(self) -> Generator[Any, Any, None]:
        """What needs no answer."""
        operation = self.chance.choice(("add", "add", "add", "reset"))
        self.context.signal_entity(self.total, operation, 1)
        self.context.set_custom_status({"seen": len(self.trace)})
        self.trace.append([self.context.new_uuid(), str(self.context.current_utc_datetime)])
        yield from ()

    @property
    def total(self) -> df.EntityId:
        """The entity of this program, or one that all programs of this seed's last digit use."""
        key = self.context.instance_id if self.chance.random() < 0.8 else f"shared {self.seed % 10}"
        return df.EntityId("Total", key)

    def tree(self, depth: int) -> Any:
        if not depth:
            return self.kept.pop() if self.kept and self.chance.random() < 0.2 else self.leaf()
        children = [self.tree(self.chance.randint(0, depth - 1)) for _ in range(self.chance.randint(1, 3))]
        return self.chance.choice((self.context.task_all, self.context.task_any))(children)

    def leaf(self) -> Any:
        context, number = self.context, self.chance.randint(0, 99)
        key = [context.instance_id, self.generation, number]
        match self.chance.randint(0, 15):
            case 0 | 1 | 2:
                return context.call_activity("double", number)
            case 3:
                return context.call_activity("refuse", number)
            case 4:
                return context.call_activity_with_retry("flaky", OPTIONS, key)
            case 5:
                return context.call_activity_with_retry("failing", OPTIONS, number)
            case 6:
                return context.call_sub_orchestrator("child", number)
            case 7:
                return context.call_sub_orchestrator_with_retry("flaky_child", OPTIONS, key)
            case 8:
                own_id = f"{key}" if number % 2 else None
                return context.call_sub_orchestrator_with_retry("failing_child", OPTIONS, number, own_id)
            case 9 | 10:
                return context.call_entity(self.total, "add", number)
            case 11:
                return context.call_entity(self.total, self.chance.choice(("get", "reset", "set")), number)
            case 12 | 13:
                return context.create_timer(context.current_utc_datetime + timedelta(minutes=number))
        self.events += 1 if self.events % 2 == 0 or self.chance.random() < 0.4 else 2
        return context.wait_for_external_event(f"e{(self.events + 1) // 2}")


def within(task: Any) -> list[Any]:
    """A task and those that it is made of. The children of a call with retries are its attempts."""
    if isinstance(task, sdk.RetryAbleTask) or not isinstance(task, sdk.CompoundTask):
        return [task]
    return [task, *(one for child in task.children for one in within(child))]


def may_change(task: Any) -> bool:
    """Whether the SDK may let it succeed after it has failed: each `task_all`. Perdure does not."""
    return any(type(one).__name__ == "WhenAllTask" and len(one.children) > 1 for one in within(task))


def shown(value: Any) -> Any:
    """An outcome as JSON."""
    if isinstance(value, sdk.TaskBase):
        return ["task", value.state.name, shown(value.result)]
    if isinstance(value, Exception):
        return ["error", str(value).partition(" \n ")[0]]
    return [shown(one) for one in value] if isinstance(value, list) else value


def program(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield from Drawn(context).run())


def child(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    number = context.get_input()
    if number % 5 == 0:
        raise ValueError(f"no child {number}")
    yield context.create_timer(context.current_utc_datetime + timedelta(minutes=number % 7))
    return number + 1


def flaky_child(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield context.call_activity("third", context.get_input()))


def failing_child(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    yield context.call_activity("refuse", context.get_input())


def total(context: df.DurableEntityContext) -> None:
    operation, before = context.operation_name, context.get_state(lambda: 0)
    if operation == "reset":
        context.destruct_on_exit()
    elif operation != "get":
        amount = context.get_input()
        if amount % 10 == 9:
            raise ValueError(f"{amount} is too much")
        context.set_state(before + amount if operation == "add" else amount)
    context.set_result(before if operation in ("get", "reset") else context.get_state())


async def turns(number: int) -> None:
    """Let other activities end first; on threads a seed would not say which."""
    for _ in range(number % 4):
        await asyncio.sleep(0)


async def double(number: int) -> int:
    await turns(number)
    return number * 2


async def refuse(number: int) -> None:
    await turns(number)
    raise ValueError(f"not {number}")


def application(make: Make = bridged) -> App:
    """The programs, on perdure's engine: by the SDK's tasks, or by the JSON protocol."""
    tries: dict[str, int] = {}

    async def flaky(key: list[Any]) -> int:
        await turns(key[-1])
        tries[str(key)] = tries.get(str(key), 0) + 1
        if tries[str(key)] < 3:
            raise ValueError("not yet")
        return tries[str(key)]

    app = App("drawn", keep_executions=GENERATIONS)
    activities = {"double": double, "refuse": refuse, "failing": refuse, "flaky": flaky, "third": flaky}
    orchestrators = {
        "program": program,
        "child": child,
        "flaky_child": flaky_child,
        "failing_child": failing_child,
    }
    definitions: list[Definition] = [
        *(Activity(name, function) for name, function in activities.items()),
        *(
            Orchestrator(name, make(df.Orchestrator.create(function), Names()))
            for name, function in orchestrators.items()
        ),
        Entity("total", entity_body(df.Entity.create(total))),
    ]
    for definition in definitions:
        app.registry.add(definition)
    return app
