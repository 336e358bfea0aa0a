"""The functions of an application, as the engine and the orchestrators' contexts use them."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from msgspec import Raw

from perdure.engine.functions.callables import reference
from perdure.engine.functions.entity_definitions import code_of, input_of
from perdure.engine.functions.registry import (
    Orchestrator,
    Registry,
    input_parameter_of,
    likely_input,
    orchestrator_input,
    orchestrator_output,
    version_of,
)
from perdure.engine.functions.versions import Versioning, newest
from perdure.errors import FunctionNotFound
from perdure.model import actions as act
from perdure.model import payload
from perdure.model.readings import Reading
from perdure.replay.decide import Code
from perdure.replay.determinism import agree_but_for_name
from perdure.replay.entity import EntityCode
from perdure.replay.environment import CallTarget


class Entry:
    """An orchestrator ready to run: its code, the version of new instances, and its event check."""

    __slots__ = ("_definition", "code", "version")

    def __init__(self, definition: Orchestrator, version: str = "") -> None:
        _, input_type = orchestrator_input(definition)
        self._definition = definition
        door = definition.refusal_of if definition.events is not None else None
        self.code = Code(
            definition.name,
            definition.function,
            input_parameter_of(definition),
            input_type,
            door,
            payload.guard_of(orchestrator_output(definition)),
        )
        self.version = definition.version or version

    def admit(self, event_name: str, body: Raw, known: Reading | None = None) -> Reading | None:
        """Raise EventRefused for an event that the declared `events` do not admit. See `Orchestrator.admit`."""
        return self._definition.admit(event_name, body, known)


class FunctionTable:
    """Every orchestrator by name (case does not matter, as in Azure), and the environment of their contexts."""

    def __init__(self, registry: Registry, versioning: Versioning | None = None) -> None:
        self.environment = RegistryEnvironment(registry)
        self.fails_on_nondeterminism = registry.fails_on_nondeterminism
        self.entities: dict[str, EntityCode] = {
            name: code_of(definition) for name, definition in registry.entities.items()
        }
        self.versioning = versioning or Versioning()
        self._versions = {
            name: {
                version: Entry(definition, self.versioning.default)
                for version, definition in versions.items()
            }
            for name, versions in registry.versions.items()
        }
        self._defaults = {name: self._default(versions) for name, versions in self._versions.items()}
        self._folded = {name.casefold(): name for name in self._versions}

    def orchestrator(self, name: str, version: str | None = None) -> Entry | None:
        """The code of an instance pinned to `version`; with None the code of a new instance."""
        if version is None:
            return self._defaults.get(name) or self._defaults.get(self._folded.get(name.casefold(), ""))
        if not self.versioning.takes(version):
            return None
        known = self._named(name)
        return known.get(version) or known.get("")

    def refuses(self, version: str) -> bool:
        """Whether instances of this version fail here instead of waiting."""
        return self.versioning.failure == "Fail" and not self.versioning.takes(version)

    def missing(self, name: str, version: str) -> str:
        """Why this worker has no code for an instance, as a clause."""
        known, ours = self._named(name), self.versioning
        if not known:
            return f"no worker here has the orchestrator {name!r}"
        if not ours.takes(version):
            return (
                f"this worker does not take version {version!r} of the orchestrator {name!r}: its default version "
                f"is {ours.default!r} and its match strategy {ours.match}"
            )
        has = ", ".join(repr(one) for one in sorted(known)[:10])
        return f"no worker here has version {version!r} of the orchestrator {name!r}; it has {has}"

    def _named(self, name: str) -> dict[str, Entry]:
        return self._versions.get(name) or self._versions.get(self._folded.get(name.casefold(), ""), {})

    def _default(self, versions: dict[str, Entry]) -> Entry | None:
        """The default version if it is registered, else the newest that this worker runs."""
        default = self.versioning.default
        if default and default in versions:
            return versions[default]
        if "" in versions and (default or len(versions) == 1):
            return versions[""]
        taken = [version for version in versions if self.versioning.takes(version)]
        return versions[newest(taken or versions)]

    def entity(self, name: str) -> EntityCode | None:
        """The entity with this lower-case name, as in ids."""
        return self.entities.get(name)


class RegistryEnvironment:
    """The environment of contexts, backed by the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.pause: Callable[[str], bool] = lambda _: False  # the engine's, once there is one
        self._activities: dict[Any, CallTarget] = {}
        self._orchestrators: dict[Any, CallTarget] = {}
        self._operations: dict[tuple[str, str], payload.Guard | None] = {}

    def activity(self, function: Any) -> CallTarget:
        try:
            target = self._activities.get(function)
        except TypeError:  # an unhashable object
            target = None
        return self._activity(function) if target is None else target

    def _activity(self, function: Any) -> CallTarget:
        key = reference(function)
        target = self._activities.get(key)
        if target is None:
            definition = self._registry.activity(self._registry.name_of(function))
            target = self._activities[key] = CallTarget(
                definition.name,
                Any if isinstance(function, str) else definition.output_type(),
                definition.retry,
                definition.timeout,
                definition.heartbeat,
                guard=payload.guard_of(likely_input(definition)),
            )
        return target

    def orchestrator(self, function: Any) -> CallTarget:
        key = reference(function)
        target = self._orchestrators.get(key)
        if target is None:
            version = "" if isinstance(function, str) else version_of(function)
            definition = self._registry.orchestrator(self._registry.name_of(function), version)
            target = self._orchestrators[key] = CallTarget(
                definition.name,
                Any if isinstance(function, str) else orchestrator_output(definition),
                version=version,
                guard=definition.input_guard,
            )
        return target

    def entity(self, name: str) -> None:
        self._registry.entity(name)

    def operation(self, entity: str, operation: str) -> payload.Guard | None:
        key = (entity, operation)
        if key not in self._operations:
            definition = self._registry.entities.get(entity)
            parameter = input_of(code_of(definition), operation) if definition is not None else None
            self._operations[key] = payload.guard_of(parameter.type) if parameter is not None else None
        return self._operations[key]

    def is_renamed(self, action: act.Action, recorded: Any) -> bool:
        if not agree_but_for_name(action, recorded):
            return False
        resolve = {act.ScheduleTask: self.activity, act.CreateSubOrchestration: self.orchestrator}
        try:
            return bool(resolve[type(action)](recorded.name).name == action.name)  # type: ignore[union-attr]
        except (KeyError, FunctionNotFound):
            return False

    def logger(self, instance_id: str, is_live: Callable[[], bool]) -> ReplaySafeLogger:
        return ReplaySafeLogger(instance_id, is_live)


class ReplaySafeLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs to `perdure.orchestrator`, silent while history is replayed and after eviction."""

    def __init__(self, instance_id: str, is_live: Callable[[], bool]) -> None:
        super().__init__(logging.getLogger("perdure.orchestrator"), {"instance_id": instance_id})
        self._is_live = is_live

    def isEnabledFor(self, level: int) -> bool:
        return self._is_live() and super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs
