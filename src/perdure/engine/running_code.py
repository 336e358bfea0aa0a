"""Which durable code runs here now: for logs, which name the instance behind each line.

An activity is in a context variable, which its tasks share, and threads that it starts with `asyncio.to_thread`.
Code on an engine's loop thread, an orchestrator's or an entity's, is looked up with that engine instead: so it
costs nothing while no line is written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, NamedTuple

from perdure.model.activity_names import entity_of

if TYPE_CHECKING:
    from perdure.replay.settle import Invocation


class RunningCode(NamedTuple):
    """Durable code, and the instance that it belongs to. What does not apply is empty, or 0."""

    hub: str = ""
    instance_id: str = ""
    execution_id: str = ""
    orchestrator: str = ""
    entity: str = ""
    activity: str = ""
    attempt: int = 0


class Wanted:
    """Whether anything asks for the running code. Until then a host does not note its activities."""

    __slots__ = ("is_wanted",)

    def __init__(self) -> None:
        self.is_wanted = False


WANTED: Final = Wanted()
Noted = tuple[str, "Invocation"]
_noted: Final[ContextVar[Noted | None]] = ContextVar("perdure_activity", default=None)
_loops: Final[dict[int, Callable[[], RunningCode | None]]] = {}  # by the thread of each engine's loop


def running_code() -> RunningCode | None:
    """The durable code that the caller belongs to; None outside of such code."""
    noted = _noted.get()
    if noted is not None:
        return _of_activity(*noted)
    on_loop = _loops.get(threading.get_ident())
    return None if on_loop is None else on_loop()


def note_activity(hub: str, invocation: Invocation) -> Token[Noted | None]:
    """Note that the current context runs this activity."""
    return _noted.set((hub, invocation))


def forget_activity(token: Token[Noted | None]) -> None:
    """Undo `note_activity`."""
    try:
        _noted.reset(token)
    except ValueError:
        pass  # the body was closed from another context, whose value is not this one's


def note_loop(on_loop: Callable[[], RunningCode | None]) -> None:
    """Note that the calling thread runs an engine's loop, and how to find the code that runs on it."""
    _loops[threading.get_ident()] = on_loop


def forget_loop() -> None:
    """Undo `note_loop`, on the same thread."""
    _loops.pop(threading.get_ident(), None)


def _of_activity(hub: str, invocation: Invocation) -> RunningCode:
    entity = entity_of(invocation.name)
    return RunningCode(
        hub,
        invocation.instance_id,
        invocation.execution_id,
        invocation.orchestrator,
        entity,
        "" if entity else invocation.name,
        0 if entity else invocation.attempt,
    )


__all__ = [
    "WANTED",
    "RunningCode",
    "forget_activity",
    "forget_loop",
    "note_activity",
    "note_loop",
    "running_code",
]
