"""What people have done, judged at the end: who has decided, when, and whose a task was (P1 to P4)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from perdure.model import events as ev
from simulation.program import PEOPLE

if TYPE_CHECKING:
    from simulation.clients import Dealing
    from simulation.ledger import RunRecord
    from simulation.world import World

ANSWERS = frozenset({"decide", "complete"})


def check_people(world: World) -> None:
    """All checks of one world."""
    dealings = {dealing.order.key: dealing for dealing in world.dealings}
    for run in world.ledger.orchestrations():
        for past in run.executions.values():
            for _, events in past.recorded:
                for event in events:
                    if isinstance(event, ev.EventRaised) and event.name == "panel":
                        _signed(world, run, event, dealings)
        ending = run.past.state.ending
        if isinstance(ending, ev.ExecutionCompleted):
            for entry in json.loads(bytes(ending.output)):
                if isinstance(entry, list) and entry and entry[0] == "decided":
                    _decided(world, run, entry[1], dealings)
    _claims(world)


def _signed(world: World, run: RunRecord, event: ev.EventRaised, dealings: dict[int, Dealing]) -> None:
    """P1: history names the person who has sent an answer."""
    sender = dealings[json.loads(bytes(event.input))].order.person
    if event.decided_by != sender:
        world.ledger.problem("P1", f"{run}: {event.decided_by!r} is named for what {sender!r} has sent")


def _decided(world: World, run: RunRecord, decisions: Any, dealings: dict[int, Dealing]) -> None:
    """P2, P3: decisions are by different people with the role, and each of them has sent this one, once."""
    people = [person for _, person in decisions]
    if len(set(people)) != len(people):
        world.ledger.problem("P2", f"{run}: one person counts twice: {people}")
    if not set(people) <= set(PEOPLE):
        world.ledger.problem("P2", f"{run}: an answer without a person or a role counts: {people}")
    for key, person in decisions:
        order = dealings[key].order
        if order.verb not in ANSWERS or order.person != person or order.target != run.row.instance_id:
            world.ledger.problem("P3", f"{run}: {person} is said to have sent {order}")
    if len({key for key, _ in decisions}) != len(decisions):
        world.ledger.problem("P3", f"{run}: one answer counts twice: {decisions}")
    world.met("a panel decided by several people" if len(people) > 1 else "a panel decided")


def _claims(world: World) -> None:
    """P4: a claim that was acknowledged is in a row (that no two people hold a task is checked at each commit)."""
    held = {(run.row.instance_id, holder) for run, holder in world.ledger.holders}
    for dealing in world.dealings:
        order = dealing.order
        if order.verb == "claim" and dealing.was_accepted and (dealing.target, order.person) not in held:
            world.ledger.problem("P4", f"{order.person} was told of a claim that no row has: {order}")


__all__ = ["ANSWERS", "check_people"]
