"""The protocol of an entity's operation that runs outside the loop.

The state and the operation go out; the new state, the answer and the messages come back. The entity's
incarnation and the number of applied operations identify a flight. That id identifies one operation for ever,
gives it its idempotency key, and lets a result count only for its own operation. `activities/offloaded.py` runs
the operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from perdure.engine.core.entity_state import flight_of
from perdure.engine.core.tracing import calling
from perdure.failure import Failure
from perdure.model.events import ABSENT
from perdure.model.messages import EntityOperation, Start
from perdure.replay.entity import ClassStyle, EntityCode, FunctionStyle, Operated
from perdure.replay.settle import Invocation

if TYPE_CHECKING:
    from perdure.engine.core.entity_state import LiveEntity
    from perdure.engine.core.instance import Instance
    from perdure.model.messages import ActivityResult


class Flight(msgspec.Struct, frozen=True, omit_defaults=True):
    """One outgoing operation, with the entity's state."""

    entity: str
    operation: str
    state: Raw = ABSENT
    input: Raw = ABSENT
    at: int = 0


class Landing(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of an operation."""

    state: Raw = ABSENT
    result: Raw = ABSENT
    failure: Failure | None = None
    messages: tuple[EntityOperation | Start, ...] = ()
    misfit: str = ""  # the state does not fit: nothing ran


encoded = msgspec.json.Encoder().encode
flights = msgspec.json.Decoder(Flight)
_landings = msgspec.json.Decoder(Landing)


def invocation_of(
    code: EntityCode, instance: Instance, entity_state: LiveEntity, message: EntityOperation, now: int
) -> Invocation:
    """The operation as an invocation to run after the commit."""
    execution_id, number = flight_of(instance, entity_state)
    flight = Flight(instance.instance_id, message.operation, entity_state.state, message.input, now)
    caller = calling(message)
    return Invocation(
        instance.instance_id,
        execution_id,
        number,
        number,
        1,
        runner_name(code.name, _is_async(code, message.operation)),
        Raw(encoded(flight)),
        trace=caller.text() if caller is not None else "",
        scheduled_at=now,
    )


def answer_of(result: ActivityResult, state: Raw) -> Operated:
    """The outcome of an operation outside the loop. A failed operation leaves the state unchanged."""
    if result.failure is not None:
        return Operated(state, failure=result.failure)
    landing = _landings.decode(result.result)
    if landing.failure is not None:
        return Operated(state, failure=landing.failure)
    return Operated(landing.state, landing.result, None, list(landing.messages))


def runner_name(entity: str, is_async: bool) -> str:
    return f"@{entity}@async" if is_async else f"@{entity}@"


def _is_async(code: EntityCode, operation: str) -> bool:
    if isinstance(code, ClassStyle):
        method = code.methods.get(operation.casefold())
        return method is not None and method.is_async
    return isinstance(code, FunctionStyle) and code.is_async


def misfit_of(result: ActivityResult) -> str:
    """Why an operation outside the loop could not read its entity's state; "" if it could."""
    return "" if result.failure is not None else _landings.decode(result.result).misfit


__all__ = [
    "Flight",
    "Landing",
    "answer_of",
    "encoded",
    "flights",
    "invocation_of",
    "misfit_of",
    "runner_name",
]
