"""Replays of histories: complete ones and prefixes, at once or step by step, in a new execution or not.

In every way the code must request the same actions, in the same places, with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.engine.interrupting import put_away
from perdure.errors import NonDeterminismError
from perdure.model import events as ev
from perdure.replay.decide import Execution
from perdure.replay.environment import Identity
from perdure.replay.rewinding import ARRIVALS, is_rewound
from perdure.replay.settle import Outcome, settle
from simulation.ledger import Recorded, RunRecord

if TYPE_CHECKING:
    from simulation.world import World

Decisions = list[list[Any]]  # what followed each arrival


def check_replays(world: World, run: RunRecord) -> None:
    """I7 for every execution of a run."""
    for number, past in run.executions.items():
        recorded = past.recorded
        if past.state.started is not None:
            again = _Again(world, run, number, recorded)
            if is_rewound(recorded):
                again.all_of_it()
                continue
            again.live_it()
            again.from_a_prefix()
            again.at_once_and_one_by_one()


class _Again:
    def __init__(self, world: World, run: RunRecord, number: int, recorded: Recorded) -> None:
        self._world = world
        self._run = run
        self._number = number
        self._recorded = recorded

    def _new(self) -> Execution:
        run = self._run
        identity = Identity(
            run.row.instance_id, run.execution_id(self._number), run.row.parent_id, run.row.version
        )
        return Execution(self._world.bodies.code(run.row.name), identity, self._world.bodies.environment)

    def all_of_it(self) -> None:
        """The complete history, for a rewound execution, which only replay can check: void events were executed
        as well.
        """
        execution = self._new()
        try:
            execution.replay(self._recorded)
        except NonDeterminismError as error:
            self._world.ledger.problem("I7", f"{self._run}: its own history is refused: {error}")
        put_away(execution)

    def live_it(self) -> None:
        """Without the script: the same events again, inputs and times included."""
        execution = self._new()
        for at, events in self._recorded:
            self._live(execution, at, events)
        put_away(execution)

    def lived(self) -> Recorded:
        """What history would contain, with the events of operators where they are."""
        execution = self._new()
        made: Recorded = []
        for at, events in self._recorded:
            execution.begin_episode(at)
            row: list[ev.HistoryEvent] = []
            for event in events:
                if isinstance(event, ARRIVALS):
                    row += [event, *_settled(execution, event)]
                elif isinstance(event, (ev.Control, ev.ExecutionTerminated)):
                    row.append(event)
            made.append((at, row))
        put_away(execution)
        return made

    def from_a_prefix(self) -> None:
        """Replay some episodes, as after an eviction, then live the rest."""
        share = self._world.chance.draw("prefix", self._run.row.instance_id, self._number)
        cut = int(share * (len(self._recorded) + 1))
        execution = self._new()
        try:
            execution.replay(self._recorded[:cut])
        except NonDeterminismError as error:
            self._world.ledger.problem("I7", f"{self._run}: its own history is refused: {error}")
            return
        execution.context.actions.clear()
        for at, events in self._recorded[cut:]:
            self._live(execution, at, events)
        put_away(execution)

    def _live(self, execution: Execution, at: int, events: list[ev.HistoryEvent]) -> None:
        execution.begin_episode(at)
        for arrival, decisions in exchanges(events):
            found = _settled(execution, arrival)
            if not _same(found, decisions):
                self._world.ledger.problem(
                    "I7", f"{self._run}: after {_short(arrival)} history has {decisions}, now {found}"
                )

    def at_once_and_one_by_one(self) -> None:
        """Batching is invisible: one episode or many, evicted after each or not, modulo times."""
        arrivals = [arrival for _, events in self._recorded for arrival, _ in exchanges(events)]
        at = self._recorded[0][0]
        whole = self._new()
        whole.begin_episode(at)
        together = [_settled(whole, arrival) for arrival in arrivals]
        put_away(whole)
        told: list[tuple[int, list[ev.HistoryEvent]]] = []
        for number, arrival in enumerate(arrivals):
            execution = self._new()
            execution.replay(told)
            execution.context.actions.clear()
            execution.begin_episode(at + number)
            found = _settled(execution, arrival)
            put_away(execution)
            if not _same(found, together[number], timeless=True):
                self._world.ledger.problem(
                    "batching",
                    f"{self._run}: after {_short(arrival)} alone {found}, in a batch {together[number]}",
                )
                return
            told.append((at + number, [arrival, *found]))


def lived_again(world: World, run: RunRecord, number: int, recorded: Recorded) -> Recorded:
    """The history of an execution as its code makes it from the same arrivals, without a crash and a replay.

    A rewound history is as it was recorded: code lives only one end.
    """
    started = any(isinstance(event, ev.ExecutionStarted) for _, events in recorded for event in events)
    if is_rewound(recorded) or not started:
        return recorded
    return _Again(world, run, number, recorded).lived()


def exchanges(events: Iterable[ev.HistoryEvent]) -> Iterable[tuple[ev.Arrival, list[Any]]]:
    """Arrivals, each with the decisions behind it."""
    arrival: Any = None
    decisions: list[Any] = []
    for event in events:
        if isinstance(event, ARRIVALS):
            if arrival is not None:
                yield arrival, decisions
            arrival, decisions = event, []
        elif not isinstance(event, (ev.Control, ev.ExecutionTerminated)):
            decisions.append(event)
    if arrival is not None:
        yield arrival, decisions


def _settled(execution: Execution, arrival: ev.Arrival) -> list[Any]:
    """The code's response, as events."""
    identity = execution.context._identity
    outcome = Outcome(identity.instance_id, identity.execution_id)
    settle(execution.arrive(arrival), outcome)
    return outcome.events


def _same(one: list[Any], other: list[Any], *, timeless: bool = False) -> bool:
    """Whether two lists of events say the same; ignoring the stacks of failures."""
    return len(one) == len(other) and all(
        ev.encode_events([a]) == ev.encode_events([b]) or _bare(a, timeless) == _bare(b, timeless)
        for a, b in zip(one, other, strict=True)
    )


def _bare(event: Any, timeless: bool) -> Any:
    bare = msgspec.json.decode(msgspec.json.encode(event))
    bare.get("failure", {}).pop("stack", None)
    if timeless:
        bare.pop("fire_at", None)
        bare.pop("deadline", None)
        bare.get("task", {}).pop("reminders", None)
        bare.get("task", {}).pop("escalations", None)
        bare.pop("at", None)
        bare["name"] = bare.get("name", "")[:6]  # what follows is a UUID, which is made from the time
    return bare


def _short(event: object) -> str:
    return str(event)[:160]
