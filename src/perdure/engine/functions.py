"""An application's functions as the hub and the orchestrators' contexts use them."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from msgspec import Raw

from perdure.engine.operations import code_of
from perdure.engine.registry import Orchestrator, Registry, name_of, orchestrator_input
from perdure.replay.context import CallTarget, OrchestrationContext
from perdure.replay.decide import Code
from perdure.replay.entity import EntityCode


class Entry:
    """An orchestrator ready to be run: its code, its default version and its door."""

    __slots__ = ("_definition", "code", "version")

    def __init__(self, definition: Orchestrator) -> None:
        takes_input, input_type = orchestrator_input(definition)
        self._definition = definition
        self.code = Code(definition.name, definition.function, takes_input, input_type)
        self.version = definition.version

    def admit(self, event_name: str, body: Raw) -> None:
        """Raise EventRefused for an event that the declared `events` do not admit."""
        self._definition.admit(event_name, body)


class Functions:
    """Every orchestrator by name (case does not matter, as in Azure), and the environment of their contexts."""

    def __init__(self, registry: Registry) -> None:
        self.environment = RegistryEnvironment(registry)
        self._entries = {name: Entry(definition) for name, definition in registry.orchestrators.items()}
        self.entities: dict[str, EntityCode] = {
            name: code_of(definition) for name, definition in registry.entities.items()
        }
        self._folded = {name.casefold(): entry for name, entry in self._entries.items()}

    def orchestrator(self, name: str) -> Entry | None:
        return self._entries.get(name) or self._folded.get(name.casefold())

    def entity(self, name: str) -> EntityCode | None:
        """By its name in lower case, as ids have it."""
        return self.entities.get(name)


class RegistryEnvironment:
    """What a context asks of its surroundings, answered from the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._activities: dict[Any, CallTarget] = {}
        self._orchestrators: dict[Any, CallTarget] = {}

    def activity(self, function: Any) -> CallTarget:
        target = self._activities.get(function)
        if target is None:
            definition = self._registry.activity(name_of(function))
            target = self._activities[function] = CallTarget(
                definition.name,
                Any if isinstance(function, str) else definition.hints().get("return", Any),
                definition.retry,
                definition.timeout,
                definition.heartbeat,
            )
        return target

    def orchestrator(self, function: Any) -> CallTarget:
        target = self._orchestrators.get(function)
        if target is None:
            definition = self._registry.orchestrator(name_of(function))
            output = definition.hints().get("return", Any)
            typed = not isinstance(function, str) and not _is_generator_type(output)
            target = self._orchestrators[function] = CallTarget(definition.name, output if typed else Any)
        return target

    def logger(self, context: OrchestrationContext) -> ReplaySafeLogger:
        return ReplaySafeLogger(context)


def _is_generator_type(annotation: Any) -> bool:
    return "Generator" in str(annotation) or "Iterator" in str(annotation)


class ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs to `perdure.orchestrator`, silent while history is replayed and after eviction."""

    def __init__(self, context: OrchestrationContext) -> None:
        super().__init__(logging.getLogger("perdure.orchestrator"), {"instance_id": context.instance_id})
        self._context = context

    def isEnabledFor(self, level: int) -> bool:
        live = not (self._context._replaying or self._context._detached)
        return live and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs
