"""Drawing plans: which clients do what, which faults come when. Every seed its own mixture (swarm)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from simulation.activities import ENDS
from simulation.entity_generator import with_entities
from simulation.people import with_people
from simulation.plan import Client, Fault, Knobs, Order, Plan
from simulation.program import (
    Boom,
    Branches,
    Call,
    Every,
    First,
    Program,
    Sleep,
    Step,
    steps_of,
    waits_of,
)
from simulation.program_generator import Writer
from simulation.randomness import SeededRandomness

FINAL = 0.4
_TAKES_TIME = (type(None), Sleep)
RATES = (0.005, 0.02, 0.06)


def _fails_by_itself(steps: Sequence[Step]) -> bool:
    """Whether code raises where no call has failed just before: a rewind takes the two for cause and effect."""
    before = [None, *steps]
    pairs = zip(before, steps, strict=False)
    return all(isinstance(last, _TAKES_TIME) for last, step in pairs if isinstance(step, Boom))


def plan_of(seed: int) -> Plan:
    """The plan that belongs to a seed."""
    chance = SeededRandomness(seed)
    knobs = _knobs(chance.of("knobs"))
    eternal = (
        chance.draw("eternal") < 0.15
    )  # continue-as-new is where such engines lose things: its own share
    if eternal:
        knobs = replace(knobs, feeds=chance.of("feeds").choice((1, 2)))
    program = Writer(chance.of("program"), eternal=eternal).program()
    clients = _Cast(chance.of("clients"), program, eternal=eternal).clients()
    targets = sorted({order.target for client in clients for order in client.orders})
    faults = _faults(chance.of("faults"), program, targets, eternal=eternal)
    faults += _pauses(chance.of("pauses"))
    program = with_final(program, chance.of("payloads"))
    program = with_abrupt_ends(program, chance.of("abrupt ends"))
    plan = with_entities(Plan(seed, knobs, program, clients, faults), chance.of("entities"))
    return with_people(plan, chance.of("people"))


def with_final(program: Program, random: Random) -> Program:
    """The program, in one seed of four with calls that no other attempt can save."""
    if random.random() > 0.25:
        return program
    return _with_calls(
        program,
        lambda call: (
            replace(call, final=random.choice(("unrecorded", "unfit"))) if random.random() < FINAL else call
        ),
    )


def with_abrupt_ends(program: Program, random: Random) -> Program:
    """The program, in one seed of four with bodies that exit or cancel themselves where others raise."""
    if random.random() > 0.25:
        return program
    return _with_calls(
        program, lambda call: replace(call, ends=random.choice(tuple(ENDS))) if call.fails else call
    )


def _with_calls(program: Program, changed: Callable[[Call], Call]) -> Program:
    def step(one: Any) -> Any:
        match one:
            case Call():
                return changed(one)
            case Every() | First():
                return replace(one, parts=tuple(map(step, one.parts)))
            case Branches():
                return replace(one, branches=tuple(tuple(map(step, branch)) for branch in one.branches))
            case _:
                return one

    return Program(
        tuple(
            replace(body, generations=tuple(tuple(map(step, steps)) for steps in body.generations))
            for body in program.bodies
        )
    )


def _knobs(random: Random) -> Knobs:
    def mostly(usual: float, *others: float) -> float:
        return usual if random.random() < 0.6 else random.choice(others)

    return Knobs(
        store=random.choice(("sqlite", "memory")),
        episodes=int(mostly(1_000, 1, 2, 5)),
        feeds=int(mostly(100, 1, 2, 3)),
        row_bytes=int(mostly(4 * 1024 * 1024, 300)),
        inline_bytes=int(mostly(16 * 1024, 200)),
        buffered_events=int(mostly(2_000, 1, 2)),
        keep_executions=int(mostly(1, 2, 100)),
        creeping=mostly(0.0, 0.004),
        drift=mostly(0.0, 0.05, -0.05),
        gap=random.choice((0.0, 0.001, 0.05, 2.0)),
        commit=random.choice((0.0, 0.002, 0.3)),
        slow=mostly(0.0, 0.3),
        duplicated=mostly(0.0, 0.3),
        evicts_always=random.random() < 0.15,
        heals_at=random.choice((20.0, 60.0, 150.0)),
        restarts_when_healed=random.random() < 0.5,
    )


class _Cast:
    """Who uses the program, and how."""

    def __init__(self, random: Random, program: Program, *, eternal: bool) -> None:
        self._random = random
        self._program = program
        self._keys = 0
        self._with_id = random.random() < 0.75
        self._loses = random.random() < 0.4
        self._operates = 0.9 if eternal else random.random() ** 2

    def clients(self) -> tuple[Client, ...]:
        cast: list[Client] = []
        for number in range(self._random.choice((1, 1, 2, 3))):
            cast.extend(self._around(f"i{number}"))
        return tuple(cast)

    def _around(self, target: str) -> list[Client]:
        random = self._random
        body = 0 if random.random() < 0.8 else random.randrange(len(self._program.bodies))
        delay = random.choice((1.0, 40.0, 100.0)) if random.random() < 0.1 else 0.0
        start = self._order("start", target, random.uniform(0, 5), body=body, delay=delay)
        cast = [Client((start,))]
        if random.random() < 0.25:
            policy = random.choice(("reject", "return_existing", "replace_finished"))
            again = self._order("start", target, random.uniform(0, 5), body=body, on_existing=policy)
            cast.append(Client((again,)))
        cast.extend(self._senders(target, body))
        if random.random() < self._operates:
            cast.append(self._operator(target, body))
        return cast

    def _senders(self, target: str, body: int) -> list[Client]:
        random = self._random
        steps = steps_of(self._program.bodies[body])
        names = sorted({wait.event for step in steps for wait in waits_of(step)})
        cast = []
        for name in [*names, *(["a"] if "a" not in names and random.random() < 0.1 else [])]:
            wanted = sum(wait.event == name for step in steps for wait in waits_of(step))
            count = max(0, wanted + random.choice((-1, 0, 0, 1, 3)))
            pace = random.choice((0.0, 1.0, 15.0))
            orders = tuple(
                self._order("raise", target, random.uniform(0, pace), event=name) for _ in range(count)
            )
            if orders:
                cast.append(Client(orders, after_start=random.random() < 0.9))
        return cast

    def _operator(self, target: str, body: int) -> Client:
        random = self._random
        orders: list[Order] = []
        single = len(self._program.bodies[body].generations) == 1
        for _ in range(random.randint(1, 4)):
            verb = random.choice(
                ("suspend", "suspend", "resume", "terminate", "terminate-child", "purge", "restart", "start")
            )
            if verb == "restart" and not single:
                verb = "suspend"
            pause = random.choice((0.01, 1.0, 10.0)) * random.random()
            recursive, new_id = random.random() < 0.7, random.random() < 0.5
            orders.append(self._order(verb, target, pause, body=body, recursive=recursive, new_id=new_id))
            if verb == "suspend" and random.random() < 0.7:
                orders.append(self._order("resume", target, random.choice((0.0, 0.5, 20.0))))
        if self._program_fails_by_itself():
            pauses = (random.choice((0.0, 5.0, 60.0)) * random.random() for _ in range(random.randint(1, 3)))
            orders.extend(self._order("rewind", target, pause) for pause in list(pauses))
        return Client(tuple(orders), after_start=True)

    def _program_fails_by_itself(self) -> bool:
        """Whether some body raises, and none does so right behind a call."""
        generations = [steps for body in self._program.bodies for steps in body.generations]
        raising = [steps for steps in generations if any(isinstance(step, Boom) for step in steps)]
        return bool(raising) and all(map(_fails_by_itself, raising))

    def _order(
        self,
        verb: str,
        target: str,
        pause: float,
        *,
        body: int = 0,
        on_existing: str = "replace_finished",
        delay: float = 0.0,
        event: str = "",
        recursive: bool = False,
        new_id: bool = False,
    ) -> Order:
        random = self._random
        self._keys += 1
        with_id = random.random() < (0.95 if self._with_id else 0.3)
        lost = random.choice((1, 1, 2)) if self._loses and random.random() < 0.3 else 0
        return Order(
            self._keys, verb, target, pause, with_id, lost, body, on_existing, delay, event, recursive, new_id
        )


COMMITS = ("crash before", "crash after", "fail before", "fail after", "full")
READS = ("load", "poll", "seen", "local_work", "parked", "open")


def _faults(random: Random, program: Program, targets: list[str], *, eternal: bool) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    if random.random() < 0.12:
        return ()
    if random.random() < 0.1:  # nothing but a clock that is set back: here nothing may ever be late
        return tuple(Fault("step", n, "jump", -600.0) for n in range(1, 40) if random.random() < 0.1)
    for effect in COMMITS:
        faults += [Fault("commit", n, effect, random.randint(1, 6)) for n in _some(random, 120)]
    for kind in READS:
        few = kind in ("open", "local_work", "parked")
        for effect in ("crash", "fail"):
            faults += [Fault(kind, n, effect) for n in _some(random, 8 if few else 60, 5 if few else 1)]
    for kind in ("release", "reply", "enter"):
        faults += [Fault(kind, n, "crash") for n in _some(random, 80)]
    faults += [Fault("step", n, "evict", random.choice((1, 1_000))) for n in _some(random, 200, 4)]
    faults += [Fault("step", n, "jump", _jump(random)) for n in _some(random, 200)]
    faults += [Fault("hang", n, "interrupt") for n in _some(random, 60)]
    faults += [Fault("swallow", n, "interrupt") for n in _some(random, 80)]
    for _ in range(random.randint(1, 3) if random.random() < (0.5 if eternal else 0.2) else 0):
        effect, times = random.choice((("work", 1_000), ("work", 3), ("work", 3), ("all", 6)))
        faults.append(Fault("refuse", random.randint(1, 16), effect, times, random.choice(targets)))
    for effect in ("missing", "misfit", "unfit"):
        name = program.name(random.randrange(len(program.bodies)))
        faults += [Fault("boot", n, effect, target=name) for n in _some(random, 6, 5)]
    return tuple(faults)


def _pauses(random: Random) -> tuple[Fault, ...]:
    """Steps that take long, in one seed of three: starts that come meanwhile are accepted before they are over."""
    if random.random() > 0.33:
        return ()
    rate = random.choice((0.05, 0.2, 0.6))
    return tuple(
        Fault("pause", n, random.choice(("go on", "part")), random.choice((0.1, 1.0, 5.0)))
        for n in range(60)
        if random.random() < rate
    )


def _some(random: Random, among: int, factor: float = 1.0) -> list[int]:
    """The ordinals at which a fault of one kind occurs: none at all in most seeds."""
    if random.random() < 0.7:
        return []
    rate = min(1.0, random.choice(RATES) * factor)
    return [n for n in range(among) if random.random() < rate]


def _jump(random: Random) -> float:
    return random.choice((-1, 1)) * random.choice((0.5, 5.0, 45.0, 600.0))
