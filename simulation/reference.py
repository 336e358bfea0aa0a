"""The reference: the possible answers of a program, from its syntax tree alone. It imports nothing of perdure.

Given the log that an orchestration returned, it walks the program beside it. Where the outcome is determined,
the entry must be exactly that; where the world decides (a race, a timeout), the entry must be one of the
possible ones. Which events were consumed is collected on the way and judged together with what was sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simulation.activities import answer_of, attempts_of, input_of
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

Entry = list[Any]
CUT = "too long a log for a message"
TAKEN = "perdure.errors.InstanceExists"


class Unexpected(Exception):
    """The log cannot come from this program."""


class Reference:
    """Judges logs. `children_may_end` when some client terminates sub-orchestrations, `operations_may` when some
    operation of an entity may be interrupted."""

    def __init__(self, program: Program, *, children_may_end: bool, operations_may: bool = False) -> None:
        self._program = program
        self._operations_may = operations_may
        self._children_may_end = children_may_end
        self.events: list[tuple[str, int]] = []

    def judge(self, number: int, log: Any, *, failed: bool) -> list[tuple[str, int]]:
        """The events that this log consumed, in order. Raises Unexpected."""
        self.events = []
        self._body(self._program.bodies[number], log, failed)
        return self.events

    def partial(self, number: int, log: Any) -> list[tuple[str, int]]:
        """The events consumed by a log that may stop anywhere between two steps."""
        self.events = []
        steps = [s for g in self._program.bodies[number].generations for s in g if leaves_entry(s)]
        for step, entry in zip(steps, log, strict=False):
            self._step(step, entry)
        return self.events

    def ends_badly(self, body: Body) -> bool:
        return any(isinstance(step, Boom) for steps in body.generations for step in steps)

    def _body(self, body: Body, log: Any, failed: bool) -> None:
        if failed != self.ends_badly(body):
            raise Unexpected(f"it {'failed' if failed else 'completed'}, and the program says otherwise")
        self._steps([step for steps in body.generations for step in steps], log)

    def _steps(self, steps: Sequence[Step], log: Any) -> None:
        wanted = [step for step in steps if leaves_entry(step)]
        _demand(isinstance(log, list) and len(log) == len(wanted), f"{len(wanted)} entries", log)
        for step, entry in zip(wanted, log, strict=True):
            self._step(step, entry)

    def _step(self, step: Step, entry: Any) -> None:
        match step:
            case Call():
                _demand(entry == call_entry(step), call_entry(step), entry)
            case Hasty() | Nap() | Quit():
                _demand(entry == call_entry(step.call), call_entry(step.call), entry)
            case Sleep():
                _demand(entry == ["slept", True], ["slept", True], entry)
            case Wait():
                self._wait(step, entry)
            case Monitor():
                _demand(len(entry) == 2 and entry[0] == "monitored", "what stopped it", entry)
                if entry[1] is not None:
                    self.events.append((step.event, entry[1]))
            case Ask():
                self._ask(step.operation != "fail", entry)
            case Marked():
                _demand(entry == ["patched", True], "the patch", entry)
            case Section():
                _demand(entry[0] == "section", "a section", entry)
                _demand(len(entry[1]) == len(step.entities) * (1 if step.stays else 2), "each entity", entry)
                for one in entry[1]:
                    self._ask(True, one)
            case Panel():
                decided = entry[0] == "decided" and len(entry[1]) == step.decisions
                _demand(decided or entry == ["undecided"], f"{step.decisions} decisions", entry)
            case Sub():
                self._sub(step, entry)
            case Every():
                self._every(step, entry)
            case First():
                _demand(len(entry) == 3 and entry[0] == "first", "a winner", entry)
                self._step(step.parts[entry[1]], entry[2])
            case Branches():
                _demand(entry[0] == "branches" and len(entry[1]) == len(step.branches), "branches", entry)
                for branch, log in zip(step.branches, entry[1], strict=True):
                    self._steps(branch, log)

    def _wait(self, wait: Wait, entry: Entry) -> None:
        if entry[0] == "event":
            self.events.append((wait.event, entry[1]))
            return
        otherwise = ["default"] if wait.default else ["timeout"]
        _demand(wait.timeout is not None and entry == otherwise, "an event or its timeout", entry)

    def _ask(self, succeeds: bool, entry: Entry) -> None:
        if self._operations_may and entry == ["failed", "TimeoutError", None]:
            return
        wanted = ["asked", True] if succeeds else ["failed", "ValueError", None]
        _demand(entry == wanted, wanted, entry)

    def _sub(self, sub: Sub, entry: Entry) -> None:
        if self._children_may_end and entry == ["failed", "OrchestrationTerminated", None]:
            return
        if (sub.id_of or sub.again) and entry == ["failed", TAKEN, None]:
            return
        body = self._program.bodies[sub.body]
        failed = entry[0] == "failed"
        _demand(not failed or entry[1] == "RuntimeError", "the child's own failure", entry)
        if entry[-1] == CUT:
            return
        kept, self.events = self.events, []  # a child consumes its own events
        self._body(body, entry[-1], failed)
        self.events = kept

    def _every(self, every: Every, entry: Entry) -> None:
        certain = {kind for part in every.parts if (kind := self._failure(part))}
        possible = set(certain)
        for part in every.parts:
            if isinstance(part, Sub):
                possible |= {TAKEN} if part.id_of or part.again else set()
                possible |= {"OrchestrationTerminated"} if self._children_may_end else set()
            if isinstance(part, Ask) and self._operations_may:
                possible |= {"TimeoutError"}
        if entry[0] == "every-failed":
            _demand(entry[1] in possible, f"one of {sorted(possible)}", entry)
            return
        _demand(not certain and len(entry[1]) == len(every.parts), "a failure" if certain else "all", entry)
        for part, own in zip(every.parts, entry[1], strict=True):
            self._step(part, own)

    def _failure(self, part: Step) -> str:
        if isinstance(part, Call):
            entry = call_entry(part)
            return entry[1] if entry[0] == "failed" else ""
        if isinstance(part, Ask):
            return "ValueError" if part.operation == "fail" else ""
        if isinstance(part, Sub):
            return "RuntimeError" if self.ends_badly(self._program.bodies[part.body]) else ""
        return ""


def call_entry(call: Call) -> Entry:
    """The log entry of a call."""
    result, failure = answer_of(input_of(call), attempts_of(call))
    return ["failed", failure, None] if failure else ["ok", result]


def leaves_entry(step: Step) -> bool:
    return not isinstance(step, Status | Loose | Boom | Tell)


def last_status(body: Body, log: Any) -> int | None:
    """The custom status that a body leaves behind when it has run to its end."""
    values = [step.value for steps in body.generations for step in steps if isinstance(step, Status)]
    return values[-1] if values else None


def _demand(holds: bool, wanted: Any, found: Any) -> None:
    if not holds:
        raise Unexpected(f"expected {wanted}, found {str(found)[:300]}")
