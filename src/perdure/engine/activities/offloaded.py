"""Entities that do I/O (`offload=True`): an operation runs like an activity, with the state it is to change.

What travels is the state and the operation; what comes back is the new state, the answer and the messages.
A flight is named by the entity's incarnation and the number of operations applied so far: that names one operation
for ever, gives it its idempotency key, and lets a result count only where it belongs.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from perdure.engine.activities import ActivityContext
from perdure.engine.clock import new_id
from perdure.engine.core.entity_state import flight_of
from perdure.engine.functions.callables import is_async
from perdure.engine.functions.registry import Activity, Registry
from perdure.failure import Failure
from perdure.model.entities import EntityId
from perdure.model.events import ABSENT
from perdure.model.messages import EntityOperation, Start
from perdure.replay.context import Environment
from perdure.replay.determinism import Mismatch
from perdure.replay.entity import (
    ClassStyle,
    EntityCode,
    EntityContext,
    FunctionStyle,
    Operated,
    Surroundings,
    conclude,
    unhandled,
)
from perdure.replay.settle import Invocation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.engine.core.entity_state import Mailbox
    from perdure.engine.core.instance import Instance
    from perdure.model.messages import ActivityResult


class Flight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation on its way out, with the state it finds."""

    entity: str
    operation: str
    state: Raw = ABSENT
    input: Raw = ABSENT
    at: int = 0


class Landing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of it."""

    state: Raw = ABSENT
    result: Raw = ABSENT
    failure: Failure | None = None
    messages: tuple[EntityOperation | Start, ...] = ()
    misfit: str = ""  # the state does not fit: nothing was done


_encode = msgspec.json.Encoder().encode
_flights = msgspec.json.Decoder(Flight)
_landings = msgspec.json.Decoder(Landing)


def invocation_of(
    code: EntityCode, instance: Instance, mailbox: Mailbox, message: EntityOperation, now: int
) -> Invocation:
    """The operation as something to be run after the commit."""
    execution_id, number = flight_of(instance, mailbox)
    flight = Flight(instance.instance_id, message.operation, mailbox.state, message.input, now)
    return Invocation(
        instance.instance_id,
        execution_id,
        number,
        number,
        1,
        _runner_name(code.name, _is_async(code, message.operation)),
        Raw(_encode(flight)),
        0,
    )


def answer_of(result: ActivityResult, state: Raw) -> Operated:
    """What an operation that ran outside has come to. One that did not come to an end left the state alone."""
    if result.failure is not None:
        return Operated(state, failure=result.failure)
    landing = _landings.decode(result.result)
    if landing.failure is not None:
        return Operated(state, failure=landing.failure)
    return Operated(landing.state, landing.result, None, list(landing.messages))


def with_offloaded(registry: Registry, codes: Iterable[EntityCode], environment: Environment) -> Registry:
    """The registry with an activity for every way in which an offloaded entity's operations are run."""
    offloaded = [code for code in codes if code.offload]
    if not offloaded:
        return registry
    extended = Registry()
    extended.include(registry)
    for code in offloaded:
        for on_loop in (False, True):
            name = _runner_name(code.name, on_loop)
            runner = _async_runner(code, environment) if on_loop else _runner(code, environment)
            extended.activities[name] = Activity(name, runner)
    return extended


def _runner_name(entity: str, is_async: bool) -> str:
    return f"@{entity}@async" if is_async else f"@{entity}@"


def _is_async(code: EntityCode, operation: str) -> bool:
    if isinstance(code, ClassStyle):
        method = code.methods.get(operation.casefold())
        return method is not None and is_async(method.function)
    return isinstance(code, FunctionStyle) and is_async(code.function)


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
    flight = _flights.decode(context._input)
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
    return Raw(_encode(Landing(misfit=str(found.error))))


def misfit_of(result: ActivityResult) -> str:
    """Why an operation that ran outside could not read its entity's state; "" if it could."""
    return "" if result.failure is not None else _landings.decode(result.result).misfit


def _landed(done: Operated) -> Raw:
    messages: Any = tuple(done.messages)
    return Raw(_encode(Landing(done.state, done.result, done.failure, messages)))
