"""Entities that do I/O (`offload=True`): an operation runs like an activity, with the entity's state.

`core/offloading.py` defines the data; this module is the activity that runs the operation.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from perdure.engine.clock import new_id
from perdure.engine.core.offloading import Landing, encoded, flights, runner_name
from perdure.engine.functions.registry import Activity, Registry
from perdure.model.entities import EntityId
from perdure.replay.activity_context import ActivityContext
from perdure.replay.determinism import Mismatch
from perdure.replay.entity import (
    EntityCode,
    EntityContext,
    Operated,
    Surroundings,
    conclude,
    unhandled,
)
from perdure.replay.environment import Environment

if TYPE_CHECKING:
    from collections.abc import Iterable


def with_offloaded(registry: Registry, codes: Iterable[EntityCode], environment: Environment) -> Registry:
    """The registry, plus an activity for each offloaded entity."""
    offloaded = [code for code in codes if code.offload]
    if not offloaded:
        return registry
    extended = Registry()
    extended.include(registry)
    for code in offloaded:
        for on_loop in (False, True):
            name = runner_name(code.name, on_loop)
            runner = _async_runner(code, environment) if on_loop else _runner(code, environment)
            extended.activities[name] = Activity(name, runner)
    return extended


def _runner(code: EntityCode, environment: Environment) -> Any:
    def run(context: ActivityContext) -> Any:
        flown = _context(context, environment)
        before = flown._state
        try:
            done = conclude(code, flown, *code.run(flown, None))
        except Mismatch as found:
            return _unfit(found)
        except Exception as error:
            return _failed(flown, before, error)
        return _landed(done)

    return run


def _async_runner(code: EntityCode, environment: Environment) -> Any:
    async def run(context: ActivityContext) -> Any:
        flown = _context(context, environment)
        before = flown._state
        try:
            returned, subject = code.run(flown, None)
            done = conclude(
                code, flown, await returned if inspect.isawaitable(returned) else returned, subject
            )
        except Mismatch as found:
            return _unfit(found)
        except Exception as error:
            return _failed(flown, before, error)
        return _landed(done)

    return run


def _context(context: ActivityContext, environment: Environment) -> EntityContext:
    flight = flights.decode(context._input)
    world = Surroundings(
        flight.at, new_id, lambda function: environment.orchestrator(function).name, environment.entity
    )
    flown = EntityContext(EntityId.parse(flight.entity), flight.state, flight.operation, flight.input, world)
    flown.key = context.idempotency_key
    return flown


def _failed(flown: EntityContext, before: Raw, error: BaseException) -> Raw:
    try:
        return _landed(unhandled(flown, before, error))
    except Mismatch as found:
        return _unfit(found)


def _unfit(found: Mismatch) -> Raw:
    return Raw(encoded(Landing(misfit=str(found.error))))


def _landed(done: Operated) -> Raw:
    messages: Any = tuple(done.messages)
    return Raw(encoded(Landing(done.state, done.result, done.failure, messages)))
