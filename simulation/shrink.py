"""Shrinking: the smallest plan that still fails in the same way, found by leaving things out (ddmin)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

from simulation.plan import Client, Knobs, Plan
from simulation.program import Body, Program
from simulation.runner import run_plan

T = TypeVar("T")
MOST_RUNS = 600


class Shrinker:
    """Makes a failing plan smaller, as long as the first problem keeps its code."""

    def __init__(self, plan: Plan, code: str, *, most_runs: int = MOST_RUNS) -> None:
        self.plan = plan
        self.runs = 0
        self._code = code
        self._most = most_runs

    def shrink(self) -> Plan:
        """Round after round, until a whole one finds nothing more to leave out."""
        before = None
        while before != self.plan and self.runs < self._most:
            before = self.plan
            self._list(self.plan.faults, lambda kept: replace(self.plan, faults=tuple(kept)))
            self._list(self.plan.clients, lambda kept: replace(self.plan, clients=tuple(kept)))
            self._orders()
            self._steps()
            self._knobs()
        return self.plan

    def _fails(self, plan: Plan) -> bool:
        if self.runs >= self._most:
            return False
        self.runs += 1
        return run_plan(plan).code == self._code

    def _try(self, plan: Plan) -> bool:
        if plan != self.plan and self._fails(plan):
            self.plan = plan
            return True
        return False

    def _list(self, items: Sequence[T], made: Callable[[list[T]], Plan]) -> None:
        """Leave out runs of items: half of them, then ever fewer, at last one at a time."""
        kept = list(items)
        size = len(kept)
        while size and kept:
            at = 0
            while at < len(kept):
                without = kept[:at] + kept[at + size :]
                if self._try(made(without)):
                    kept = without
                else:
                    at += size
            size //= 2

    def _orders(self) -> None:
        for number in range(len(self.plan.clients)):
            client = self.plan.clients[number]
            self._list(client.orders, partial(self._with_orders, number))
            for at, order in enumerate(self.plan.clients[number].orders):
                for plainer in ({"lost": 0}, {"delay": 0.0}, {"pause": 0.0}):
                    orders = list(self.plan.clients[number].orders)
                    orders[at] = replace(order, **plainer)
                    if self._try(self._with_orders(number, orders)):
                        order = orders[at]

    def _with_orders(self, number: int, orders: Sequence[Any]) -> Plan:
        clients = list(self.plan.clients)
        clients[number] = Client(tuple(orders), clients[number].after_start)
        return replace(self.plan, clients=tuple(clients))

    def _steps(self) -> None:
        """Shorten programs. Bodies stay where they are, because steps refer to them by number."""
        for number in range(len(self.plan.program.bodies)):
            for plainer in _plainer(self.plan.program.bodies[number]):
                self._try(self._with_body(number, plainer))
            for generation in range(len(self.plan.program.bodies[number].generations)):
                steps = self.plan.program.bodies[number].generations[generation]
                self._list(steps, lambda kept, n=number, g=generation: self._with_steps(n, g, kept))  # type: ignore[misc]

    def _with_steps(self, number: int, generation: int, steps: Sequence[Any]) -> Plan:
        body = self.plan.program.bodies[number]
        generations = list(body.generations)
        generations[generation] = tuple(steps)
        return self._with_body(number, replace(body, generations=tuple(generations)))

    def _with_body(self, number: int, body: Body) -> Plan:
        bodies = list(self.plan.program.bodies)
        bodies[number] = body
        return replace(self.plan, program=Program(tuple(bodies)))

    def _knobs(self) -> None:
        usual = Knobs()
        for field in fields(Knobs):
            self._try(
                replace(self.plan, knobs=replace(self.plan.knobs, **{field.name: getattr(usual, field.name)}))
            )


def _plainer(body: Body) -> Iterator[Body]:
    if len(body.generations) > 1:
        yield Body(body.style, body.generations[:1])
        yield Body(body.style, body.generations[-1:])
    if body.style != "generator":
        yield replace(body, style="generator")


def tell(plan: Plan) -> str:
    """A plan as text: only what differs from the defaults."""
    usual = Knobs()
    lines = [f"seed {plan.seed}"]
    knobs = [
        f"{f.name}={getattr(plan.knobs, f.name)}"
        for f in fields(Knobs)
        if getattr(plan.knobs, f.name) != getattr(usual, f.name)
    ]
    lines.append(f"  knobs    {', '.join(knobs) or 'as usual'}")
    for number, body in enumerate(plan.program.bodies):
        for at, steps in enumerate(body.generations):
            told = "; ".join(map(_short, steps)) or "nothing"
            lines.append(f"  body{number}.{at}  {body.style}: {told}")
    for client in plan.clients:
        orders = "; ".join(map(_short, client.orders))
        lines.append(f"  client   {'(after the start) ' if client.after_start else ''}{orders}")
    lines += [f"  fault    {_short(fault)}" for fault in plan.faults]
    return "\n".join(lines)


def _short(thing: Any) -> str:
    """A dataclass with the fields that are not at their defaults."""
    told = []
    for field in fields(thing):
        value = getattr(thing, field.name)
        if value == field.default:
            continue
        told.append(f"{field.name}={_value(value)}")
    return f"{type(thing).__name__}({', '.join(told)})"


def _value(value: Any) -> str:
    if hasattr(value, "__dataclass_fields__"):
        return _short(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.3g}" if isinstance(value, float) else repr(value)
