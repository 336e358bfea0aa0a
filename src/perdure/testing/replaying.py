"""Orchestrators without an engine: pass a history to an orchestrator, and get its decisions or the mismatch.

`replay` is for tests of an orchestrator's own logic: it replays everything before the last arrival and returns
the response to that. `check_history` is for deployments: it checks that the current code repeats a recorded
instance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.engine.functions.registry import Orchestrator, Registry, definition_of, version_of
from perdure.engine.functions.resolved import Entry, FunctionTable, RegistryEnvironment
from perdure.engine.interrupting import put_away
from perdure.errors import FunctionMissing, FunctionNotFound, NonDeterminismError
from perdure.model import events as ev
from perdure.model import payload
from perdure.model.actions import Action
from perdure.model.durations import instant
from perdure.replay.decide import ARRIVALS, Code, Execution
from perdure.replay.environment import CallTarget, Identity
from perdure.replay.settle import Outcome, settle
from perdure.testing.history import Episode, HistoryBuilder
from perdure.triggers import with_built_ins

if TYPE_CHECKING:
    from perdure.app import App
    from perdure.failure import Failure

Saved = str | bytes | Sequence[Mapping[str, Any]] | Sequence[Episode] | HistoryBuilder


@dataclass(frozen=True)
class Replayed:
    """The response of an orchestrator to the last arrival of a history.

    `decisions` are history events, as an engine would record them. `ending` is None if it continues.
    """

    decisions: tuple[ev.HistoryEvent, ...]
    custom_status: Any = None

    @property
    def ending(self) -> ev.HistoryEvent | None:
        last = self.decisions[-1] if self.decisions else None
        return (
            last if isinstance(last, ev.ExecutionCompleted | ev.ExecutionFailed | ev.ContinuedAsNew) else None
        )

    @property
    def output(self) -> Any:
        """The orchestrator's return value; None if it continues."""
        ending = self.ending
        return payload.decode(ending.output) if isinstance(ending, ev.ExecutionCompleted) else None

    @property
    def failure(self) -> Failure | None:
        """The failure of the orchestrator, or None."""
        ending = self.ending
        return ending.failure if isinstance(ending, ev.ExecutionFailed) else None


def replay(
    orchestrator: str | Callable[..., Any],
    history: Saved,
    *,
    app: App | None = None,
    instance_id: str = "replayed",
    execution_id: str = "00000000-1",
) -> Replayed:
    """Replay a history and return the orchestrator's response to its last arrival.

    Parameters:
        orchestrator: a function, registered or not, or a registered name (with `app`).
        history: a `HistoryBuilder`, or a history as for `check_history`. Recorded events after its last arrival
            must match.
        app: supplies retry policies, timeouts and types of activities; without it any name is accepted.

    Raises:
        NonDeterminismError if the code does not match the history, FunctionNotFound for a call of a function
        that `app` does not have (on a worker the instance would wait for it).
    """
    episodes = load_history(history)
    execution = Execution(
        _code(orchestrator, app), Identity(instance_id, execution_id), _surroundings(orchestrator, app)
    )
    try:
        before, at, last, recorded = _split(episodes)
        execution.replay(before)
        execution.begin_episode(at)
        if recorded:
            execution.replay([(at, [last, *recorded])])
            return Replayed(tuple(recorded), execution.context.custom_status)
        outcome = Outcome(instance_id, execution_id)
        settle(execution.arrive(last), outcome)
        return Replayed(tuple(outcome.events), execution.context.custom_status)
    except FunctionMissing as missing:
        raise FunctionNotFound(str(missing)) from None
    finally:
        put_away(execution)


def check_history(
    orchestrator: str | Callable[..., Any],
    history: Saved,
    *,
    app: App | None = None,
    instance_id: str = "replayed",
    execution_id: str = "00000000-1",
) -> NonDeterminismError | None:
    """Replay a saved history against the current code; returns None if they match, else the error.

    Parameters:
        orchestrator: the function, or its registered name (with `app`).
        history: the output of `perdure history --json`, the `history` of a status fetched with input and
            results, or (microseconds, events) of each episode.
        app: the application with its activities; required if they have retry policies of their own.
        instance_id, execution_id: the ids of the instance, if the code reads them.
    """
    execution = Execution(
        _code(orchestrator, app), Identity(instance_id, execution_id), _surroundings(orchestrator, app)
    )
    try:
        execution.replay(load_history(history))
    except NonDeterminismError as error:
        return error
    except FunctionMissing as missing:
        raise FunctionNotFound(str(missing)) from None
    finally:
        put_away(execution)
    return None


