"""Random orchestrators for the SDK's context: what they do follows from a seed, and from what they are told."""

from __future__ import annotations

import random
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df

from perdure.app import App
from perdure.engine.functions.registry import Activity, Definition, Entity, Orchestrator
from perdure.hosts.azure_functions import sdk
from perdure.hosts.azure_functions.asking import Names
from perdure.hosts.azure_functions.bridge import bridged
from perdure.hosts.azure_functions.entities import entity_body

EVENTS = 10
"""How many events are raised to each program, under names of their own."""
RETRIED = frozenset({"flaky", "failing"})
"""What the programs call with retries, and never without."""
OPTIONS = df.RetryOptions(60_000, 3)


class Drawn:
    """One program: a seed is its input."""

    def __init__(self, context: df.DurableOrchestrationContext) -> None:
        self.context = context
        self.chance = random.Random(context.get_input())
        self.trace: list[Any] = []
        self.kept: list[Any] = []
        self.events = 0

    def run(self) -> Generator[Any, Any, Any]:
        for _ in range(self.chance.randint(3, 7)):
            yield from self.chance.choice(
                (self.wait, self.wait, self.wait, self.keep, self.collect, self.aside)
            )()
        return self.trace

    def wait(self) -> Generator[Any, Any, None]:
        """Wait for a tree of tasks, and look at its outcome."""
        task = self.tree(self.chance.randint(0, 2))
        yield from self.see(task)

    def see(self, task: Any) -> Generator[Any, Any, None]:
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

    def aside(self) -> Generator[Any, Any, None]:
        """What needs no answer."""
        self.context.signal_entity(df.EntityId("Total", self.context.instance_id), "add", 1)
        self.context.set_custom_status({"seen": len(self.trace)})
        self.trace.append([self.context.new_uuid(), str(self.context.current_utc_datetime)])
        yield from ()

    def tree(self, depth: int) -> Any:
        if not depth:
            return self.kept.pop() if self.kept and self.chance.random() < 0.2 else self.leaf()
        children = [self.tree(self.chance.randint(0, depth - 1)) for _ in range(self.chance.randint(1, 3))]
        return self.chance.choice((self.context.task_all, self.context.task_any))(children)

    def leaf(self) -> Any:
        context, number = self.context, self.chance.randint(0, 99)
        match self.chance.randint(0, 10):
            case 0 | 1 | 2:
                return context.call_activity("double", number)
            case 3:
                return context.call_activity("refuse", number)
            case 4:
                return context.call_activity_with_retry("flaky", OPTIONS, [context.instance_id, number])
            case 5:
                return context.call_activity_with_retry("failing", OPTIONS, number)
            case 6:
                return context.call_sub_orchestrator("child", number)
            case 7:
                return context.call_entity(df.EntityId("Total", context.instance_id), "add", number)
            case 8 | 9:
                return context.create_timer(context.current_utc_datetime + timedelta(minutes=number))
        self.events += 1
        return context.wait_for_external_event(f"e{self.events}")


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


def total(context: df.DurableEntityContext) -> None:
    amount = context.get_input()
    if amount % 10 == 9:
        raise ValueError(f"{amount} is too much")
    context.set_state(context.get_state(lambda: 0) + amount)
    context.set_result(context.get_state())


def double(number: int) -> int:
    return number * 2


def refuse(number: int) -> None:
    raise ValueError(f"not {number}")


def application() -> App:
    """The programs, on perdure's engine."""
    tries: dict[str, int] = {}

    def flaky(key: list[Any]) -> int:
        tries[str(key)] = tries.get(str(key), 0) + 1
        if tries[str(key)] < 3:
            raise ValueError("not yet")
        return tries[str(key)]

    app = App("drawn")
    activities = {"double": double, "refuse": refuse, "failing": refuse, "flaky": flaky}
    orchestrators = {"program": program, "child": child}
    definitions: list[Definition] = [
        *(Activity(name, function) for name, function in activities.items()),
        *(
            Orchestrator(name, bridged(df.Orchestrator.create(function), Names()))
            for name, function in orchestrators.items()
        ),
        Entity("total", entity_body(df.Entity.create(total))),
    ]
    for definition in definitions:
        app.registry.add(definition)
    return app
