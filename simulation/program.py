"""Programs: orchestrations as syntax trees, which two interpreters and one reference understand.

A body is a list of generations (continue-as-new leads from one to the next), each a list of steps.
Almost every step leaves one entry in the log, and the log is what the orchestration returns.
"""

from __future__ import annotations

from dataclasses import dataclass

LONG_WAIT = 70.0
"""Waits with this timeout are human tasks."""


@dataclass(frozen=True)
class Call:
    """Call an activity, which fails `fails` times before it succeeds. `attempts` 0 is without a retry policy."""

    key: int
    fails: int = 0
    fatal: bool = False  # its failures are of a type that is not retried
    attempts: int = 0
    first: float = 1.0
    backoff: float = 1.0
    pad: int = 0  # bytes by which the result is larger
    drawn: bool = False  # the activity's name is chosen by context.random()
    final: str = ""  # "unrecorded": it returns what JSON cannot carry; "unfit": its input does not fit it
    ends: str = ""  # how an attempt that fails ends: "" raises; "exits", "task exits", "cancels itself"


@dataclass(frozen=True)
class Sub:
    """Call another body of the program; with an id of its own, one that may be taken, or a derived one.

    With `again`, the id is made from the caller's, as in Azure's samples: each run and generation uses it
    again.
    """

    key: int
    body: int
    attempts: int = 0
    own_id: bool = False
    id_of: str = ""
    again: bool = False


@dataclass(frozen=True)
class Sleep:
    """A durable timer."""

    seconds: float


@dataclass(frozen=True)
class Wait:
    """Wait for an event; after `timeout` there is an error, or a default. `bare`: in a loop with a bare `except:`."""

    event: str
    timeout: float | None = None
    default: bool = False
    bare: bool = False

    @property
    def is_task(self) -> bool:
        """Whether people are asked with a human task."""
        return self.timeout == LONG_WAIT


@dataclass(frozen=True)
class Hasty:
    """Open a wait, make a call in the meantime, then cancel the wait unseen: an event it took must come back."""

    event: str
    call: Call


@dataclass(frozen=True)
class Nap:
    """Start a timer, make a call in the meantime, then cancel the timer."""

    seconds: float
    call: Call


@dataclass(frozen=True)
class Monitor:
    """Race a new wait against a new timer in each round; the loser is abandoned, not cancelled."""

    event: str
    rounds: int
    seconds: float


@dataclass(frozen=True)
class Quit:
    """Start an activity, make a call in the meantime, then cancel the activity; it may have ended before that."""

    quits: Call
    call: Call


@dataclass(frozen=True)
class Every:
    """task_all."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class First:
    """task_any; waits and timers that lost are cancelled."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Branches:
    """spawn, and wait for all."""

    branches: tuple[tuple[Step, ...], ...]


@dataclass(frozen=True)
class Loose:
    """A call that is never awaited."""

    call: Call


@dataclass(frozen=True)
class Status:
    """set_custom_status."""

    value: int


@dataclass(frozen=True)
class Marked:
    """Ask whether a patch applies; these programs never change, so it always does."""

    name: str


@dataclass(frozen=True)
class Boom:
    """Fail, with the log in the message; inside a critical section over `held`, if there is one."""

    held: str = ""


@dataclass(frozen=True)
class Ask:
    """Call an entity: put, fail (which must leave nothing) or move."""

    key: int
    entity: str
    operation: str = "put"


@dataclass(frozen=True)
class Tell:
    """Signal an entity, perhaps `delay` seconds later."""

    key: int
    entity: str
    operation: str = "put"
    delay: float = 0.0


@dataclass(frozen=True)
class Section:
    """A critical section: enter each entity, pause, leave each. With `stays`, the end of the execution ends it."""

    key: int
    entities: tuple[str, ...]
    seconds: float = 0.0
    stays: bool = False


PEOPLE = ("ada", "ben", "cyd", "dan")
"""People with the roles that a panel asks for."""
STRANGER = "eve"
"""A person without them."""


@dataclass(frozen=True)
class Panel:
    """A human task that `decisions` different people decide before `timeout`; it returns a default afterwards."""

    event: str
    decisions: int
    timeout: float
    escalates: bool = False


Part = Call | Sub | Sleep | Wait | Ask
Step = (
    Call
    | Sub
    | Sleep
    | Wait
    | Hasty
    | Nap
    | Monitor
    | Quit
    | Every
    | First
    | Branches
    | Loose
    | Status
    | Marked
    | Boom
    | Ask
    | Tell
    | Section
    | Panel
)


@dataclass(frozen=True)
class Body:
    """One orchestrator. `style` is generator or coroutine; `keeps[i]` is save_events after generation i."""

    style: str
    generations: tuple[tuple[Step, ...], ...]
    keeps: tuple[bool, ...] = ()

    def keeps_events(self, generation: int) -> bool:
        return self.keeps[generation] if generation < len(self.keeps) else True


@dataclass(frozen=True)
class Program:
    """All bodies of a seed; a body calls only bodies with a greater number."""

    bodies: tuple[Body, ...]

    def name(self, number: int) -> str:
        return f"body{number}"


def steps_of(body: Body) -> list[Step]:
    """Every step of all generations, those inside branches included."""
    found: list[Step] = []
    for generation in body.generations:
        for step in generation:
            found.append(step)
            if isinstance(step, Branches):
                found.extend(inner for branch in step.branches for inner in branch)
    return found


def calls_of(step: Step) -> list[Call]:
    """The calls of activities in one step."""
    match step:
        case Call():
            return [step]
        case Hasty() | Nap() | Loose():
            return [step.call]
        case Quit():
            return [step.quits, step.call]
        case Every() | First():
            return [part for part in step.parts if isinstance(part, Call)]
        case Branches():
            return [call for branch in step.branches for inner in branch for call in calls_of(inner)]
        case _:
            return []


def waits_of(step: Step) -> list[Wait]:
    """The waits of one step whose event can end up in the log."""
    match step:
        case Wait():
            return [step]
        case Monitor():
            return [Wait(step.event)]
        case Every() | First():
            return [part for part in step.parts if isinstance(part, Wait)]
        case Branches():
            return [wait for branch in step.branches for inner in branch for wait in waits_of(inner)]
        case _:
            return []
