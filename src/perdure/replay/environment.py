"""The environment of an orchestration's context: the functions that it can call."""

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
    """The target of a call: registered name, result type, default retry policy and timeout."""

    name: str
    output_type: Any = Any
    retry: RetryPolicy | None = None
    timeout: int = 0
    heartbeat: int = 0
    version: str = ""
    guard: payload.Guard | None = None
    """The check that an input, read as the type of the function's parameter, loses nothing."""


class RunApart(EngineSignal):
    """A step takes long, and clients wait for the batch that it is in: it runs again in a batch of its own."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id)
        self.instance_id = instance_id


class Environment(Protocol):
    """The port of a context to its application; its answers change only with the code."""

    def activity(self, function: Any) -> CallTarget:
        """Resolve an activity by reference or name. Raises FunctionNotFound."""

    def orchestrator(self, function: Any) -> CallTarget:
        """Resolve an orchestrator by reference or name. Raises FunctionNotFound."""

    def entity(self, name: str) -> None:
        """Raise FunctionNotFound when no entity has this name, which is in lower case."""

    def operation(self, entity: str, operation: str) -> payload.Guard | None:
        """The check of an operation's input for loss, if the entity is registered."""

    def is_renamed(self, action: act.Action, recorded: Any) -> bool:
        """Whether an action differs from the recorded one only by another name of its function."""

    def pause(self, instance_id: str) -> bool:
        """Called after each thousand actions of the code, so that independent work can run in between.

        Returns whether to repeat the step in a batch of its own, because other instances wait for this batch.
        """

    def logger(self, instance_id: str, is_live: Callable[[], bool]) -> Any:
        """A logger that is silent while `is_live` is False: during replay, and after the code is closed."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of an execution."""

    instance_id: str
    execution_id: str
    parent_instance_id: str | None = None
    version: str = ""


__all__ = ["CallTarget", "Environment", "Identity", "RunApart"]
