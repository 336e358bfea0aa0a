"""People written into programs and plans, with draws of their own, so that all else of a seed stays as it was.

A panel is a human task that several different people must decide. Around it people claim, release and decide, once or
twice, in time and late, some of them without a role or without a name.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from simulation.plan import Client, Order, Plan
from simulation.program import PEOPLE, STRANGER, Boom, Panel, Program, Sleep

KEYS = 700_000  # keys of what people do begin here
TIMEOUTS = (5.0, 20.0, 60.0)


def with_people(plan: Plan, random: Random) -> Plan:
    """The plan, in one seed of five with a panel in its first body."""
    if random.random() > 0.2:
        return plan
    panel = Panel(
        "panel", random.choice((1, 2, 2, 3)), random.choice(TIMEOUTS), escalates=random.random() < 0.3
    )
    body = plan.program.bodies[0]
    generations = list(body.generations)
    at = random.randrange(len(generations))
    steps = generations[at]
    reached = next((n for n, step in enumerate(steps) if isinstance(step, Boom)), len(steps))
    place = random.choice((0, 0, random.randint(0, reached)))
    after = Sleep(random.choice((1.0, 30.0, 90.0)))  # a late answer finds the instance still there
    generations[at] = (*steps[:place], panel, after, *steps[place:])
    bodies = (replace(body, generations=tuple(generations)), *plan.program.bodies[1:])
    targets = sorted({o.target for c in plan.clients for o in c.orders if o.verb == "start" and o.body == 0})
    desk = _Desk(random, panel)
    clients = tuple(client for target in targets for client in desk.around(target))
    return replace(plan, program=Program(bodies), clients=(*plan.clients, *clients))


class _Desk:
    def __init__(self, random: Random, panel: Panel) -> None:
        self._random = random
        self._panel = panel
        self._keys = KEYS

    def around(self, target: str) -> list[Client]:
        """Several people at once; each client is one browser."""
        return [
            Client(tuple(self._orders(target)), after_start=self._random.random() < 0.9)
            for _ in range(self._random.randint(2, 4))
        ]

    def _orders(self, target: str) -> list[Order]:
        return [self._order(target) for _ in range(self._random.randint(2, 4))]

    def _order(self, target: str) -> Order:
        random = self._random
        self._keys += 1
        few = PEOPLE[: self._panel.decisions + 1]  # few, so that one person often answers twice
        person = random.choice((*few, *few, *few, STRANGER, ""))
        verb = random.choice(("decide", "decide", "complete", "claim", "claim", "release"))
        if verb in ("claim", "release") and person == "":
            person = few[0]
        late = random.choice((0.0, 0.0, 0.5, 1.0, 1.5)) * self._panel.timeout
        return Order(
            self._keys,
            verb,
            target,
            pause=random.uniform(0, 2) + (late if random.random() < 0.3 else 0.0),
            with_id=random.random() < 0.8,
            lost=1 if random.random() < 0.1 else 0,
            event=self._panel.event,
            person=person,
        )


__all__ = ["with_people"]
