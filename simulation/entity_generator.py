"""Entities written into programs and plans, with draws of their own, so that all else of a seed stays as it was."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from simulation.plan import Client, Fault, Order, Plan
from simulation.program import (
    Ask,
    Body,
    Boom,
    Branches,
    Every,
    First,
    Program,
    Section,
    Step,
    Tell,
)

ENTITIES = ("@list@x", "@list@y", "@box@x", "@box@y", "@slow@x")
KEYS = 500_000  # keys of what entities are sent begin here
OPERATIONS = ("put", "put", "put", "put", "fail", "move")


def with_entities(plan: Plan, random: Random) -> Plan:
    """The plan, in two seeds of five with entities in it."""
    if random.random() > 0.4:
        return plan
    sender = _Sender(random)
    bodies = tuple(map(sender.body, plan.program.bodies))
    clients = (*plan.clients, *sender.clients())
    return replace(plan, program=Program(bodies), clients=clients, faults=(*plan.faults, *sender.faults()))


class _Sender:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._keys = KEYS
        self._few = random.sample(
            ENTITIES, random.choice((1, 2, 2, 3))
        )  # few, so that they are wanted by many

    def body(self, body: Body) -> Body:
        return replace(body, generations=tuple(map(self._steps, body.generations)))

    def _steps(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        random = self._random
        written: list[Step] = []
        for step in steps:
            if random.random() < 0.6:
                written.append(self._step())
            written.append(self._changed(step))
        if random.random() < 0.5 and not isinstance(written[-1] if written else None, Boom):
            written.append(self._section(last=True) if random.random() < 0.4 else self._step())
        return tuple(written)

    def _changed(self, step: Step) -> Step:
        random = self._random
        match step:
            case Boom() if random.random() < 0.5:
                return Boom(random.choice(self._few))
            case Every() if random.random() < 0.5:
                return Every((*step.parts, self._ask()))
            case First() if random.random() < 0.5:
                return First((self._ask(), *step.parts))
            case Branches() if random.random() < 0.7:
                return Branches(tuple((*branch, self._ask(), self._tell()) for branch in step.branches))
            case _:
                return step

    def _step(self) -> Step:
        kind = self._random.choice(("ask", "ask", "tell", "tell", "section", "section"))
        return self._ask() if kind == "ask" else self._tell() if kind == "tell" else self._section()

    def _key(self) -> int:
        self._keys += 1
        return self._keys

    def _ask(self) -> Ask:
        return Ask(self._key(), self._random.choice(self._few), self._random.choice(OPERATIONS))

    def _tell(self) -> Tell:
        random = self._random
        delay = random.choice((0.0, 0.0, 0.0, 2.0, 30.0, 100.0))
        return Tell(self._key(), random.choice(self._few), random.choice(OPERATIONS), delay)

    def _section(self, *, last: bool = False) -> Section:
        random = self._random
        several = random.sample(self._few, random.randint(1, len(self._few)))
        return Section(
            self._key(),
            tuple(several),
            random.choice((0.0, 0.5, 20.0, 60.0)),
            stays=last and random.random() < 0.6,
        )

    def clients(self) -> list[Client]:
        random = self._random
        signallers = [
            Client(tuple(self._order() for _ in range(random.randint(1, 6))))
            for _ in range(random.choice((0, 1, 2)))
        ]
        if random.random() < 0.3:  # ends an instance that may hold a lock
            pause = random.choice((1.0, 10.0, 60.0)) * random.random()
            order = Order(self._key(), "terminate", "i0", pause, recursive=random.random() < 0.5)
            signallers.append(Client((order,), after_start=True))
        return signallers

    def _order(self) -> Order:
        random = self._random
        return Order(
            self._key(),
            "signal",
            random.choice(self._few),
            random.choice((0.0, 0.5, 5.0)) * random.random(),
            with_id=random.random() < 0.8,
            lost=1 if random.random() < 0.15 else 0,
            delay=random.choice((0.0, 0.0, 0.0, 1.0, 50.0)),
            operation=random.choice(("put", "put", "put", "move")),
        )

    def faults(self) -> list[Fault]:
        """A deployment without one of them, and a store that will not have what one did."""
        random = self._random
        faults = []
        if random.random() < 0.15:
            faults.append(Fault("boot", random.randint(0, 3), "missing", target=self._few[0].split("@")[1]))
        if random.random() < 0.1:
            faults.append(Fault("refuse", random.randint(1, 16), "work", 3, random.choice(self._few)))
        return faults
