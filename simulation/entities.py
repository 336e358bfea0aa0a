"""Entities of the simulated world: registers of tokens, in three kinds.

A token names one step of one execution (or one order of a client), so all messages differ. An entity appends
the tokens that it receives; `move` sends its register to an archive and deletes the entity.
"""

from __future__ import annotations

from typing import Any, Protocol

from perdure.engine.functions.entity_definitions import code_of
from perdure.engine.functions.registry import Entity
from perdure.errors import Interrupted
from perdure.replay.entity import EntityCode, EntityContext

ARCHIVE = "@archive@"
KINDS = ("list", "box", "slow")  # a function, a class, and one whose operations run outside the loop


class Hangs(Protocol):
    def hangs(self) -> bool:
        """Whether the operation that runs now is interrupted by the watchdog."""


def codes(world: Hangs) -> dict[str, EntityCode]:
    """The entities as a hub runs them."""

    def register(context: EntityContext) -> Any:
        """In the style of functions."""
        if world.hangs():
            raise Interrupted("simulated: it ran too long")
        log, token = context.get_state(list), context.get_input()
        log.append(token)
        match context.operation_name:
            case "put":
                context.set_state(log)
            case "fail":
                context.set_state(log)
                context.signal_entity(ARCHIVE, "keep", [str(context.entity_id), log])
                raise ValueError(token)
            case "move":
                context.signal_entity(ARCHIVE, "keep", [str(context.entity_id), log])
                context.destruct_on_exit()
        return token

    class Box:
        """In the style of classes."""

        def __init__(self) -> None:
            self.log: list[str] = []

        def put(self, token: str) -> str:
            if world.hangs():
                raise Interrupted("simulated: it ran too long")
            self.log.append(token)
            return token

        def fail(self, token: str, context: EntityContext) -> None:
            self.log.append(token)
            context.signal_entity(ARCHIVE, "keep", [str(context.entity_id), self.log])
            raise ValueError(token)

        def move(self, token: str, context: EntityContext) -> str:
            self.log.append(token)
            context.signal_entity(ARCHIVE, "keep", [str(context.entity_id), self.log])
            context.destruct_on_exit()
            return token

    class Slow(Box):
        async def put(self, token: str) -> str:  # type: ignore[override]
            self.log.append(token)
            return token

    def archive(context: EntityContext) -> None:
        context.set_state([*context.get_state(list), context.get_input()])

    return {
        "list": code_of(Entity("list", register)),
        "box": code_of(Entity("box", Box)),
        "slow": code_of(Entity("slow", Slow, offload=True)),
        "archive": code_of(Entity("archive", archive)),
    }