def load_history(history: Saved) -> list[Episode]:
    """Episodes, (microseconds, events) each, from any stored form of a history."""
    if isinstance(history, HistoryBuilder):
        return history.episodes
    entries: Any = json.loads(history) if isinstance(history, str | bytes) else history
    if isinstance(entries, Mapping):  # a status with its history
        content, entries = entries, entries.get("events") or entries.get("history")
        if entries is None:
            raise ValueError(f"this contains no history, only {', '.join(content) or 'nothing'}")
    episodes: list[Episode] = []
    for entry in entries:
        if isinstance(entry, Mapping):
            _append(episodes, entry)
        else:
            at, events = entry
            episodes.append((at, list(events)))
    return episodes


def _append(episodes: list[Episode], entry: Mapping[str, Any]) -> None:
    at = instant(datetime.fromisoformat(entry["timestamp"]))
    content = {name: value for name, value in entry.items() if name != "timestamp"}
    (event,) = ev.decode_events(msgspec.json.encode([content]))
    if episodes and episodes[-1][0] == at:
        episodes[-1][1].append(event)
    else:
        episodes.append((at, [event]))


def _split(
    episodes: Sequence[Episode],
) -> tuple[list[Episode], int, ev.Arrival, list[ev.HistoryEvent]]:
    """The episodes before the last arrival, its time, the arrival, and the recorded events after it."""
    for index in range(len(episodes) - 1, -1, -1):
        at, events = episodes[index]
        for place in range(len(events) - 1, -1, -1):
            event = events[place]
            if isinstance(event, ARRIVALS):
                before = [*episodes[:index], (at, events[:place])] if place else list(episodes[:index])
                rest = [later for _, group in episodes[index + 1 :] for later in group]
                return before, at, event, [*events[place + 1 :], *rest]
    raise ValueError("this history has no arrival: it begins with ExecutionStarted")


class _Lenient:
    """Resolves functions without an application: every name is accepted."""

    def __init__(self) -> None:
        self._registry = RegistryEnvironment(Registry())
        self.logger = self._registry.logger

    def activity(self, function: Any) -> CallTarget:
        return self._target(function)

    def orchestrator(self, function: Any) -> CallTarget:
        return self._target(function)

    def entity(self, name: str) -> None:
        """Accept every entity."""

    def operation(self, entity: str, operation: str) -> None:
        """Check nothing."""

    def is_renamed(self, action: Action, recorded: Any) -> bool:
        return False

    def pause(self, instance_id: str) -> bool:
        return False

    def _target(self, function: Any) -> CallTarget:
        if isinstance(function, str):
            return CallTarget(function)
        definition = definition_of(function)
        if definition is None:
            return CallTarget(function.__name__)
        returns = definition.hints().get("return", Any)
        return CallTarget(
            definition.name,
            Any if isinstance(definition, Orchestrator) else returns,
            getattr(definition, "retry", None),
            getattr(definition, "timeout", 0),
            getattr(definition, "heartbeat", 0),
            version=version_of(function),
        )


def _surroundings(orchestrator: str | Callable[..., Any], app: App | None) -> Any:
    return RegistryEnvironment(with_built_ins(app.registry)) if app is not None else _Lenient()


def _code(orchestrator: str | Callable[..., Any], app: App | None) -> Code:
    if isinstance(orchestrator, str):
        if app is None:
            raise FunctionNotFound(
                f"no application given for the orchestrator {orchestrator!r}: pass app=..."
            )
        registry = with_built_ins(app.registry)
        registry.orchestrator(orchestrator)
        entry = FunctionTable(registry).orchestrator(orchestrator)
        assert entry is not None
        return entry.code
    definition = definition_of(orchestrator)
    if not isinstance(definition, Orchestrator):
        definition = Orchestrator(getattr(orchestrator, "__name__", "orchestrator"), orchestrator)
    return Entry(definition).code
