"""The final checks of entities: their registers against the tokens sent by programs and clients.

In the end each token that the programs must have sent is in exactly one place, once, in its sender's order.
Failed operations left no trace. A critical section has only tokens of its holder, and no entity is locked. The
expected tokens come from the syntax trees, not from data written by perdure.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from perdure.model import events as ev
from perdure.model.entities import decode_record
from simulation.entities import ARCHIVE
from simulation.program import Ask, Body, Branches, Every, First, Program, Section, Step, Tell

if TYPE_CHECKING:
    from simulation.ledger import RunRecord
    from simulation.world import World


def sent_by(body: Body) -> Iterator[tuple[int, Step]]:
    """Every step of a body that sends entities something, with its generation. All of them are taken."""
    for generation, steps in enumerate(body.generations):
        for step in steps:
            yield from ((generation, one) for one in _inside(step))


def _inside(step: Step) -> Iterator[Step]:
    match step:
        case Ask() | Tell() | Section():
            yield step
        case Every() | First():
            yield from (part for part in step.parts if isinstance(part, Ask))
        case Branches():
            for branch in step.branches:
                for inner in branch:
                    yield from _inside(inner)


class Registers:
    """The final content of all registers, and its checks."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger = world.ledger
        self._logs: dict[str, list[str]] = defaultdict(list)
        self._dropped: Counter[str] = Counter()
        self._read()

    def _read(self) -> None:
        states: dict[str, Any] = {}
        for run in self._ledger.entities():
            record = decode_record(run.entity_state)
            if record.lock is not None:
                self._bad("I23", f"{run} is still locked by {record.lock}")
            if bytes(record.state):
                states[run.row.instance_id] = json.loads(bytes(record.state))
        for entity, log in states.get(ARCHIVE, []):
            self._logs[entity] += log
            self._world.met("an entity deleted, with what it held handed on")
        for entity, state in states.items():
            if entity != ARCHIVE:
                self._logs[entity] += state["log"] if isinstance(state, dict) else state
        for row in self._ledger.dropped:
            if row.kind == "operation":
                body = json.loads(row.body)
                for token in [body] if isinstance(body, str) else body[1]:
                    self._dropped[token] += 1

    def _bad(self, code: str, text: str) -> None:
        self._ledger.problem(code, text)

    def judge(self) -> None:
        seen: Counter[str] = Counter()
        for log in self._logs.values():
            seen.update(log)
        for token, count in seen.items():
            if count > 1:
                self._bad("I22", f"{token} was applied {count} times: {self._where(token)}")
        expected: dict[str, tuple[str, bool]] = {}
        for run in self._ledger.orchestrations():
            self._of_run(run, seen, expected)
        self._of_clients(seen, expected)
        for token in seen.keys() - expected.keys():
            self._bad("I22", f"{token} was sent by nobody: {self._where(token)}")
        self._sections()

    def _of_run(self, run: RunRecord, seen: Counter[str], expected: dict[str, tuple[str, bool]]) -> None:
        program: Program = self._world.plan.program
        body = program.bodies[int(run.row.name.removeprefix("body"))]
        ending = run.past.state.ending
        is_sure = isinstance(ending, ev.ExecutionCompleted | ev.ExecutionFailed)
        last: dict[str, int] = {}
        for generation, step in sent_by(body):
            for token, entity, succeeds in tokens_of(step, run.execution_id(generation + 1)):
                if succeeds:
                    expected[token] = (entity, is_sure)
                    places = seen[token] + self._dropped[token]
                    if is_sure and places != 1 and not self._may_be_undone(step):
                        self._bad("I22", f"{run}: {token} for {entity} is in {places} places")
                elif seen[token]:
                    self._bad("I22", f"{run}: {token} failed, and yet it is there: {self._where(token)}")
        for generation, steps in enumerate(body.generations):
            for step in steps:
                if isinstance(step, Ask | Section) or (isinstance(step, Tell) and not step.delay):
                    self._in_order(run, step, generation, last)

    def _may_be_undone(self, step: Step) -> bool:
        """Whether a call may have no effect: a call interrupted by the watchdog failed and left nothing."""
        return not isinstance(step, Tell) and self._world.may_interrupt

    def _in_order(self, run: RunRecord, step: Step, generation: int, last: dict[str, int]) -> None:
        """Tokens of one sender to one entity are in the order in which they were sent."""
        for token, entity, _ in tokens_of(step, run.execution_id(generation + 1)):
            log = self._logs[entity]
            if token in log:
                at = log.index(token)
                if at < last.get(entity, -1):
                    self._bad("order", f"{run}: {token} overtook what was sent to {entity} before it: {log}")
                last[entity] = at

    def _of_clients(self, seen: Counter[str], expected: dict[str, tuple[str, bool]]) -> None:
        for dealing in self._world.dealings:
            if dealing.order.verb != "signal":
                continue
            token = f"client:{dealing.order.key}"
            expected[token] = (dealing.target, False)
            places = seen[token] + self._dropped[token]
            if self._ledger.shared:  # each request for it may have left a record of its own
                places = seen[token] or min(1, places)
                places = 1 if token in self._ledger.refused_late else places
            if dealing.was_accepted and places != 1 and dealing.operation_id:
                self._bad("I22", f"{token} to {dealing.target} was accepted and is in {places} places")
            surely = dealing.attempts == 1 or not self._ledger.shared
            if surely and dealing.outcome == "refused" and not dealing.was_accepted and seen[token]:
                self._bad("I22", f"{token} to {dealing.target} was refused, and yet it is there")

    def _sections(self) -> None:
        """I23: between entering and leaving, an entity saw its holder only."""
        for entity, log in self._logs.items():
            for at, token in enumerate(log):
                holder, kind = token.rpartition(":")[::2]
                if kind != "enter":
                    continue
                leave = f"{holder}:leave"
                between = log[at + 1 : log.index(leave)] if leave in log else []
                execution = token.partition(":")[0]
                strangers = [other for other in between if other.partition(":")[0] != execution]
                if strangers:
                    self._bad("I23", f"{entity}: {strangers} inside the critical section of {holder}: {log}")
                elif leave in log:
                    self._world.met("a critical section entered and left")

    def _where(self, token: str) -> list[str]:
        return [f"{entity}: {log}" for entity, log in self._logs.items() if token in log]


def tokens_of(step: Step, execution_id: str) -> Iterator[tuple[str, str, bool]]:
    """(token, entity, whether it is to stay) of a step."""
    match step:
        case Ask():
            yield f"{execution_id}:{step.key}", step.entity, step.operation != "fail"
        case Tell():
            yield f"{execution_id}:{step.key}", step.entity, step.operation != "fail"
        case Section():
            for entity in step.entities:
                yield f"{execution_id}:{step.key}{entity}:enter", entity, True
            if not step.stays:
                for entity in step.entities:
                    yield f"{execution_id}:{step.key}{entity}:leave", entity, True
