"""What the context of an orchestration asks of the application around it: the functions that it may call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from perdure.errors import EngineSignal
from perdure.model import actions as act
from perdure.model import payload
from perdure.model.retry import RetryPolicy


@dataclass(frozen=True)
class CallTarget:
    """A function as a call needs it: its registered name, its result's type, its default retry and timeout."""

    name: str
    output_type: Any = Any
    retry: RetryPolicy | None = None
    timeout: int = 0
    heartbeat: int = 0
    version: str = ""
    guard: payload.Guard | None = None
    """What an input has to pass to be read whole as the type of the function's parameter."""


class RunApart(EngineSignal):
    """A step takes long, and clients wait for the batch that it is in: it runs again in a batch of its own."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.instance_id = instance_id


class Environment(Protocol):
    """What the context asks of its surroundings; all of it is fixed while the code is."""

    def activity(self, function: Any) -> CallTarget:
        """Resolve an activity by reference or name. Raises FunctionNotFound."""

    def orchestrator(self, function: Any) -> CallTarget:
        """Resolve an orchestrator by reference or name. Raises FunctionNotFound."""

    def entity(self, name: str) -> None:
        """Raise FunctionNotFound when no entity has this name, which is in lower case."""

    def operation(self, entity: str, operation: str) -> payload.Guard | None:
        """What an operation's input has to pass to be read whole, where an entity of that name is known."""

    def is_renamed(self, action: act.Action, recorded: Any) -> bool:
        """Whether an action is the recorded one but for a name that its function also goes by."""

    def pause(self, instance_id: str) -> bool:
        """The code has asked for another thousand things: whatever need not wait for its step may go between.

        Returns whether its step is to be run again in a batch of its own, because others wait for this one.
        """

    def logger(self, instance_id: str, is_live: Callable[[], bool]) -> Any:
        """A logger that is silent while `is_live` says no: during replay, and once the code is put away."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which execution of which instance this is."""

    instance_id: str
    execution_id: str
    parent_instance_id: str | None = None
    version: str = ""


__all__ = ["CallTarget", "Environment", "Identity", "RunApart"]
