"""The operator: after the last fault it resumes parked instances and sends the events that instances wait for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perdure.model.records import InboxRow
from simulation.clients import Actor
from simulation.database import Database
from simulation.ledger import RunRecord
from simulation.plan import Client, Order
from simulation.stage import Stage
from simulation.worker import SimulatedWorker

EVERY = 5.0  # seconds between two rounds of the operator
AFTER = 45.0  # seconds of silence in which late duplicates arrive
KEYS = 1_000_000  # orders of the operator are numbered from here


class OperatedStage(Stage, Protocol):
    """The world, as the operator uses it."""

    database: Database | None
    actors: list[Actor]

    @property
    def workers(self) -> Sequence[SimulatedWorker]: ...

    def add_actor(self, client: Client) -> None: ...


class Operator:
    """The operator's actions after the last fault."""

    def __init__(self, world: OperatedStage) -> None:
        self._world = world
        self._keys = KEYS
        self._busy: dict[str, int] = {}
        self._quiet_since: int | None = None
        self.is_healed = False
        self.healed_at = 0  # in turns of the loop

    def heal(self) -> None:
        """No more faults from now on. A poor deployment takes another one, and so does an instance for which the
        store would not even take that it is parked (the log says so); nothing else may need a restart."""
        world = self._world
        world.trace("healed")
        self.is_healed = world.injector.is_healed = True
        self.healed_at = max(1, world.steps)
        world.clock.heal()
        if world.database is not None:
            world.database.away_until = 0
        for worker in world.workers:
            worker.heal()
            must = worker.probe.has_been_poor or any(f.effect == "all" for f in world.injector.refusals)
            if must or world.plan.knobs.restarts_when_healed:
                worker.probe.has_been_poor = False
                if worker.loop is not None:
                    worker.crash()
        world.after(EVERY, self._round, alone=True)

    def _round(self) -> None:
        for run in [*self._world.ledger.living(), *self._world.ledger.entities()]:
            self._see_to(run)
        self._world.after(EVERY, self._round, alone=True)

    def _see_to(self, run: RunRecord) -> None:
        row, ledger = run.row, self._world.ledger
        if row.status == "Suspended" and row.reason.partition(":")[0] in ("operator", "poison"):
            self._order("resume", row.instance_id)
        elif all(actor.is_done for actor in self._world.actors):
            for wait, _ in run.past.state.waits.values():
                timed = any(t.of == wait.id for t in run.past.state.timers.values())
                if not timed and not any(map(_is_held, ledger.inbox.values())):
                    self._order("raise", row.instance_id, wait.name)
                    return

    def _order(self, verb: str, target: str, event: str = "") -> None:
        """One at a time for each instance."""
        before = self._busy.get(target)
        if before is not None and not self._world.actors[before].is_done:
            return
        self._keys += 1
        self._busy[target] = len(self._world.actors)
        self._world.add_actor(Client((Order(self._keys, verb, target, event=event),)))

    def is_at_rest(self) -> bool:
        """Whether the world is at rest: no faults, all clients done, every instance finished, no message left,
        and a while of silence.
        """
        if not self.is_healed:
            return False
        world = self._world
        if self._quiet_since is None:
            busy = not all(actor.is_done for actor in world.actors)
            down = any(worker.loop is None for worker in world.workers)
            if busy or down or world.ledger.inbox or any(True for _ in world.ledger.living()):
                return False
            self._quiet_since = world.clock.true
        return world.clock.true - self._quiet_since > AFTER * 1e6

    def why_not(self) -> str:
        """What still keeps the world from resting."""
        world = self._world
        told = [
            f"{run} is {run.row.status} ({run.row.reason[:200]}), due {run.row.due_at}, "
            f"{run.past.state.waiting().sentence() or 'between two steps'}"
            for run in world.ledger.living()
        ]
        told += [
            f"{run} is {run.row.status} ({run.row.reason[:200]}), {run.entity_state!r}"
            for run in world.ledger.entities()
            if run.row.status != "Running" or run.row.local_work
        ]
        told += [f"client is at {actor._dealing}" for actor in world.actors if not actor.is_done]
        told += [
            f"message {n} for {row.instance_id!r}: {row.message[:160]!r} at {row.visible_at}"
            for n, row in world.ledger.inbox.items()
        ]
        told += [f"engine {worker.name} is down" for worker in world.workers if worker.loop is None]
        told += [f"{key} has a row: {placed}" for key, placed in world.ledger.placed.items()]
        return "; ".join(told) or "it only turns"


def _is_held(row: InboxRow) -> bool:
    """Whether a message waits for an orchestration to be resumed."""
    return row.visible_at is None and not row.instance_id.startswith("@")
