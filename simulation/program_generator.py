"""Writing programs at random. Small ones: a seed costs milliseconds, and bugs are small, too."""

from __future__ import annotations

from random import Random

from simulation.program import (
    LONG_WAIT,
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
    Part,
    Program,
    Quit,
    Sleep,
    Status,
    Step,
    Sub,
    Wait,
)

EVENTS = ("a", "b")


class Writer:
    """Writes the program of one seed."""

    def __init__(self, random: Random, *, eternal: bool = False) -> None:
        self._random = random
        self._eternal = eternal
        self._keys = 0
        self._bodies = 0
        self._number = 0
        self._mixes = {name: random.random() ** 2 for name in _STEPS}

    def program(self) -> Program:
        self._bodies = self._random.choice((1, 2, 2, 3))
        bodies = []
        for number in range(self._bodies):
            self._number = number
            bodies.append(self._body(leaf=number == self._bodies - 1))
        return Program(tuple(bodies))

    def _body(self, *, leaf: bool) -> Body:
        random = self._random
        count = random.choice((3, 4, 5) if self._eternal else (1, 1, 1, 2, 3))
        generations = [self._steps(random.randint(1, 1 if self._eternal else 3)) for _ in range(count)]
        if random.random() < (0.25 if leaf else 0.1):
            pause = (self._sleep(),) if random.random() < 0.7 else ()  # what fails by itself can be rewound
            generations[-1] = (*generations[-1], *pause, Boom())
        keeps = tuple(random.random() < 0.93 for _ in range(count - 1))
        return Body(random.choice(("generator", "coroutine")), tuple(generations), keeps)

    def _steps(self, count: int) -> tuple[Step, ...]:
        names = list(self._mixes)
        weights = [self._mixes[name] + 0.02 for name in names]
        return tuple(self._step(name) for name in self._random.choices(names, weights, k=count))

    def _step(self, name: str) -> Step:
        random = self._random
        match name:
            case "call":
                return self._call()
            case "sub":
                return self._sub() or self._call()
            case "sleep":
                return self._sleep()
            case "wait":
                return self._wait(random.choice(EVENTS))
            case "hasty":
                return Hasty(random.choice(EVENTS), self._call())
            case "nap":
                return Nap(random.choice((0.001, 2.0, 500.0)), self._call())
            case "monitor":
                self._keys += 1
                return Monitor(f"m{self._keys}", random.randint(2, 4), random.choice((0.5, 2.0, 7.0)))
            case "quit":
                return Quit(self._call(), self._call())
            case "every":
                return Every(tuple(self._part() for _ in range(random.randint(2, 3))))
            case "wide":
                return Every(tuple(self._wide_part() for _ in range(random.choice((8, 12, 30)))))
            case "first":
                return First(tuple(self._part(plain=True) for _ in range(random.randint(2, 3))))
            case "branches":
                return Branches(tuple(self._branch(f"branch{i}") for i in range(2)))
            case "loose":
                return Loose(self._call())
            case "marked":
                return Marked(random.choice(("fraud check", "new rates")))
            case _:
                return Status(random.randrange(100))

    def _part(self, *, plain: bool = False) -> Part:
        kind = self._random.choice(("call", "call", "sleep", "wait", "sub"))
        if kind == "sub":
            return self._sub() or self._call()
        if kind == "sleep":
            return self._sleep()
        if kind == "wait":
            event = self._random.choice(EVENTS)
            return Wait(event) if not plain else self._wait(event)
        return self._call()

    def _wide_part(self) -> Part:
        """One of many at once, more than small limits let into a batch. They succeed, so all are waited for."""
        kind = self._random.choice(("call", "call", "call", "sleep", "sub"))
        if kind == "sleep":
            return Sleep(0.01)
        if kind == "sub" and self._number == self._bodies - 2:  # else a crowd of crowds
            return self._sub() or self._plain_call()
        return self._plain_call()

    def _plain_call(self) -> Call:
        self._keys += 1
        return Call(self._keys)

    def _branch(self, event: str) -> tuple[Step, ...]:
        steps: list[Step] = []
        for _ in range(self._random.randint(1, 2)):
            kind = self._random.choice(("call", "sleep", "wait", "hasty"))
            if kind == "wait":
                steps.append(self._wait(event))
            elif kind == "hasty":
                steps.append(Hasty(event, self._call()))
            else:
                steps.append(self._call() if kind == "call" else self._sleep())
        return tuple(steps)

    def _call(self) -> Call:
        random = self._random
        self._keys += 1
        fails = random.choice((0, 0, 0, 1, 2))
        attempts = random.choice((0, 2, 3)) if fails else random.choice((0, 0, 2))
        return Call(
            self._keys,
            fails,
            fatal=fails > 0 and random.random() < 0.2,
            attempts=attempts,
            first=random.choice((0.05, 1.0, 7.0)),
            backoff=random.choice((1.0, 2.0)),
            pad=random.choice((0, 0, 0, 100)),
            drawn=random.random() < 0.15,
        )

    def _sub(self) -> Sub | None:
        if self._number == self._bodies - 1:
            return None
        self._keys += 1
        body = self._random.randint(self._number + 1, self._bodies - 1)
        attempts = self._random.choice((0, 0, 2))
        id_of = self._random.choice(("i0", "i1")) if self._random.random() < 0.12 else ""
        own_id, again = self._random.random() < 0.4, not id_of and self._random.random() < 0.3
        return Sub(self._keys, body, attempts, own_id=own_id, id_of=id_of, again=again)

    def _sleep(self) -> Sleep:
        return Sleep(self._random.choice((0.0, 0.01, 1.0, 5.0, 30.0, 90.0)))

    def _wait(self, event: str) -> Wait:
        random = self._random
        timeout = random.choice((None, None, 0.5, 10.0, LONG_WAIT))
        if timeout is None:
            return Wait(event, bare=random.random() < 0.5)
        return Wait(event, timeout, default=random.random() < 0.5)


_STEPS = (
    "call",
    "sub",
    "sleep",
    "wait",
    "hasty",
    "nap",
    "monitor",
    "quit",
    "every",
    "first",
    "branches",
    "loose",
    "marked",
    "status",
    "wide",
)
